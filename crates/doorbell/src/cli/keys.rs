//! `doorbell keys`: what lets somebody who is not the admin use a part of the API.

use std::time::Duration;

use anyhow::Result;
use clap::Subcommand;
use doorbell_core::keys::{Kind, Right};
use doorbell_core::{Name, Timestamp};
use serde_json::{Value, json};

use super::Context;
use super::card::Card;
use super::client::Client;
use super::fault::Exit;
use super::list::{Asking, Filter, Format, Listing, Paging, each, span};
use super::table::{Column, member, text};

const EXAMPLES: &str = "\
Examples:
  doorbell keys                                        who may use the API, and until when
  doorbell keys create ci --scope read,send --expires 90d
  doorbell keys revoke key_…";

const CREATE_EXAMPLES: &str = "\
Examples:
  doorbell keys create dashboard                             reads everything, and changes nothing
  doorbell keys create ci --scope read,send --expires 90d    for so long
  doorbell keys create r --agent reviewer --type internal | pass insert -e door/reviewer";

const ROTATE_EXAMPLES: &str = "\
Examples:
  doorbell keys rotate key_…                 the present secret stays good for a day
  doorbell keys rotate key_… --overlap 0s    after a leak: it ends at once";

/// Arguments of `doorbell keys`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct KeysArgs {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    list: ListArgs,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List them (what happens without a verb); never the keys themselves
    List(ListArgs),
    /// Show one
    Show {
        /// Its id: key_…
        id: String,
    },
    /// Make one: it is printed once, and kept nowhere
    Create(CreateArgs),
    /// Give one another secret; the present one stays good for a while
    #[command(after_help = ROTATE_EXAMPLES)]
    Rotate {
        /// Its id: key_…
        id: String,
        /// How long the present secret stays good: 0s, 1h, 7d
        #[arg(long, value_name = "TIME", default_value = "1d", value_parser = span)]
        overlap: Duration,
    },
    /// End keys, at once and for good
    Revoke {
        /// Their ids: key_…
        #[arg(required = true)]
        ids: Vec<String>,
    },
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Of this agent
    #[arg(long, value_name = "NAME")]
    agent: Option<Name>,
    #[command(flatten)]
    paging: Paging,
}

#[derive(Debug, clap::Args)]
#[command(after_help = CREATE_EXAMPLES)]
struct CreateArgs {
    /// What it is called: unique for each agent and type
    name: String,
    /// The one agent whose things it opens; without it all of them
    #[arg(long, value_name = "NAME")]
    agent: Option<Name>,
    /// What it may do: read, send, operate, register; several with commas
    #[arg(long, value_name = "SCOPES", default_value = "read", value_delimiter = ',')]
    scope: Vec<Right>,
    /// Who holds it: external (somebody outside) or internal (the agent)
    #[arg(long = "type", value_name = "TYPE", default_value = "external")]
    kind: Kind,
    /// It opens nothing after so long: 12h, 90d; without it it never ends
    #[arg(long, value_name = "TIME", value_parser = span)]
    expires: Option<Duration>,
}

const COLUMNS: &[Column] = &[
    Column::id("ID", "id"),
    Column::text("NAME", "name"),
    Column::text("AGENT", "agent"),
    Column::text("TYPE", "type"),
    Column::text("SCOPES", "scopes"),
    Column::age("MADE", "created_at"),
    Column::age("USED", "last_used_at"),
    Column::end("EXPIRES", "expires_at"),
];

/// Lists, shows or carries a verb out.
///
/// # Errors
/// What the API says.
pub(super) async fn run(args: KeysArgs, cx: &Context) -> Result<Exit> {
    let client = args.asking.client(cx)?;
    match args.verb.unwrap_or(Verb::List(args.list)) {
        Verb::List(list) => {
            let filters: Vec<Filter> = list.agent.map(|a| ("agent", a.to_string())).into_iter().collect();
            let empty = "There are no API keys: make one with `doorbell keys create NAME`.";
            Listing { path: "keys", filters, columns: COLUMNS, empty, none: "There are no such API keys." }
                .print(cx, &client, &list.paging, args.asking.format)
                .await
        }
        Verb::Show { id } => show(cx, &client, args.asking.format, &id).await,
        Verb::Create(new) => {
            let expires_at = new.expires.map(|span| cx.clock.now() + span);
            let scopes: Vec<&str> = new.scope.iter().map(|r| r.as_str()).collect();
            let body = json!({
                "name": new.name, "agent": new.agent, "type": new.kind.as_str(), "scopes": scopes, "expires_at": expires_at,
            });
            tell(cx, args.asking.format, &client.post("keys", &body).await?)
        }
        Verb::Rotate { id, overlap } => {
            let body = json!({ "overlap_seconds": overlap.as_secs() });
            tell(cx, args.asking.format, &client.post(&format!("keys/{id}/rotate"), &body).await?)
        }
        Verb::Revoke { ids } => {
            let revoke = async |id: &String| client.post(&format!("keys/{id}/revoke"), &json!({})).await;
            each(cx, &ids, args.asking.format, "is revoked: it opens nothing any more", revoke).await
        }
    }
}

/// The key alone on standard output, so that it can be piped to where it belongs; what to know of it beside.
fn tell(cx: &Context, format: Format, made: &Value) -> Result<Exit> {
    if format.json {
        cx.screen.line(made)?;
        return Ok(Exit::Ok);
    }
    cx.screen.line(text(made, "key"))?;
    cx.screen.remark(format!("This is {}. It is shown this one time.", text(made, "id")));
    if member(made, "overlap_until").is_some_and(Value::is_string) {
        cx.screen.remark(format!("The secret before is good until {}.", text(made, "overlap_until")));
    }
    Ok(Exit::Ok)
}

async fn show(cx: &Context, client: &Client, format: Format, id: &str) -> Result<Exit> {
    let Some(key) = format.fetch(cx, client, &format!("keys/{id}")).await? else { return Ok(Exit::Ok) };
    let mut card = Card::new(&cx.screen, cx.clock.now(), &text(&key, "type"), id, &text(&key, "name"));
    card.members(&key, &["agent", "scopes"]).time(&key, "expires_at");
    let end = member(&key, "expires_at").and_then(Value::as_str).and_then(Timestamp::parse);
    if end.is_some_and(|end| end <= cx.clock.now()) {
        card.row("state", "ended: it opens nothing any more".to_owned());
    }
    card.members(&key, &["overlap_until"]);
    card.time(&key, "created_at");
    card.time(&key, "last_used_at");
    cx.screen.line(card.finish())?;
    Ok(Exit::Ok)
}
