//! Which triggers want an event: filters, lane keys, and the runs that follow. Pure but for the switches it reads.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use super::dedup::{Identity, Rule, Vouched, fingerprints};
use super::{Early, No};
use crate::breaker;
use crate::clock::Timestamp;
use crate::decision::{Check, Kind};
use crate::event::{Facts, NewEvent};
use crate::filter::Verdict;
use crate::house::{House, Turn};
use crate::lane::{LaneId, LaneOf};
use crate::loop_guard;
use crate::payload::Body;
use crate::provider::{self, Labels};
use crate::run::NewRun;
use crate::scope::{EventFacts, Scope};
use crate::source::{DedupRule, Source};
use crate::trigger::{Trigger, WhenFull};

/// How long a title may be, in characters.
const TITLE_MAX: usize = 120;
/// How long the sender of a full trigger is asked to wait.
const FULL_RETRY: Duration = Duration::from_secs(10);

/// An event that was verified and read, on its way to the triggers.
pub(super) struct Arrival {
    pub labels: Labels,
    pub facts: Facts,
    /// The body's bytes as the sender sent them.
    pub as_sent: Bytes,
    /// Of the whole request, where a captured delivery is to be found by that.
    pub whole: Option<Bytes>,
    /// The body as it is kept.
    pub body: Body,
    pub view: Value,
    pub vouched: Vouched,
    pub remote: Option<IpAddr>,
}

/// Refuses while a trigger that rejects has all its places taken (429), or its agent's breaker is open (503). Where there is such
/// a trigger it gives the request's turn, to be held until its runs are stored.
pub(super) async fn check_full<'h>(house: &'h House, source: &Source) -> Result<Option<Turn<'h>>, Box<Early>> {
    for trigger in source.triggers.iter().filter(|t| t.when_full == WhenFull::Reject) {
        let catalog = house.catalog();
        let breaker = catalog.agents.get(&trigger.agent).and_then(|agent| house.breaker(agent));
        // Half open, an event may come in: it is what the breaker waits for.
        if let Some((breaker::State::Open(until), failures)) = breaker {
            let wait = until.since(house.clock.now());
            let reason = format!("agent `{}` failed {failures} times in a row: its breaker is open", trigger.agent);
            return Err(Early::verified(No::Unavailable(wait), "breaker_open", reason));
        }
    }
    let rejecting = |t: &&Arc<Trigger>| t.when_full == WhenFull::Reject && t.max_concurrent.is_some();
    if !source.triggers.iter().any(|t| rejecting(&t)) {
        return Ok(None);
    }
    let turn = house.turn().await;
    // A limit that cannot be looked at is not passed.
    let stats = house.store.stats().await.map_err(|error| super::unavailable(&error))?;
    for trigger in source.triggers.iter().filter(rejecting) {
        let cap = u64::from(trigger.max_concurrent.unwrap_or(u32::MAX));
        let busy: u64 = stats.iter().filter(|s| s.trigger == trigger.name).map(|s| s.running + s.queued).sum();
        if busy >= cap {
            let reason = format!("trigger `{}` already has its max_concurrent of {cap} runs", trigger.name);
            return Err(Early::verified(No::Full(FULL_RETRY), "too_many_runs", reason));
        }
    }
    Ok(Some(turn))
}

