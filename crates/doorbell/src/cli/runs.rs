//! `doorbell runs`: what agents do and did; logs, retry, cancel, wait.

use std::time::Duration;

use anyhow::Result;
use clap::Subcommand;
use doorbell_core::Timestamp;
use doorbell_core::ids::{EventId, Name, RunId};
use doorbell_core::run::State;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Context;
use super::card::Card;
use super::client::Client;
use super::fault::{Exit, Fault, describe_short};
use super::list::{Asking, Filter, Format, Happened, Listing, Paging, each, each_told, span};
use super::screen::{Tone, span_ms};
use super::table::{Column, brief, member, text};

mod logs;

const EXAMPLES: &str = "\
Examples:
  doorbell runs --state failed --since 1d     what went wrong
  doorbell runs show run_…                    its moves, result, what it waits for
  doorbell runs logs -f run_…                 watch it work
  doorbell runs wait run_… && deploy          go on when it succeeded
  doorbell runs --state failed --all --json | jq -r .id |
    xargs doorbell runs retry";

/// Arguments of `doorbell runs`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RunsArgs {
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
    /// Show one with its moves and its result
    Show {
        /// Its id
        id: RunId,
    },
    /// Print what the agent says: its output on standard output, its log and notes on standard error
    Logs(logs::LogsArgs),
    /// Queue failed or cancelled runs again, at the tail of their lanes
    Retry {
        /// Their ids
        #[arg(required = true)]
        ids: Vec<RunId>,
    },
    /// End runs, queued or running
    Cancel {
        /// Their ids
        #[arg(required = true)]
        ids: Vec<RunId>,
    },
    /// Wait until runs have ended; exits 0 if all of them succeeded, else 1
    Wait(WaitArgs),
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Of this agent
    #[arg(long, value_name = "NAME")]
    agent: Option<Name>,
    /// Of this trigger
    #[arg(long, value_name = "NAME")]
    trigger: Option<Name>,
    /// Of triggers of this kind, such as webhook
    #[arg(long, value_name = "KIND")]
    trigger_kind: Option<String>,
    /// In these states: queued, running, waiting, succeeded, failed, cancelled
    #[arg(long, value_delimiter = ',')]
    state: Vec<State>,
    /// On this event
    #[arg(long, value_name = "ID")]
    event: Option<EventId>,
    /// On events of this type
    #[arg(long, value_name = "TYPE")]
    event_type: Option<String>,
    #[command(flatten)]
    happened: Happened,
}

#[derive(Debug, clap::Args)]
struct WaitArgs {
    /// Their ids
    #[arg(required = true)]
    ids: Vec<RunId>,
    /// Give up after so long: 30s, 10m, 2h
    #[arg(long, value_name = "SPAN", value_parser = span)]
    timeout: Option<Duration>,
}

const COLUMNS: &[Column] = &[
    Column::id("ID", "id"),
    Column::word("STATE", "state"),
    Column::text("AGENT", "agent").spared(4),
    Column::text("TITLE", "title").at_least(14),
    Column::text("ATT", "attempt").spared(2),
    Column::span("TOOK", "finished_at").spared(3),
    Column::age("MADE", "created_at"),
    Column::text("HELD BY", "held_by").at_least(14).spared(1),
    Column::brief("ERROR", "error").at_least(40),
];

/// Lists, shows or carries a verb out.
///
/// # Errors
/// What the API says.
pub(super) async fn run(args: RunsArgs, cx: &Context) -> Result<Exit> {
    let client = args.asking.client(cx)?;
    match args.verb.unwrap_or(Verb::List(args.list)) {
        Verb::List(list) => {
            let (filters, paging) = list.split(cx.clock.now());
            Listing {
                path: "runs",
                filters,
                columns: COLUMNS,
                empty: "There are no such runs.",
                none: "There are no such runs.",
            }
            .print(cx, &client, &paging, args.asking.format)
            .await
        }
        Verb::Show { id } => show(cx, &client, args.asking.format, id).await,
        Verb::Logs(logs) => logs::print(cx, &client, &logs, args.asking.format).await,
        Verb::Retry { ids } => {
            let retry = async |id: &RunId| match client.post(&format!("runs/{id}/retry"), &json!({})).await {
                Ok(answer) => Ok(answer),
                Err(error) => Err(or_replay(&client, *id, error).await),
            };
            each(cx, &ids, args.asking.format, "is queued again", retry).await
        }
        Verb::Cancel { ids } => {
            let cancel = async |id: &RunId| client.post(&format!("runs/{id}/cancel"), &json!({})).await;
            each_told(cx, &ids, args.asking.format, cancelled, cancel).await
        }
        Verb::Wait(wait) => self::wait(cx, &client, wait, args.asking.format).await,
    }
}

