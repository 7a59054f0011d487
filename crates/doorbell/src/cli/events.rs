//! `doorbell events`: what came in; show one with what became of it, replay it.

use anyhow::Result;
use clap::Subcommand;
use doorbell_core::decision::Kind;
use doorbell_core::ids::{EventId, Name};
use serde_json::{Value, json};

use super::Context;
use super::card::Card;
use super::decisions::check_lines;
use super::fault::Exit;
use super::list::{Asking, Happened, Listing};
use super::table::{self, Column, member, text};

const EXAMPLES: &str = "\
Examples:
  doorbell events --since 1h --decision ignored   what came and started nothing
  doorbell events show evt_…                      who sent it, its body, its runs
  doorbell events replay evt_… --dry-run          which runs would it start now?
  doorbell events replay evt_… --agent other      let another agent work on it";

const REPLAY_EXAMPLES: &str = "\
Examples:
  doorbell events replay evt_… --dry-run             which runs would it start now?
  doorbell events replay evt_… --trigger github      through this trigger only
  doorbell events replay evt_… --agent other         let another agent work on it";

/// Arguments of `doorbell events`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct EventsArgs {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    list: ListArgs,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List them, newest first (what happens without a verb)
    List(ListArgs),
    /// Show one with its body and its runs
    Show {
        /// Its id
        id: EventId,
    },
    /// Start new runs from a stored event
    Replay(ReplayArgs),
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// From this source
    #[arg(long, value_name = "NAME")]
    source: Option<Name>,
    /// Of this type, such as pull_request
    #[arg(long, value_name = "TYPE")]
    event_type: Option<String>,
    /// With this decision: accepted, ignored, filter_error
    #[arg(long, value_name = "KIND")]
    decision: Option<Kind>,
    #[command(flatten)]
    happened: Happened,
}

#[derive(Debug, clap::Args)]
#[command(after_help = REPLAY_EXAMPLES)]
struct ReplayArgs {
    /// Its id
    id: EventId,
    /// Let this agent work on it instead of the triggers' own
    #[arg(long, value_name = "NAME")]
    agent: Option<Name>,
    /// Only through this trigger
    #[arg(long, value_name = "NAME")]
    trigger: Option<Name>,
    /// Only say which runs it would start
    #[arg(long)]
    dry_run: bool,
}

const COLUMNS: &[Column] = &[
    Column::id("ID", "id"),
    Column::id("SOURCE", "source"),
    Column::text("TYPE", "type"),
    Column::text("SUBJECT", "subject"),
    Column::word("DECISION", "decision"),
    Column::age("RECEIVED", "received_at"),
];

const RUN_COLUMNS: &[Column] = &[
    Column::id("RUN", "id"),
    Column::word("STATE", "state"),
    Column::text("AGENT", "agent"),
    Column::text("TRIGGER", "trigger").spared(1),
    Column::text("ATTEMPT", "attempt"),
    Column::brief("ERROR", "error").at_least(24),
];

/// Lists, shows or replays.
///
/// # Errors
/// What the API says.
pub(super) async fn run(args: EventsArgs, cx: &Context) -> Result<Exit> {
    match args.verb.unwrap_or(Verb::List(args.list)) {
        Verb::List(list) => {
            let mut filters = list.happened.filters(cx.clock.now());
            filters.extend(list.source.map(|s| ("source", s.to_string())));
            filters.extend(list.event_type.map(|t| ("event_type", t)));
            filters.extend(list.decision.map(|v| ("decision", v.to_string())));
            let client = args.asking.client(cx)?;
            Listing {
                path: "events",
                filters,
                columns: COLUMNS,
                empty: "No such event came in.",
                none: "No such event came in.",
            }
            .print(cx, &client, &list.happened.paging, args.asking.format)
            .await
        }
        Verb::Show { id } => show(cx, &args.asking, id).await,
        Verb::Replay(replay) => self::replay(cx, &args.asking, replay).await,
    }
}

async fn show(cx: &Context, asking: &Asking, id: EventId) -> Result<Exit> {
    let Some(event) = asking.fetch(cx, &format!("events/{id}")).await? else { return Ok(Exit::Ok) };
    let about = [text(&event, "type"), text(&event, "subject")].join(" ");
    let mut card = Card::new(&cx.screen, cx.clock.now(), &text(&event, "decision"), &id.to_string(), about.trim());
    card.members(&event, &["source", "actor", "sender_id", "remote", "verified_by", "reason"]);
    card.time(&event, "time").time(&event, "received_at");
    card.long("Headers", member(&event, "headers")).long("Query", member(&event, "query"));
    card.long("Data", member(&event, "data"));
    let checks = event.get("checks").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    card.part("Checks, in their order", check_lines(&cx.screen, checks));
    if let Some(runs) = event.get("runs").and_then(Value::as_array).filter(|runs| !runs.is_empty()) {
        let table = table::render(&cx.screen, RUN_COLUMNS, runs, cx.clock.now());
        card.part("Runs", table.lines().map(str::to_owned).collect());
    }
    cx.screen.line(card.finish())?;
    Ok(Exit::Ok)
}

async fn replay(cx: &Context, asking: &Asking, args: ReplayArgs) -> Result<Exit> {
    let mut body = json!({"dry_run": args.dry_run});
    if let Some(agent) = &args.agent {
        body["agent"] = json!(agent);
    }
    if let Some(trigger) = &args.trigger {
        body["trigger"] = json!(trigger);
    }
    let answer = asking.client(cx)?.post(&format!("events/{}/replay", args.id), &body).await?;
    if asking.format.json {
        cx.screen.line(&answer)?;
        return Ok(Exit::Ok);
    }
    let runs = answer.get("runs").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if runs.is_empty() {
        cx.screen
            .line("No trigger wants this event today: nothing started. `--trigger NAME` or `--agent NAME` insists.")?;
        return Ok(Exit::Failed);
    }
    for run in runs {
        let (agent, trigger) = (text(run, "agent"), text(run, "trigger"));
        let whom = [agent, trigger].into_iter().filter(|t| !t.is_empty()).collect::<Vec<_>>().join(" by trigger ");
        match member(run, "run_id").or_else(|| member(run, "id")).filter(|_| !args.dry_run) {
            Some(id) => cx.screen.line(format!("{} queued for {whom}", table::plain(id)))?,
            None => cx.screen.line(format!("would start {whom}"))?,
        }
    }
    Ok(Exit::Ok)
}
