//! `[triggers.*]`: which events of which source start which agent. A trigger with keys of a source has a source of its
//! own name (`docs/semantics.md`, rule 1); `sources` makes it.

use std::collections::BTreeMap;
use std::sync::Arc;

use doorbell_core::Name;
use doorbell_core::filter::{Filter, FilterFault};
use doorbell_core::lane::Passing;
use doorbell_core::limits::Meters;
use doorbell_core::template::{Template, TemplateFault};
use doorbell_core::trigger::{Trigger, WhenFull};
use serde_json::json;

use super::Cx;
use super::agents::{name, tell_unknown};
use super::dress::dress;
use super::fault::in_two_last;
use super::section::At;
use super::server::{above_zero, quota};
use super::values::{PassWord, WhenFullWord};
use super::written::{Named, SourceTable, TriggerTable, TriggerWritten, Written};

/// The triggers of each source, by the source's name.
pub(super) type BySource = BTreeMap<Name, Vec<Arc<Trigger>>>;

pub(super) fn triggers(written: &Written, cx: &Cx<'_>) -> BySource {
    let mut by_source = BySource::new();
    for named in &written.triggers {
        if let Some(trigger) = trigger(named, written, cx) {
            by_source.entry(trigger.source.clone()).or_default().push(Arc::new(trigger));
        }
    }
    by_source
}

fn trigger(named: &Named<TriggerWritten>, written: &Written, cx: &Cx<'_>) -> Option<Trigger> {
    let key = format!("triggers.{}", named.name.value);
    let table = &named.table.trigger;
    let name = name(&named.name, "trigger", cx);
    let source = source(named, written, &key, cx);
    let agent = agent(named, written, &key, cx);
    let filter = table.filter.as_ref().map(|at| expression(at, &format!("{key}.filter"), Filter::compile, cx));
    let lane_key = table.key.as_ref().map(|at| template(at, &format!("{key}.key"), cx));
    let prompt = table.prompt.as_ref().map(|at| template(at, &format!("{key}.prompt"), cx));
    let dress = dress(written, &named.name.value);
    let max_queued = above_zero(&table.max_queued, &format!("{key}.max_queued"), cx).unwrap_or(dress.max_queued);
    let max_concurrent = above_zero(&table.max_concurrent, &format!("{key}.max_concurrent"), cx);
    let max_concurrent = max_concurrent.or(dress.max_concurrent);
    let max_payload_chars = above_zero(&table.max_payload_chars, &format!("{key}.max_payload_chars"), cx);
    let max_payload_chars = max_payload_chars.map(|n| n as usize).or(dress.max_payload_chars);
    check_sense(table, written, &key, cx);
    check_key(&table.key, &key, cx);
    let when_full = if table.when_full.is_some() { when_full(table) } else { dress.when_full };
    Some(Trigger {
        name: name?,
        source: source?,
        agent: agent?,
        filter: whole(filter)?,
        key: whole(lane_key)?,
        lane: table.lane.as_ref().map(|l| l.value.clone()),
        prompt: whole(prompt)?,
        passing: Passing { on_retry: passes(&table.on_retry), on_wait: passes(&table.on_wait) },
        max_concurrent,
        when_full,
        max_queued: Some(max_queued),
        storm_cap: quota(&table.storm_cap).map(Meters::new),
        max_payload_chars,
        input: dress.input,
        enabled: table.enabled.as_ref().is_none_or(|e| e.value),
        shown: shown(table, (max_queued, max_concurrent, max_payload_chars, when_full)),
    })
}

/// A key that is not there is fine, one that is there and wrong is not.
fn whole<T>(read: Option<Option<T>>) -> Option<Option<T>> {
    match read {
        None => Some(None),
        Some(None) => None,
        Some(some) => Some(some),
    }
}

fn passes(at: &Option<At<PassWord>>) -> bool {
    at.as_ref().is_some_and(|at| at.value == PassWord::Pass)
}

fn when_full(table: &TriggerTable) -> WhenFull {
    match table.when_full.as_ref().map(|w| w.value) {
        Some(WhenFullWord::Reject) => WhenFull::Reject,
        Some(WhenFullWord::Hold) | None => WhenFull::Hold,
    }
}

