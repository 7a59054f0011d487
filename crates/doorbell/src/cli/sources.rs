//! `doorbell sources`: the ways in.

use anyhow::Result;
use clap::Subcommand;
use doorbell_core::Name;
use doorbell_core::seal::SecretName;
use serde_json::json;

use super::Context;
use super::card::Card;
use super::fault::{Exit, Fault};
use super::list::{Asking, Listing, Paging, each};
use super::table::{Column, member, text};
use crate::app::existing_keys;
use crate::config::StoreAt;

const EXAMPLES: &str = "\
Examples:
  doorbell sources                   the ways in, and which let nobody in yet
  doorbell sources show github       its addresses, settings and triggers
  doorbell sources pair asana        open it for its sender's secret";

const PAIR_EXAMPLES: &str = "\
Examples:
  doorbell sources pair asana                then make the webhook within 5 minutes
  doorbell sources pair asana --keep         for a second webhook: the first secret stays good
  doorbell decisions -q paired               who handed it over, and from where";

/// Arguments of `doorbell sources`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
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
    /// Open one for some minutes, so that its sender (Asana, Notion) may hand over its secret
    #[command(after_help = PAIR_EXAMPLES)]
    Pair {
        /// Its name
        name: Name,
        /// For how long: 1 to 10
        #[arg(long, value_name = "N", default_value_t = 5)]
        minutes: u64,
        /// Secrets that were handed over before stay good: for several webhooks of one sender
        #[arg(long)]
        keep: bool,
    },
    /// Close one for pairing before its time is over
    ClosePairing {
        /// Its name
        name: Name,
    },
    /// Print what the sender of one handed over, for senders that want to see it again (Notion). Reads the store and the
    /// master key on this machine; the server never tells it
    Reveal {
        /// Its name
        name: Name,
    },
    /// Forget what the sender of one handed over: it lets nobody in until it is paired again
    Unpair {
        /// Its name
        name: Name,
    },
}

const COLUMNS: &[Column] = &[
    Column::id("NAME", "name"),
    Column::text("KIND", "kind").spared(1),
    Column::text("PROVIDER", "provider"),
    Column::text("PATH", "addresses").at_least(24),
    Column::word("STATE", "state"),
    Column::text("TRIGGERS", "triggers").spared(2),
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
            Listing {
                path: "sources",
                filters: Vec::new(),
                columns: COLUMNS,
                empty,
                none: "There are no such sources.",
            }
            .print(cx, &client, &paging, args.asking.format)
            .await
        }
        Verb::Show { name } => show(cx, &args.asking, &name).await,
        Verb::Pair { name, minutes, keep } => {
            let body = json!({ "minutes": minutes, "keep": keep });
            let source = args.asking.client(cx)?.post(&format!("sources/{name}/pair"), &body).await?;
            if args.asking.format.json {
                cx.screen.line(source)?;
                return Ok(Exit::Ok);
            }
            let until = text(&source, "pairing_until");
            cx.screen.line(format!("{name} takes the secret that its sender hands over until {until}, once."))?;
            cx.screen.remark("Make the webhook at the sender now; then `doorbell decisions` shows `paired`.");
            Ok(Exit::Ok)
        }
        Verb::ClosePairing { name } => verb(cx, &args.asking, &name, "pair/close", "is closed for pairing").await,
        Verb::Reveal { name } => reveal(cx, &args.asking, &name).await,
        Verb::Unpair { name } => verb(cx, &args.asking, &name, "unpair", "has forgotten its sender's secret").await,
    }
}

async fn verb(cx: &Context, asking: &Asking, name: &Name, path: &str, done: &str) -> Result<Exit> {
    let client = asking.client(cx)?;
    let carry = async |name: &Name| client.post(&format!("sources/{name}/{path}"), &json!({})).await;
    each(cx, std::slice::from_ref(name), asking.format, done, carry).await
}

async fn show(cx: &Context, asking: &Asking, name: &Name) -> Result<Exit> {
    let Some(source) = asking.fetch(cx, &format!("sources/{name}")).await? else { return Ok(Exit::Ok) };
    let mut card =
        Card::new(&cx.screen, cx.clock.now(), &text(&source, "state"), name.as_str(), &text(&source, "provider"));
    card.members(&source, &["kind", "addresses", "not_ready", "pairing_until", "triggers"]);
    card.long("Settings", member(&source, "settings"));
    cx.screen.line(card.finish())?;
    Ok(Exit::Ok)
}

/// The newest secret alone on standard output.
async fn reveal(cx: &Context, asking: &Asking, source: &Name) -> Result<Exit> {
    let resolved = super::resolved(&asking.config_file(), cx).await?;
    let found = resolved.sources.iter().find(|s| s.name == *source);
    let found = found.ok_or_else(|| {
        let names: Vec<&str> = resolved.sources.iter().map(|s| s.name.as_str()).collect();
        Fault::new(format!("there is no source `{source}`")).advice(format!("There are: {}.", names.join(", ")))
    })?;
    if found.webhook().is_none_or(|webhook| webhook.preset.pairing.is_none()) {
        let fault = Fault::new(format!("the sender of source `{source}` hands over no secret"));
        return Err(fault
            .advice("Its secret is where the source's `secret` says; stored ones are never shown.")
            .into());
    }
    let StoreAt::Sqlite(file) = resolved.store;
    let settings = resolved.server;
    let name = SecretName::pairing(source);
    let find = move || {
        let keys = existing_keys(&settings).map_err(|why| Fault::new("there is no master key").cause(why))?;
        let keys =
            keys.ok_or_else(|| Fault::new(format!("there is no master key in {}", settings.data_dir.display())))?;
        let kept = doorbell_store::secrets_of(&file, &name);
        let kept = kept.map_err(|why| Fault::new(format!("{} cannot be read", file.display())).cause(why))?;
        let newest = kept.first().ok_or_else(|| {
            let fault = Fault::new("the sender of this source has handed over nothing");
            fault.advice("Open it with `doorbell sources pair`, then let the sender send.")
        })?;
        keys.open(&name, &newest.secret.sealed).map_err(|why| Fault::new("the secret cannot be opened").cause(why))
    };
    let secret = tokio::task::spawn_blocking(find).await??;
    cx.screen.line(secret.expose())?;
    Ok(Exit::Ok)
}