/// What became of a run that was cancelled: one that nobody works on ends at once.
fn cancelled(answer: &Value) -> &'static str {
    match text(answer, "state").as_str() {
        "cancelled" => "is cancelled",
        _ => "is asked to end: `doorbell runs wait` tells when it has",
    }
}

/// A run that succeeded is not retried; its event can be worked on again.
async fn or_replay(client: &Client, id: RunId, error: anyhow::Error) -> anyhow::Error {
    if !error.downcast_ref::<Fault>().is_some_and(|fault| fault.exit() == Exit::Failed) {
        return error;
    }
    let Ok(run) = client.get(&format!("runs/{id}"), &[]).await else { return error };
    let event = text(&run, "event_id");
    if text(&run, "state") != State::Succeeded.as_str() || event.is_empty() {
        return error;
    }
    let said = describe_short(&error);
    Fault::new(format!("{said}. For a new run on its event: doorbell events replay {event}")).into()
}

impl ListArgs {
    fn split(self, now: Timestamp) -> (Vec<Filter>, Paging) {
        let mut filters = self.happened.filters(now);
        filters.extend(self.agent.map(|a| ("agent", a.to_string())));
        filters.extend(self.trigger.map(|t| ("trigger", t.to_string())));
        filters.extend(self.trigger_kind.map(|k| ("trigger_kind", k)));
        if !self.state.is_empty() {
            let states: Vec<&str> = self.state.iter().map(|s| s.as_str()).collect();
            filters.push(("state", states.join(",")));
        }
        filters.extend(self.event.map(|e| ("event", e.to_string())));
        filters.extend(self.event_type.map(|t| ("event_type", t)));
        (filters, self.happened.paging)
    }
}

async fn show(cx: &Context, client: &Client, format: Format, id: RunId) -> Result<Exit> {
    let Some(run) = format.fetch(cx, client, &format!("runs/{id}")).await? else { return Ok(Exit::Ok) };
    let mut card = Card::new(&cx.screen, cx.clock.now(), &text(&run, "state"), &id.to_string(), &text(&run, "title"));
    card.members(&run, &["agent", "trigger", "source", "event_id", "key", "lane", "attempt", "held_by"]);
    card.time(&run, "created_at");
    if text(&run, "state") == "queued" {
        card.time(&run, "due_at");
    }
    card.time(&run, "started_at").time(&run, "finished_at");
    card.members(&run, &["steps", "usage/tokens", "usage/cost_usd", "flag", "error"]);
    let moves = run.get("transitions").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    card.part("Moves", moves.iter().map(|m| move_line(cx, m)).collect());
    card.long("Waits for", member(&run, "pending_approvals").filter(|p| p.as_array().is_none_or(|a| !a.is_empty())));
    card.long("Output", member(&run, "output"));
    cx.screen.line(card.finish())?;
    Ok(Exit::Ok)
}

fn move_line(cx: &Context, step: &Value) -> String {
    let state = text(step, "to");
    let attempt = match text(step, "attempt").as_str() {
        "" | "0" => String::new(),
        n => format!("attempt {n}"),
    };
    let word = cx.screen.paint(Tone::of(&state), &format!("{state:9}"));
    format!("{}  {word}  {attempt:10}  {}", text(step, "at"), step.get("why").map(brief).unwrap_or_default())
        .trim_end()
        .to_owned()
}

/// Asks again and again, at first often.
async fn wait(cx: &Context, client: &Client, args: WaitArgs, format: Format) -> Result<Exit> {
    let deadline = args.timeout.map(|t| Instant::now() + t);
    let mut exit = Exit::Ok;
    for id in &args.ids {
        let Some(run) = ended(client, *id, deadline).await? else {
            let limit = span_ms(args.timeout.unwrap_or_default().as_millis());
            cx.screen.remark(format!("{id} has not ended within {limit}. It goes on; wait again, or cancel it."));
            exit = Exit::Failed;
            continue;
        };
        let state = text(&run, "state");
        if state != State::Succeeded.as_str() {
            exit = Exit::Failed;
        }
        if format.json {
            cx.screen.line(&run)?;
        } else {
            let line = [id.to_string(), cx.screen.paint(Tone::of(&state), &state), text(&run, "error")];
            cx.screen.line(line.join("  ").trim_end())?;
        }
    }
    Ok(exit)
}

/// The run once it has come to a final state; none if the deadline came first.
pub(super) async fn ended(client: &Client, id: RunId, deadline: Option<Instant>) -> Result<Option<Value>> {
    let mut pause = Duration::from_millis(50);
    loop {
        let run = client.get(&format!("runs/{id}"), &[]).await?;
        if text(&run, "state").parse::<State>().is_ok_and(State::is_final) {
            return Ok(Some(run));
        }
        let now = Instant::now();
        let left = deadline.map_or(pause, |d| d.saturating_duration_since(now));
        if left.is_zero() {
            return Ok(None);
        }
        tokio::time::sleep(pause.min(left)).await;
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}