/// The event with its runs: one for each trigger that wants it.
pub(super) fn event(house: &House, source: &Source, arrival: Arrival, idempotency_key: Option<&str>) -> NewEvent {
    let Arrival { labels, mut facts, as_sent, whole, body, view, vouched, remote } = arrival;
    let now = house.clock.now();
    let event_type = labels.event_type.clone().unwrap_or_default();
    let time = facts.time.unwrap_or(now);
    let wanted = {
        let scope = Scope {
            event: EventFacts {
                id: labels.id.as_deref(),
                source: source.name.as_str(),
                kind: &event_type,
                subject: labels.subject.as_deref(),
                actor: labels.actor.as_deref(),
                time,
                verified: facts.verified_by.is_some(),
            },
            data: &view,
            headers: &facts.headers,
            query: &facts.query,
        };
        let title = title(&event_type, labels.subject.as_deref(), source);
        let wanted = triggers(house, source, &scope, now, &title);
        let dedup_key = match &source.dedup {
            DedupRule::Expression(filter) => Some(filter.eval_text(&scope).and_then(readable)),
            _ => None,
        };
        (wanted, dedup_key)
    };
    let (Wanted { runs, checks, verdict, code, reason }, dedup_key) = wanted;
    facts.checks.extend(checks);
    facts.code = code.map(Into::into);
    facts.reason = reason;
    let rule = match (&source.dedup, &dedup_key) {
        (DedupRule::Auto, _) => Rule::Auto,
        (DedupRule::Id, _) => Rule::Id,
        (DedupRule::Body, _) => Rule::Body,
        (DedupRule::Off, _) => Rule::Off,
        (DedupRule::Expression(_), Some(Ok(key))) => Rule::Key(key),
        // An expression that fails must not let copies through: the preset's own rule is the safe one.
        (DedupRule::Expression(_), _) => Rule::Auto,
    };
    if let Some(Err(error)) = &dedup_key {
        facts.checks.push(Check::failed("dedup", "an expression that gives text", error.clone()));
    }
    let identity = Identity {
        source: &source.name,
        id: labels.id.as_deref(),
        vouched,
        event_type: &event_type,
        body: &as_sent,
        replayed: whole.as_ref().unwrap_or(&as_sent),
        idempotency_key,
        replay_window: source.replay_window,
    };
    let dedup = fingerprints(identity, rule, source.on_duplicate_failed);
    NewEvent {
        verdict,
        source: source.name.clone(),
        event_type,
        subject: labels.subject,
        remote,
        facts,
        dedup,
        body_format: body.format().code(),
        body: body.raw().clone(),
        runs,
    }
}

fn readable(key: String) -> Result<String, String> {
    let unread =
        || "its text holds U+FFFD, where something could not be read: two events would look like one".to_owned();
    provider::is_readable(&key).then_some(key).ok_or_else(unread)
}

/// What the triggers said.
struct Wanted {
    runs: Vec<NewRun>,
    checks: Vec<Check>,
    verdict: Kind,
    code: Option<&'static str>,
    reason: Option<String>,
}

fn triggers(house: &House, source: &Source, scope: &Scope<'_>, now: Timestamp, title: &str) -> Wanted {
    let mut runs = Vec::with_capacity(1);
    let mut checks = Vec::new();
    let (mut failed, mut asked, mut storms) = (None, 0usize, Vec::new());
    if loop_guard::is_own(scope.event.actor, &source.ignore_actors) {
        let actor: String = scope.event.actor.unwrap_or_default().chars().take(100).collect();
        let reason = format!("`{actor}` is one of this source's ignore_actors: what our own agents do starts nothing");
        checks.push(Check::failed("actor", "not one of ignore_actors", actor));
        return Wanted { runs, checks, verdict: Kind::Ignored, code: Some("own_actor"), reason: Some(reason) };
    }
    for trigger in source.triggers.iter().filter(|t| house.is_enabled(t)) {
        asked += 1;
        let verdict = trigger.filter.as_ref().map_or(Verdict::Pass, |filter| filter.eval(scope));
        match verdict {
            Verdict::Pass => {
                if trigger.filter.is_some() {
                    checks.push(Check::passed(format!("filter:{}", trigger.name)));
                }
                let run = run(trigger, scope, now, title);
                match in_storm(house, trigger, &run) {
                    None => runs.push(run),
                    Some((check, reason)) => {
                        checks.push(check);
                        storms.push(reason);
                    }
                }
            }
            Verdict::Reject => {
                let check = Check::failed(format!("filter:{}", trigger.name), filter_text(trigger), "it said no");
                checks.push(check);
            }
            Verdict::Error(error) => {
                metrics::counter!("doorbell_filter_errors_total", "trigger" => trigger.name.to_string()).increment(1);
                let check = Check::failed(format!("filter:{}", trigger.name), filter_text(trigger), error.clone());
                checks.push(check);
                failed.get_or_insert_with(|| format!("the filter of trigger `{}` failed: {error}", trigger.name));
            }
        }
    }
    let (verdict, code, reason) = match (runs.is_empty(), failed, asked) {
        (false, ..) => (Kind::Accepted, None, None),
        // Kept and replayable, like a filter's no: the sender is not to send it again.
        (true, None, _) if !storms.is_empty() => (Kind::Ignored, Some("storm"), Some(storms.join("; "))),
        (true, Some(error), _) => (Kind::FilterError, Some("filter_error"), Some(error)),
        (true, None, 0) => {
            let reason = format!("no trigger listens to source `{}`", source.name);
            (Kind::Ignored, Some("no_trigger"), Some(reason))
        }
        (true, None, _) => {
            (Kind::Ignored, Some("filter"), Some("the filter of every trigger of this source said no".into()))
        }
    };
    Wanted { runs, checks, verdict, code, reason }
}

