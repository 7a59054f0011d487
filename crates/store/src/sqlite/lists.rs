//! Lists, newest first, keyed on the place: a page costs the same however deep. A search that has looked at very many
//! rows without filling its page gives what it found and says where to go on, so no query runs without end.

use doorbell_core::decision::{Decision, Kind};
use doorbell_core::event::Event;
use doorbell_core::ports::{DecisionQuery, EventQuery, Page, PageFrom, PageRequest, RunQuery};
use doorbell_core::run::{Run, State};
use doorbell_core::{DecisionId, EventId};
use rusqlite::Row;

use super::book::time;
use super::errors::{Fail, corrupt};
use super::read::{View, event_columns, event_row, run_columns, run_row, running_lanes, runs_of};
use super::rows;
use crate::filter;

/// Rows looked at for one page.
const LOOK_MAX: usize = 50_000;

/// What to search: the table's columns, and what must hold beside the place.
struct Search<'s> {
    columns: &'s str,
    table: &'s str,
    also: String,
    request: PageRequest,
}

/// Things with their places in the order of the search, and where it gave up.
struct Found<T> {
    items: Vec<(u64, T)>,
    stopped: Option<u64>,
}

fn search<T>(
    view: &View<'_>,
    search: &Search<'_>,
    mut pick: impl FnMut(&Row<'_>) -> rusqlite::Result<Option<T>>,
) -> rusqlite::Result<Found<T>> {
    let (compare, order, from) = match search.request.from {
        PageFrom::Start => ("<=", "DESC", i64::MAX),
        PageFrom::Before(place) => ("<", "DESC", i64::try_from(place).unwrap_or(i64::MAX)),
        PageFrom::After(place) => (">", "ASC", i64::try_from(place).unwrap_or(i64::MAX)),
    };
    let Search { columns, table, also, .. } = search;
    let sql = format!("SELECT {columns} FROM {table} WHERE seq {compare} ?1 {also} ORDER BY seq {order}");
    let mut statement = view.conn.prepare_cached(&sql)?;
    let mut rows = statement.query([from])?;
    let wanted = filter::wanted(search.request);
    let mut found = Found { items: Vec::new(), stopped: None };
    let mut looked = 0;
    while let Some(row) = rows.next()? {
        let place = row.get::<_, i64>(0)?.cast_unsigned();
        if let Some(item) = pick(row)? {
            found.items.push((place, item));
            if found.items.len() >= wanted {
                break;
            }
        }
        looked += 1;
        if looked >= LOOK_MAX {
            found.stopped = Some(place);
            break;
        }
    }
    Ok(found)
}

/// Events without bodies.
pub(super) fn events(view: &View<'_>, query: &EventQuery, request: PageRequest) -> Result<Page<Event>, Fail> {
    let mut also = String::new();
    if let Some(source) = &query.source {
        also += &format!(" AND source = {}", view.names.id(source).unwrap_or(0));
    }
    if let Some(verdict) = query.verdict {
        also += &format!(" AND verdict = {}", verdict.code());
    }
    let what = Search { columns: event_columns(), table: "events", also, request };
    let found = search(view, &what, |row| {
        let event = event_row(view, row)?;
        Ok(filter::event(query, &event).then_some(event))
    })?;
    Ok(filter::page(request, found.items, found.stopped))
}

/// Runs without outputs.
pub(super) fn runs(view: &View<'_>, query: &RunQuery, request: PageRequest) -> Result<Page<Run>, Fail> {
    let running = running_lanes(view.conn)?;
    let mut pick = |row: &Row<'_>| {
        let run = run_row(view, row, &running)?;
        Ok(filter::run(query, &run).then_some(run))
    };
    let also = match (query.event, query.states.as_slice()) {
        (Some(event), _) if event.store != view.shared.identity.tag => " AND 0".into(),
        (Some(event), _) => {
            let places: Vec<_> = runs_of(view.conn, event.seq)?.iter().map(u64::to_string).collect();
            format!(" AND seq IN ({})", places.join(","))
        }
        // The few that the index of uncommon states finds.
        (None, [state @ (State::Running | State::Waiting | State::Failed)]) => {
            format!(" AND state IN (1, 2, 4) AND state = {}", state.code())
        }
        (None, _) => String::new(),
    };
    let what = Search { columns: run_columns(), table: "runs", also, request };
    let found = search(view, &what, &mut pick)?;
    Ok(filter::page(request, found.items, found.stopped))
}

/// Decisions: those of events and those that made none are one list, since they share one counter.
pub(super) fn decisions(view: &View<'_>, query: &DecisionQuery, request: PageRequest) -> Result<Page<Decision>, Fail> {
    let of_events = match query.kind {
        Some(kind) if !matches!(kind, Kind::Accepted | Kind::Ignored | Kind::FilterError) => None,
        _ => {
            let also = query.event.map_or(String::new(), |e| format!(" AND seq = {}", e.seq));
            Some(Search { columns: event_columns(), table: "events", also, request })
        }
    };
    let keep = |decision: Decision| filter::decision(query, &decision).then_some(decision);
    let mut found = match of_events {
        None => Found { items: Vec::new(), stopped: None },
        Some(what) => search(view, &what, |row| Ok(keep(crate::record::decision_of(event_row(view, row)?))))?,
    };
    let also = query.event.map_or(String::new(), |e| format!(" AND event = {}", e.seq));
    let what = Search { columns: DECISION, table: "decisions", also, request };
    let others = search(view, &what, |row| Ok(keep(decision_row(view, row)?)))?;
    Ok(merge(request, &mut found, others))
}

fn merge(request: PageRequest, found: &mut Found<Decision>, others: Found<Decision>) -> Page<Decision> {
    found.items.extend(others.items);
    let ascending = filter::ascending(request);
    found.items.sort_by_key(|(place, _)| if ascending { *place } else { u64::MAX - *place });
    // Beyond the place where one of the searches gave up, the order of both is not known.
    let stops = [found.stopped, others.stopped].into_iter().flatten();
    let stopped = if ascending { stops.min() } else { stops.max() };
    if let Some(stop) = stopped {
        found.items.retain(|(place, _)| if ascending { *place <= stop } else { *place >= stop });
    }
    found.items.truncate(filter::wanted(request));
    filter::page(request, std::mem::take(&mut found.items), stopped)
}

const DECISION: &str = "seq, at, kind, source, event, remote, code, reason, checks";

fn decision_row(view: &View<'_>, row: &Row<'_>) -> rusqlite::Result<Decision> {
    let tag = view.shared.identity.tag;
    let kind: u8 = row.get(2)?;
    let checks = row.get_ref(8)?.as_bytes().map_err(|e| corrupt(e.to_string()))?;
    Ok(Decision {
        id: DecisionId::new(row.get::<_, i64>(0)?.cast_unsigned(), tag),
        source: row.get::<_, Option<u32>>(3)?.map(|id| view.names.name(id)).transpose()?,
        kind: Kind::from_code(kind).ok_or_else(|| corrupt(format!("{kind} is not a decision")))?,
        code: row.get(6)?,
        reason: row.get(7)?,
        checks: serde_json::from_slice(checks).map_err(|e| corrupt(format!("checks: {e}")))?,
        event_id: row.get::<_, Option<i64>>(4)?.map(|seq| EventId::new(seq.cast_unsigned(), tag)),
        remote: rows::address(row.get(5)?)?,
        created_at: time(row.get(1)?),
    })
}
