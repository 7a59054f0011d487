//! `doorbell decisions`: what the door said to each request, and why. `show` lists every check with what was wanted and
//! what was seen: the answer to "why did my agent not run?".

use anyhow::Result;
use clap::Subcommand;
use doorbell_core::Timestamp;
use doorbell_core::decision::Kind;
use doorbell_core::ids::{DecisionId, EventId, Name};
use serde_json::Value;

use super::Context;
use super::card::Card;
use super::fault::Exit;
use super::list::{Asking, Happened, Listing};
use super::screen::{Screen, Tone};
use super::table::{Column, text};

const EXAMPLES: &str = "\
Examples:
  doorbell decisions                   the latest answers of the door
  doorbell decisions --kind rejected --source github
                                       who was turned away, and why
  doorbell decisions -q paired         which senders handed over their secret
  doorbell decisions show dec_…        every check: what was wanted, what was seen";

/// Arguments of `doorbell decisions`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DecisionsArgs {
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
    /// Show one with every check
    Show {
        /// Its id
        id: DecisionId,
    },
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// About this source
    #[arg(long, value_name = "NAME")]
    source: Option<Name>,
    /// Of this kind: accepted, duplicate, ignored, filter_error, limited, rejected, unreadable, handshake, unavailable,
    /// forwarded
    #[arg(long)]
    kind: Option<Kind>,
    /// On this event
    #[arg(long, value_name = "ID")]
    event: Option<EventId>,
    #[command(flatten)]
    happened: Happened,
}

const COLUMNS: &[Column] = &[
    Column::id("ID", "id"),
    Column::word("DECISION", "kind").unless("code", "paired"),
    Column::id("SOURCE", "source"),
    Column::id("CODE", "code"),
    Column::text("REASON", "reason").at_least(24).spared(3),
    Column::id("EVENT", "event_id").spared(1),
    Column::id("FROM", "remote").spared(2),
    Column::age("WHEN", "created_at"),
];

/// Lists or shows.
///
/// # Errors
/// What the API says.
pub(super) async fn run(args: DecisionsArgs, cx: &Context) -> Result<Exit> {
    match args.verb.unwrap_or(Verb::List(args.list)) {
        Verb::List(list) => {
            let mut filters = list.happened.filters(cx.clock.now());
            filters.extend(list.source.map(|s| ("source", s.to_string())));
            filters.extend(list.kind.map(|k| ("kind", k.to_string())));
            filters.extend(list.event.map(|e| ("event", e.to_string())));
            let client = args.asking.client(cx)?;
            Listing {
                path: "decisions",
                filters,
                columns: COLUMNS,
                empty: "The door has answered no such request.",
                none: "The door has answered no such request.",
            }
            .print(cx, &client, &list.happened.paging, args.asking.format)
            .await
        }
        Verb::Show { id } => {
            let Some(decision) = args.asking.fetch(cx, &format!("decisions/{id}")).await? else {
                return Ok(Exit::Ok);
            };
            cx.screen.line(show(&cx.screen, cx.clock.now(), &decision))?;
            Ok(Exit::Ok)
        }
    }
}

fn show(screen: &Screen, now: Timestamp, decision: &Value) -> String {
    let kind = COLUMNS[1].text_of(decision, now);
    let mut card = Card::new(screen, now, &kind, &text(decision, "id"), "");
    card.row("why", text(decision, "reason"));
    card.members(decision, &["code", "source", "event_id", "remote"]).time(decision, "created_at");
    let checks = decision.get("checks").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    card.part("Checks, in their order", check_lines(screen, checks));
    card.finish()
}

/// A line for each check, two where both the wanted and the seen are known.
pub(super) fn check_lines(screen: &Screen, checks: &[Value]) -> Vec<String> {
    let width = checks.iter().map(|c| text(c, "name").chars().count()).max().unwrap_or(0);
    let mut lines = Vec::new();
    for check in checks {
        let passed = check.get("passed").and_then(Value::as_bool).unwrap_or(false);
        let mark = if passed { screen.paint(Tone::Good, "✓") } else { screen.paint(Tone::Bad, "✗") };
        let (wanted, seen) = (text(check, "wanted"), text(check, "seen"));
        let name = format!("{:width$}", text(check, "name"));
        let first = match (wanted.is_empty(), seen.is_empty()) {
            (true, true) => String::new(),
            (true, false) => format!("  {}", screen.paint(Tone::Quiet, &seen)),
            (false, _) => format!("  wanted  {wanted}"),
        };
        lines.push(format!("{mark} {name}{first}").trim_end().to_owned());
        if !wanted.is_empty() && !seen.is_empty() {
            lines.push(format!("  {:width$}  seen    {seen}", ""));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn at_80_columns_the_code_stays_whole_and_a_reason_that_would_be_cut_to_nothing_goes() {
        let decision = json!({
            "id": "dec_000000000000000000", "kind": "rejected", "code": "signature_mismatch", "source": "github",
            "reason": "not verified: wanted a signature made with this source's secret", "remote": "127.0.0.1",
            "created_at": "1970-01-01T00:00:00Z",
        });
        let at = |width| {
            let items = std::slice::from_ref(&decision);
            crate::cli::table::render(&Screen::wide(width), COLUMNS, items, Timestamp::from_secs(5))
        };
        let narrow = at(80);
        assert!(narrow.contains("signature_mismatch") && !narrow.contains("REASON"), "{narrow}");
        let wide = at(120);
        assert!(wide.contains("signature_mismatch") && wide.contains("not verified: wanted"), "{wide}");
        assert!([&narrow, &wide].iter().all(|t| t.lines().all(|l| l.chars().count() <= 120)));
    }

    #[test]
    fn a_decision_tells_each_check_with_what_was_wanted_and_seen() {
        let decision = json!({
            "id": "dec_1", "kind": "rejected", "code": "signature_mismatch", "source": "github",
            "reason": "The signature does not match any of the 1 secrets.", "created_at": "1970-01-01T00:00:00Z",
            "checks": [
                {"name": "address", "passed": true, "seen": "203.0.113.7"},
                {"name": "signature", "passed": false, "wanted": "an HMAC-SHA256 by the secret", "seen": "another"},
            ],
        });
        let shown = show(&Screen::plain(), Timestamp::from_secs(5), &decision);
        assert_eq!(
            shown,
            "rejected  dec_1
  why      The signature does not match any of the 1 secrets.
  code     signature_mismatch
  source   github
  created  1970-01-01T00:00:00.000Z  (5s ago)

Checks, in their order
  ✓ address    203.0.113.7
  ✗ signature  wanted  an HMAC-SHA256 by the secret
               seen    another"
        );
    }
}
