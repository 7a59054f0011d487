//! Which things a list shows, and how found things become a page. Both stores ask here, so that a list means the same in
//! both.

use doorbell_core::Timestamp;
use doorbell_core::decision::Decision;
use doorbell_core::event::Event;
use doorbell_core::ports::{DecisionQuery, EventQuery, Page, PageFrom, PageRequest, RunQuery};
use doorbell_core::run::Run;

/// No page is longer, whatever is asked for.
const PAGE_MAX: usize = 1000;

/// Whether a text is found in one of `fields`, without regard to ASCII case.
fn found(q: Option<&str>, fields: &[Option<&str>]) -> bool {
    let Some(q) = q.filter(|q| !q.is_empty()) else { return true };
    let q = q.to_ascii_lowercase();
    fields.iter().flatten().any(|field| field.to_ascii_lowercase().contains(&q))
}

fn between(at: Timestamp, since: Option<Timestamp>, until: Option<Timestamp>) -> bool {
    since.is_none_or(|since| at >= since) && until.is_none_or(|until| at < until)
}

pub(crate) fn event(query: &EventQuery, event: &Event) -> bool {
    query.source.as_ref().is_none_or(|s| *s == event.source)
        && query.event_type.as_ref().is_none_or(|t| *t == event.event_type)
        && query.verdict.is_none_or(|v| v == event.verdict)
        && between(event.received_at, query.since, query.until)
        && found(
            query.q.as_deref(),
            &[Some(&event.event_type), event.subject.as_deref(), event.facts.sender_id.as_deref()],
        )
}

pub(crate) fn run(query: &RunQuery, run: &Run) -> bool {
    query.agent.as_ref().is_none_or(|a| *a == run.agent)
        && (query.triggers.is_empty() || query.triggers.contains(&run.trigger))
        && (query.states.is_empty() || query.states.contains(&run.state))
        && query.event.is_none_or(|e| e == run.event)
        && query.event_type.as_ref().is_none_or(|t| *t == run.event_type)
        && between(run.created_at, query.since, query.until)
        && found(query.q.as_deref(), &[Some(&run.title), run.key.as_deref(), run.error.as_deref()])
}

pub(crate) fn decision(query: &DecisionQuery, decision: &Decision) -> bool {
    query.source.as_ref().is_none_or(|s| decision.source.as_ref() == Some(s))
        && query.kind.is_none_or(|k| k == decision.kind)
        && query.event.is_none_or(|e| decision.event_id == Some(e))
        && between(decision.created_at, query.since, query.until)
        && found(query.q.as_deref(), &[Some(&decision.reason), Some(&decision.code)])
}

/// How many things to look for: one more than shown tells whether there are more.
pub(crate) fn wanted(request: PageRequest) -> usize {
    request.limit.clamp(1, PAGE_MAX) + 1
}

/// Whether the page is looked for from the oldest up.
pub(crate) fn ascending(request: PageRequest) -> bool {
    matches!(request.from, PageFrom::After(_))
}

/// Makes a page of what was found in the direction of [`ascending`]: at most [`wanted`] things with their places. `stopped`
/// is the place where the search gave up because it had looked at very much; the page then says how to go on from there.
pub(crate) fn page<T>(request: PageRequest, mut items: Vec<(u64, T)>, stopped: Option<u64>) -> Page<T> {
    let limit = wanted(request) - 1;
    let more = items.len() > limit;
    items.truncate(limit);
    let first = items.first().map(|(place, _)| *place);
    let last = items.last().map(|(place, _)| *place);
    let onward = if more { last } else { stopped };
    let (next, prev) = match request.from {
        PageFrom::Start => (onward, None),
        PageFrom::Before(place) => (onward, Some(first.unwrap_or(place.saturating_sub(1)))),
        PageFrom::After(place) => {
            items.reverse();
            (Some(first.unwrap_or(place.saturating_add(1))), onward)
        }
    };
    Page { items: items.into_iter().map(|(_, item)| item).collect(), next, prev }
}
