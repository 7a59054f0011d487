//! `doorbell sources`: the ways in.

use anyhow::Result;
use clap::Subcommand;
use doorbell_core::Name;

use super::Context;
use super::card::Card;
use super::fault::Exit;
use super::list::{Asking, Listing, Paging};
use super::table::{Column, member, text};

/// Arguments of `doorbell sources`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct SourcesArgs {
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
    /// Show one with its settings and triggers
    Show {
        /// Its name
        name: Name,
    },
}

const COLUMNS: &[Column] = &[
    Column::id("NAME", "name"),
    Column::text("KIND", "kind"),
    Column::text("PROVIDER", "provider"),
    Column::text("PATH", "path"),
    Column::switch("STATE", "enabled", "disabled", "enabled"),
    Column::text("TRIGGERS", "triggers"),
];

/// Lists or shows.
///
/// # Errors
/// What the API says.
pub(super) async fn run(args: SourcesArgs, cx: &Context) -> Result<Exit> {
    match args.verb.unwrap_or(Verb::List(args.paging)) {
        Verb::List(paging) => {
            let empty = "There are no sources: add a [sources.NAME] or [triggers.NAME] table to doorbell.toml.";
            let client = args.asking.client(cx)?;
            Listing { path: "sources", filters: Vec::new(), columns: COLUMNS, empty }
                .print(cx, &client, &paging, args.asking.format)
                .await
        }
        Verb::Show { name } => show(cx, &args.asking, &name).await,
    }
}

async fn show(cx: &Context, asking: &Asking, name: &Name) -> Result<Exit> {
    let Some(source) = asking.fetch(cx, &format!("sources/{name}")).await? else { return Ok(Exit::Ok) };
    let mut card =
        Card::new(&cx.screen, cx.clock.now(), &text(&source, "kind"), name.as_str(), &text(&source, "provider"));
    card.members(&source, &["path", "enabled", "triggers"]);
    card.long("Settings", member(&source, "settings"));
    cx.screen.line(card.finish())?;
    Ok(Exit::Ok)
}
