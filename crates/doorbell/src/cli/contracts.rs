//! `doorbell contracts`: which wires of other systems are served, where their clients ring, and what answers.

use anyhow::Result;
use serde_json::Value;

use super::Context;
use super::client::Client;
use super::fault::Exit;
use super::list::{Asking, Listing, Paging};
use super::table::{self, Column, member};

const EXAMPLES: &str = "\
Examples:
  doorbell contracts              what is served, where, and what answers
  doorbell contracts -q almyty    of one contract

They are [contracts.NAME] tables of doorbell.toml, and agents that registered themselves: docs/contracts.md.";

/// Arguments of `doorbell contracts`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ContractsArgs {
    #[command(flatten)]
    paging: Paging,
    #[command(flatten)]
    asking: Asking,
}

const COLUMNS: &[Column] = &[
    Column::text("CONTRACT", "contract"),
    Column::id("ID", "id"),
    Column::id("LISTENER", "listen").spared(2),
    Column::id("PATH", "path"),
    Column::text("TRIGGER", "trigger"),
    Column::text("AGENT", "agent").spared(1),
    Column::text("PASSED ON TO", "forwards_to"),
    Column::text("NAMED BY", "by").spared(2),
];

/// Agents that no run goes to: they are not in `[agents]` of the file, and their requests are passed on.
const FORWARDS: &[Column] = &[
    Column::id("NAME", "id"),
    Column::id("PATH", "path"),
    Column::id("LISTENER", "listen"),
    Column::text("PASSED ON TO", "forwards_to"),
    Column::text("NAMED BY", "by"),
];

/// The most that are asked for beside another list.
const MOST: u32 = 500;

/// Lists.
///
/// # Errors
/// What the API says.
pub(super) async fn run(args: ContractsArgs, cx: &Context) -> Result<Exit> {
    let client = args.asking.client(cx)?;
    let empty = "No contract is served: add a [contracts.NAME] table to doorbell.toml.";
    Listing { path: "contracts", filters: Vec::new(), columns: COLUMNS, empty, none: "No such contract is served." }
        .print(cx, &client, &args.paging, args.asking.format)
        .await
}

/// Below the list of agents: those whose requests are passed on, if there are any.
///
/// # Errors
/// What the API says.
pub(super) async fn forwards(cx: &Context, client: &Client) -> Result<()> {
    let page = client.get("contracts", &[("limit", MOST.to_string())]).await?;
    let items = page.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
    let passed: Vec<Value> = items.into_iter().filter(|item| member(item, "forwards_to").is_some()).collect();
    if passed.is_empty() {
        return Ok(());
    }
    cx.screen.line("\nAgents that requests are passed on to, by the contract agentex:")?;
    cx.screen.line(table::render(&cx.screen, FORWARDS, &passed, cx.clock.now()))
}

#[cfg(test)]
mod tests {
    use doorbell_core::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::cli::screen::Screen;

    #[test]
    fn a_path_is_never_cut() {
        let path = "/agents/forward/name/a-reviewer-of-pull-requests/";
        let item = json!({
            "contract": "agentex", "id": "a-reviewer", "listen": "127.0.0.1:8081", "path": path, "trigger": "reviews-of-all",
            "agent": "reviewer-of-all",
        });
        let shown = table::render(&Screen::wide(80), COLUMNS, &[item], Timestamp::default());
        assert!(shown.contains(path), "{shown}");
    }
}
