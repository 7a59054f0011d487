//! `doorbell agents`: who can be run; pause and resume them.

use anyhow::Result;
use clap::Subcommand;
use doorbell_core::Name;
use serde_json::json;

use super::Context;
use super::card::Card;
use super::client::Client;
use super::contracts;
use super::fault::Exit;
use super::list::{Asking, Format, Listing, Paging, each};
use super::table::{Column, member, text};

const EXAMPLES: &str = "\
Examples:
  doorbell agents                    who can be run, and what is queued
  doorbell agents pause reviewer     hold its runs; events are still accepted
  doorbell agents resume reviewer";

/// Arguments of `doorbell agents`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct AgentsArgs {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    paging: Paging,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List them (what happens without a verb)
    List(Paging),
    /// Show one with its settings
    Show {
        /// Its name
        name: Name,
    },
    /// Hold its runs: events are still accepted and queued
    Pause {
        /// Their names
        #[arg(required = true)]
        names: Vec<Name>,
    },
    /// Let its runs go on
    Resume {
        /// Their names
        #[arg(required = true)]
        names: Vec<Name>,
    },
}

const COLUMNS: &[Column] = &[
    Column::id("NAME", "name"),
    Column::text("RUNNER", "runner"),
    Column::word("STATE", "state"),
    Column::text("RUNNING", "running"),
    Column::text("QUEUED", "queued"),
    Column::text("WAITING", "waiting"),
    Column::text("CONCURRENCY", "concurrency"),
];

/// Lists, shows or carries a verb out.
///
/// # Errors
/// What the API says.
pub(super) async fn run(args: AgentsArgs, cx: &Context) -> Result<Exit> {
    let client = args.asking.client(cx)?;
    let verb = args.verb.unwrap_or(Verb::List(args.paging));
    match verb {
        Verb::List(paging) => {
            let empty = "There are no agents: add an [agents.NAME] table to doorbell.toml.";
            let exit = Listing {
                path: "agents",
                filters: Vec::new(),
                columns: COLUMNS,
                empty,
                none: "There are no such agents.",
            }
            .print(cx, &client, &paging, args.asking.format)
            .await?;
            if !args.asking.format.json {
                contracts::forwards(cx, &client).await?;
            }
            Ok(exit)
        }
        Verb::Show { name } => show(cx, &client, args.asking.format, &name).await,
        Verb::Pause { names } => {
            let pause = async |name: &Name| client.post(&format!("agents/{name}/pause"), &json!({})).await;
            each(cx, &names, args.asking.format, "is paused: its runs are queued until you resume it", pause).await
        }
        Verb::Resume { names } => {
            let resume = async |name: &Name| client.post(&format!("agents/{name}/resume"), &json!({})).await;
            each(cx, &names, args.asking.format, "goes on", resume).await
        }
    }
}

async fn show(cx: &Context, client: &Client, format: Format, name: &Name) -> Result<Exit> {
    let Some(agent) = format.fetch(cx, client, &format!("agents/{name}")).await? else { return Ok(Exit::Ok) };
    let mut card =
        Card::new(&cx.screen, cx.clock.now(), &text(&agent, "state"), name.as_str(), &text(&agent, "runner"));
    card.members(&agent, &["concurrency", "timeout_seconds", "running", "queued", "waiting"]);
    if member(&agent, "breaker").is_some() {
        let until = member(&agent, "breaker/until").map(|_| format!(" until {}", text(&agent, "breaker/until")));
        let (state, failures) = (text(&agent, "breaker/state"), text(&agent, "breaker/failures"));
        card.row("breaker", format!("{state}{}, failures one after the other: {failures}", until.unwrap_or_default()));
    }
    card.long("Settings", member(&agent, "settings"));
    cx.screen.line(card.finish())?;
    Ok(Exit::Ok)
}