fn source(named: &Named<TriggerWritten>, written: &Written, key: &str, cx: &Cx<'_>) -> Option<Name> {
    let own = &named.table.first_of_way_in;
    let is_told = |part: &str| cx.report.is_told(&format!("{key}.{part}"));
    match (&named.table.trigger.source, own) {
        (Some(at), Some(own)) => {
            let problem = format!("`source` and `{}` do not go together: the source has its own", own.value);
            let advice = format!("Move `{0}` to [sources.{1}], or leave `source` out.", own.value, at.value);
            cx.report.error(own.offset, key, problem, advice);
            None
        }
        (Some(at), None) => {
            let known: Vec<&str> = written.sources.iter().map(|s| s.name.value.as_str()).collect();
            let short = |t: &&Named<TriggerWritten>| t.table.first_of_way_in.is_some() && t.name.value == at.value;
            if known.contains(&at.value.as_str()) || written.triggers.iter().any(|t| short(&t)) {
                return Name::new(&at.value).ok();
            }
            tell_unknown("source", at, &format!("{key}.source"), &known, cx);
            None
        }
        (None, Some(_)) => {
            let twin = written.sources.iter().find(|s| s.name.value == named.name.value);
            if let Some(twin) = twin {
                let problem = format!(
                    "this trigger brings a source of its own name, and [sources.{}] is there too",
                    twin.name.value
                );
                cx.report.error(
                    named.name.offset,
                    key,
                    problem,
                    "Write source = in the trigger, or rename one of them.",
                );
                return None;
            }
            Name::new(&named.name.value).ok()
        }
        (None, None) if is_told("source") || SourceTable::KEYS.iter().any(|part| is_told(part)) => None,
        (None, None) => {
            let problem = "this trigger has no source";
            cx.report.error(
                named.name.offset,
                key,
                problem,
                "Add source = \"…\", or `provider` and `secret` for one of its own.",
            );
            None
        }
    }
}

fn agent(named: &Named<TriggerWritten>, written: &Written, key: &str, cx: &Cx<'_>) -> Option<Name> {
    let known: Vec<&str> = written.agents.iter().map(|a| a.name.value.as_str()).collect();
    let Some(at) = &named.table.trigger.agent else {
        if cx.report.is_told(&format!("{key}.agent")) {
            return None;
        }
        let advice = match known.as_slice() {
            [] => "Add agent = \"…\" and a table [agents.…].".to_owned(),
            known => format!("Add agent = \"…\", one of: {}.", known.join(", ")),
        };
        cx.report.error(named.name.offset, key, "this trigger has no agent", advice);
        return None;
    };
    if !known.contains(&at.value.as_str()) {
        tell_unknown("agent", at, &format!("{key}.agent"), &known, cx);
        return None;
    }
    Name::new(&at.value).ok()
}

/// Warns of a path where a template is meant: beside `filter`, which is an expression, the braces are easily left out.
fn check_key(written: &Option<At<String>>, key: &str, cx: &Cx<'_>) {
    let Some(at) = written.as_ref().filter(|at| !at.value.contains("{{") && !at.value.contains("{%")) else { return };
    let is_path = ["data.", "event.", "headers.", "headers[", "query."].iter().any(|begin| at.value.starts_with(begin));
    if is_path {
        let problem = format!("`{:.80}` is a text, the same for all events, so all runs go one at a time", at.value);
        let advice = format!("Write \"{{{{ {:.80} }}}}\" for its value.", at.value);
        cx.report.warning(at.offset, &format!("{key}.key"), problem, advice);
    }
}

