//! `doorbell triggers`: which events start which agent; switch them off and on.

use anyhow::Result;
use clap::Subcommand;
use doorbell_core::Name;
use serde_json::json;

use super::Context;
use super::card::Card;
use super::client::Client;
use super::fault::Exit;
use super::list::{Asking, Filter, Format, Listing, Paging, each};
use super::table::{Column, member, text};

const EXAMPLES: &str = "\
Examples:
  doorbell triggers --agent reviewer     what starts this agent
  doorbell triggers show github          its filter, key and prompt
  doorbell triggers disable github       its events are recorded as ignored";

/// Arguments of `doorbell triggers`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct TriggersArgs {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    list: ListArgs,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List them (what happens without a verb)
    List(ListArgs),
    /// Show one with its filter, key and prompt
    Show {
        /// Its name
        name: Name,
    },
    /// Let it take events again
    Enable {
        /// Their names
        #[arg(required = true)]
        names: Vec<Name>,
    },
    /// Let it take no more events: they are recorded as ignored
    Disable {
        /// Their names
        #[arg(required = true)]
        names: Vec<Name>,
    },
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Of this agent
    #[arg(long, value_name = "NAME")]
    agent: Option<Name>,
    /// Of this source
    #[arg(long, value_name = "NAME")]
    source: Option<Name>,
    #[command(flatten)]
    paging: Paging,
}

const COLUMNS: &[Column] = &[
    Column::id("NAME", "name"),
    Column::text("SOURCE", "source"),
    Column::text("AGENT", "agent"),
    Column::switch("STATE", "enabled", "disabled", "enabled"),
    Column::text("KIND", "kind").spared(1),
    Column::text("CONTRACTS", "contracts"),
    Column::text("FILTER", "settings/filter"),
];

/// Lists, shows or carries a verb out.
///
/// # Errors
/// What the API says.
pub(super) async fn run(args: TriggersArgs, cx: &Context) -> Result<Exit> {
    let client = args.asking.client(cx)?;
    match args.verb.unwrap_or(Verb::List(args.list)) {
        Verb::List(list) => {
            let mut filters: Vec<Filter> = Vec::new();
            filters.extend(list.agent.map(|a| ("agent", a.to_string())));
            filters.extend(list.source.map(|s| ("source", s.to_string())));
            let empty = "There are no triggers: add a [triggers.NAME] table to doorbell.toml.";
            Listing { path: "triggers", filters, columns: COLUMNS, empty, none: "There are no such triggers." }
                .print(cx, &client, &list.paging, args.asking.format)
                .await
        }
        Verb::Show { name } => show(cx, &client, args.asking.format, &name).await,
        Verb::Enable { names } => {
            let enable = async |name: &Name| client.post(&format!("triggers/{name}/enable"), &json!({})).await;
            each(cx, &names, args.asking.format, "takes events", enable).await
        }
        Verb::Disable { names } => {
            let disable = async |name: &Name| client.post(&format!("triggers/{name}/disable"), &json!({})).await;
            each(cx, &names, args.asking.format, "takes no more events", disable).await
        }
    }
}

async fn show(cx: &Context, client: &Client, format: Format, name: &Name) -> Result<Exit> {
    let Some(trigger) = format.fetch(cx, client, &format!("triggers/{name}")).await? else { return Ok(Exit::Ok) };
    let enabled = member(&trigger, "enabled").and_then(serde_json::Value::as_bool).unwrap_or(true);
    let about = format!("{} → {}", text(&trigger, "source"), text(&trigger, "agent"));
    let word = if enabled { "enabled" } else { "disabled" };
    let mut card = Card::new(&cx.screen, cx.clock.now(), word, name.as_str(), &about);
    card.members(&trigger, &["kind", "contracts", "max_concurrent", "max_queued"]);
    card.long("Settings", member(&trigger, "settings"));
    cx.screen.line(card.finish())?;
    Ok(Exit::Ok)
}