/// Whether this run would be one too many of its lane.
fn in_storm(house: &House, trigger: &Trigger, run: &NewRun) -> Option<(Check, String)> {
    let cap = trigger.storm_cap.as_ref()?;
    cap.take(Trigger::storm_key(run.lane), house.clock.uptime()).err()?;
    metrics::counter!("doorbell_storms_total", "trigger" => trigger.name.to_string()).increment(1);
    let allowed = cap.quota().as_str();
    let check = Check::failed(format!("storm_cap:{}", trigger.name), allowed.to_owned(), "more");
    Some((check, format!("trigger `{}` started more runs of one lane than storm_cap ({allowed})", trigger.name)))
}

fn filter_text(trigger: &Trigger) -> String {
    trigger.filter.as_ref().map(|f| f.source().chars().take(500).collect()).unwrap_or_default()
}

/// The run that a trigger starts on this event.
pub(crate) fn run(trigger: &Trigger, scope: &Scope<'_>, now: Timestamp, title: &str) -> NewRun {
    let (key, flag) = match trigger.key.as_ref().map(|template| template.render_key(scope)) {
        None => (None, None),
        Some(Ok(key)) => (Some(key), None),
        Some(Err(error)) => (None, Some(format!("runs in a lane of its own: its key failed: {error}"))),
    };
    let lane = key.as_deref().map(|key| {
        let of = trigger.lane.as_deref().map_or(LaneOf::Trigger(&trigger.name), LaneOf::Shared);
        LaneId::of(&trigger.agent, of, key)
    });
    NewRun {
        agent: trigger.agent.clone(),
        trigger: trigger.name.clone(),
        key,
        lane,
        title: title.to_owned(),
        due_at: now,
        max_queued: trigger.max_queued,
        flag,
    }
}

/// Why nobody gets an event, in the word that its sender is told; none if somebody does.
pub(super) fn ignored_word(event: &NewEvent) -> Option<&'static str> {
    match event.verdict {
        Kind::FilterError => Some("filter_error"),
        Kind::Ignored => match event.facts.code.as_deref() {
            Some("no_trigger") => Some("no_trigger"),
            Some("own_actor") => Some("own_actor"),
            Some("storm") => Some("storm"),
            _ => Some("filter"),
        },
        _ => None,
    }
}

/// A short line on what an event is about.
pub(crate) fn title(event_type: &str, subject: Option<&str>, source: &Source) -> String {
    let kind = if event_type.is_empty() { source.name.as_str() } else { event_type };
    let text = match subject {
        Some(subject) => format!("{kind} {subject}"),
        None => kind.to_owned(),
    };
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TITLE_MAX).collect()
}