/// Keys that would do nothing.
fn check_sense(table: &TriggerTable, written: &Written, key: &str, cx: &Cx<'_>) {
    let is_told = |part: &str| cx.report.is_told(&format!("{key}.{part}"));
    if let (Some(lane), None, false) = (&table.lane, &table.key, is_told("key")) {
        let problem = "`lane` does nothing without `key`";
        cx.report.error(lane.offset, key, problem, "Add key = \"…\", or leave `lane` out.");
    }
    let agent = table.agent.as_ref().and_then(|a| written.agents.iter().find(|w| w.name.value == a.value));
    let breaks = agent
        .is_some_and(|a| a.table.common.breaker.is_some() || super::dress::breaker(written, &a.name.value).is_some())
        // Whether an agent that cannot be read has one is not known.
        || agent.is_none()
        || agent.is_some_and(|a| cx.report.is_told_within(&format!("agents.{}.breaker", a.name.value)))
        || is_told("max_concurrent");
    if let (WhenFull::Reject, None, false, Some(at)) =
        (when_full(table), &table.max_concurrent, breaks, &table.when_full)
    {
        let problem = "when_full = \"reject\" does nothing without `max_concurrent` or a breaker of its agent";
        cx.report.error(at.offset, key, problem, "Add max_concurrent, or leave `when_full` out.");
    }
    if let Some(lane) = table.lane.as_ref().filter(|l| doorbell_core::Name::new(&l.value).is_err()) {
        let problem = format!("`{:.80}` is not a name for a lane", lane.value);
        cx.report.error(lane.offset, &format!("{key}.lane"), problem, "Use 1 to 63 of a-z, 0-9 and -.");
    }
}

/// A CEL expression, compiled for what it has to give.
pub(super) fn expression(
    at: &At<String>,
    key: &str,
    compile: fn(&str) -> Result<Filter, FilterFault>,
    cx: &Cx<'_>,
) -> Option<Filter> {
    compile(&at.value).map_err(|fault| compiler(at, key, (&fault.message, fault.at), cx)).ok()
}

fn template(at: &At<String>, key: &str, cx: &Cx<'_>) -> Option<Template> {
    if at.value.trim().is_empty() {
        cx.report.error(at.offset, key, "an empty template says nothing", "Write one, or leave it out.");
        return None;
    }
    let tell = |fault: TemplateFault| compiler(at, key, (&fault.message, fault.at), cx);
    Template::compile(&at.value).map_err(|faults| faults.into_iter().for_each(tell)).ok()
}

/// Tells what a compiler said; at its own place where the text stands in the file as it is compiled (no escapes).
fn compiler(at: &At<String>, key: &str, (message, place): (&str, Option<(usize, usize)>), cx: &Cx<'_>) {
    let file = cx.report.text();
    let found = file.get(at.offset..).and_then(|rest| {
        let quote = rest.find(|c: char| c != '"' && c != '\'' && c != '\n' && c != '\r')?;
        rest[quote..].starts_with(&at.value).then_some(at.offset + quote)
    });
    let offset = match (found, place) {
        (Some(start), Some((line, column))) => start + offset_in(&at.value, line, column),
        _ => at.offset,
    };
    let place = match (found, place) {
        (None, Some((line, column))) => format!(" (its line {line}, column {column})"),
        _ => String::new(),
    };
    let (problem, advice) = in_two_last(message);
    cx.report.error(offset, key, format!("{problem}{place}"), advice);
}

fn offset_in(text: &str, line: usize, column: usize) -> usize {
    let start: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let within: usize = text[start..].chars().take(column.saturating_sub(1)).map(char::len_utf8).sum();
    start + within
}

/// The limits are those that hold, wherever they come from.
fn shown(
    table: &TriggerTable,
    (max_queued, max_concurrent, max_payload_chars, when_full): (u32, Option<u32>, Option<usize>, WhenFull),
) -> serde_json::Value {
    let text = |at: &Option<At<String>>| at.as_ref().map(|t| t.value.clone());
    json!({
        "filter": text(&table.filter),
        "key": text(&table.key),
        "prompt": text(&table.prompt),
        "lane": text(&table.lane),
        "max_concurrent": max_concurrent,
        "when_full": match when_full { WhenFull::Hold => "hold", WhenFull::Reject => "reject" },
        "max_queued": max_queued,
        "max_payload_chars": max_payload_chars,
        "storm_cap": table.storm_cap.as_ref().map(|r| &r.value.text),
        "on_retry": if passes(&table.on_retry) { "pass" } else { "block" },
        "on_wait": if passes(&table.on_wait) { "pass" } else { "block" },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_a_text_is_found_by_line_and_character() {
        assert_eq!(offset_in("ab\ncäd", 2, 3), "ab\ncä".len());
        assert_eq!(offset_in("ab", 9, 9), 2);
    }
}
