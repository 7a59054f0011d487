//! Reading: a small pool of connections that cannot write, used from blocking tasks, and how rows become events and runs.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use doorbell_core::decision::Kind;
use doorbell_core::event::Event;
use doorbell_core::ports::{Flag, LogPiece, StoreError, Work};
use doorbell_core::run::{Lease, Run, State};
use doorbell_core::{EventId, Name, RunId};
use rusqlite::{Connection, OptionalExtension, Row, params};
use tokio::sync::Semaphore;

use super::book::{Names, time};
use super::errors::{Fail, corrupt, sort};
use super::{Shared, entry, finish, lane, rows, schema};

/// Connections that only read, opened when they are first needed: an idle program holds none for busy times.
pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    free: Semaphore,
    shared: Arc<Shared>,
}

/// What a reader works with.
pub(super) struct View<'v> {
    pub(super) conn: &'v Connection,
    pub(super) names: Arc<Names>,
    pub(super) shared: &'v Shared,
}

impl Readers {
    /// Up to `most` connections to the database at `path`.
    pub(super) fn new(path: &Path, most: usize, shared: Arc<Shared>) -> Self {
        Self { path: path.to_owned(), free: Semaphore::new(most), idle: Mutex::default(), shared }
    }

    /// Runs `work` on a connection of the pool, on a thread that may block. All of it sees one state of the store.
    pub(super) async fn read<O: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&View<'_>) -> Result<O, Fail> + Send + 'static,
    ) -> Result<O, StoreError> {
        let _place = self.free.acquire().await.map_err(|_| StoreError::Closed)?;
        let pool = self.clone();
        let task = tokio::task::spawn_blocking(move || {
            let idle = pool.idle.lock().ok().and_then(|mut idle| idle.pop());
            let conn = idle.map_or_else(|| schema::open_reader(&pool.path), Ok)?;
            let said = pool.view(&conn, work);
            if let Err(error @ StoreError::Fatal(_)) = &said {
                pool.shared.fail_for_good(error);
            }
            if let Ok(mut idle) = pool.idle.lock()
                && !pool.free.is_closed()
            {
                idle.push(conn);
            }
            said
        });
        task.await.map_err(|e| StoreError::Corrupt(format!("a reading task broke off: {e}")))?
    }

    fn view<O>(&self, conn: &Connection, work: impl FnOnce(&View<'_>) -> Result<O, Fail>) -> Result<O, StoreError> {
        let transaction = conn.unchecked_transaction().map_err(|e| sort(&e))?;
        // The snapshot begins with the first read, and only then the names are taken: they know every name in it.
        conn.prepare_cached("SELECT 1 FROM meta LIMIT 1").and_then(|mut s| s.exists([])).map_err(|e| sort(&e))?;
        let names = self.shared.names.read().map(|names| names.clone()).unwrap_or_default();
        let said = work(&View { conn, names, shared: &self.shared });
        // Nothing was written: the end of the transaction only lets the snapshot go.
        drop(transaction);
        said.map_err(|fail| match fail {
            Fail::Refused(error) => error,
            Fail::Sql(error) => sort(&error),
        })
    }

    /// Closes what is idle; what is in use closes itself.
    pub(super) fn close(&self) {
        self.free.close();
        if let Ok(mut idle) = self.idle.lock() {
            idle.clear();
        }
    }
}

const EVENT: &str = "seq, at, verdict, source, event_type, subject, remote, body_format, body_len, facts";

/// Columns of an event without its body.
pub(super) fn event_columns() -> &'static str {
    EVENT
}

/// Reads [`event_columns`] from the first.
pub(super) fn event_row(view: &View<'_>, row: &Row<'_>) -> rusqlite::Result<Event> {
    let facts = row.get_ref(9)?.as_bytes().map_err(|e| corrupt(e.to_string()))?;
    let verdict: u8 = row.get(2)?;
    Ok(Event {
        id: EventId::new(row.get::<_, i64>(0)?.cast_unsigned(), view.shared.identity.tag),
        source: view.names.name(row.get(3)?)?,
        verdict: Kind::from_code(verdict).ok_or_else(|| corrupt(format!("{verdict} is not a decision")))?,
        event_type: row.get(4)?,
        subject: row.get(5)?,
        remote: rows::address(row.get(6)?)?,
        facts: serde_json::from_slice(facts).map_err(|e| corrupt(format!("an event's facts: {e}")))?,
        received_at: time(row.get(1)?),
        body_format: row.get(7)?,
        body: None,
        body_len: row.get::<_, i64>(8)?.cast_unsigned(),
    })
}

/// One event with its body.
pub(super) fn event(view: &View<'_>, id: EventId) -> Result<Event, Fail> {
    let missing = || StoreError::NotFound(format!("event {id}"));
    if id.store != view.shared.identity.tag {
        return Err(missing().into());
    }
    let sql = format!("SELECT {EVENT}, body_codec, body FROM events WHERE seq = ?1");
    let mut statement = view.conn.prepare_cached(&sql)?;
    let mut found = statement.query([id.seq.cast_signed()])?;
    let row = found.next()?.ok_or_else(missing)?;
    let mut event = event_row(view, row)?;
    let len = usize::try_from(event.body_len).map_err(|_| corrupt("a body's length"))?;
    if let Some(body) = row.get::<_, Option<Vec<u8>>>(11)? {
        event.body = Some(entry::unpack(row.get(10)?, body, len)?.into());
    }
    Ok(event)
}

/// Columns of a run without its output; 25 of the record first.
pub(super) fn run_columns() -> &'static str {
    static COLUMNS: std::sync::LazyLock<String> =
        std::sync::LazyLock::new(|| format!("{}, source, event_type, key, title, flag", rows::RECORD));
    &COLUMNS
}

/// Reads [`run_columns`] from the first. `running`: the running run of each lane.
pub(super) fn run_row(view: &View<'_>, row: &Row<'_>, running: &HashMap<i64, u64>) -> rusqlite::Result<Run> {
    let record = rows::record(row)?;
    let tag = view.shared.identity.tag;
    let (agent, trigger) = view.names.queue_names(record.queue)?;
    let behind = match record.lane.filter(|_| record.state == State::Queued) {
        None => None,
        Some(lane) => match running.get(&lane.0) {
            Some(seq) => Some(*seq),
            None => lane::shared_head(view.conn, lane)?.filter(|head| head.ord < record.ord).map(|head| head.seq),
        },
    };
    Ok(Run {
        id: RunId::new(record.seq, tag),
        event: EventId::new(record.event, tag),
        source: view.names.name(row.get(25)?)?,
        event_type: row.get(26)?,
        agent,
        trigger,
        key: row.get(27)?,
        lane: record.lane,
        title: row.get(28)?,
        state: record.state,
        behind: behind.map(|seq| RunId::new(seq, tag)),
        attempt: record.attempt,
        created_at: record.created_at,
        due_at: record.due_at,
        started_at: record.started_at,
        finished_at: record.finished_at,
        lease: record.lease,
        lease_until: record.lease_until,
        cancelling: record.cancel_by.is_some(),
        moves: record.history(),
        error: record.error,
        flag: row.get(29)?,
        steps: record.steps,
        usage: record.usage,
        approval: record.approval,
        output: None,
    })
}

/// The running run of every lane that has one.
pub(super) fn running_lanes(conn: &Connection) -> rusqlite::Result<HashMap<i64, u64>> {
    let sql = "SELECT lane, seq FROM runs WHERE state IN (1, 2, 4) AND state = 1 AND lane IS NOT NULL";
    let mut statement = conn.prepare_cached(sql)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned())))?;
    rows.collect()
}

/// One run with its output.
pub(super) fn run(view: &View<'_>, id: RunId) -> Result<Run, Fail> {
    let missing = || StoreError::NotFound(format!("run {id}"));
    if id.store != view.shared.identity.tag {
        return Err(missing().into());
    }
    let sql = format!("SELECT {}, output FROM runs WHERE seq = ?1", run_columns());
    let mut statement = view.conn.prepare_cached(&sql)?;
    let mut found = statement.query([id.seq.cast_signed()])?;
    let row = found.next()?.ok_or_else(missing)?;
    let lane: Option<i64> = row.get(8)?;
    let running = if lane.is_some() { running_lanes(view.conn)? } else { HashMap::new() };
    let mut run = run_row(view, row, &running)?;
    run.output = row.get::<_, Option<Vec<u8>>>(30)?.map(Bytes::from);
    Ok(run)
}

/// The full rows of what a claim took. One that cannot be read is left out, so that it does not hold the others up: its
/// lease lapses, and the reaper ends it after its attempts.
pub(super) fn work(view: &View<'_>, leases: &[Lease]) -> Result<Vec<Work>, Fail> {
    let read = |lease: Lease| -> Result<Work, Fail> {
        let run = run(view, lease.run)?;
        let event = event(view, run.event)?;
        Ok(Work { lease, run, event })
    };
    let mut list = Vec::with_capacity(leases.len());
    for lease in leases {
        match read(*lease) {
            Ok(work) => list.push(work),
            Err(fail) => tracing::error!(run.id = %lease.run, error = ?fail, "A claimed run cannot be read."),
        }
    }
    Ok(list)
}

/// A run's log after piece `after`.
pub(super) fn log(view: &View<'_>, id: RunId, after: u64, limit: usize) -> Result<Vec<LogPiece>, Fail> {
    let missing = || StoreError::NotFound(format!("run {id}"));
    let exists = "SELECT 1 FROM runs WHERE seq = ?1";
    if id.store != view.shared.identity.tag || !view.conn.prepare_cached(exists)?.exists([id.seq.cast_signed()])? {
        return Err(missing().into());
    }
    let sql = "SELECT n, attempt, at, stream, bytes FROM log WHERE run = ?1 AND n > ?2 ORDER BY n LIMIT ?3";
    let mut statement = view.conn.prepare_cached(sql)?;
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = statement.query_map(params![id.seq.cast_signed(), after, limit], |row| {
        let stream: u8 = row.get(3)?;
        Ok(LogPiece {
            n: row.get::<_, i64>(0)?.cast_unsigned(),
            attempt: row.get(1)?,
            at: time(row.get(2)?),
            stream: finish::stream_of(stream).ok_or_else(|| corrupt(format!("{stream} is not a stream")))?,
            bytes: row.get::<_, Vec<u8>>(4)?.into(),
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// All flags ever set.
pub(super) fn flags(view: &View<'_>) -> Result<Vec<(Flag, bool)>, Fail> {
    let mut statement = view.conn.prepare_cached("SELECT kind, name, value FROM flags ORDER BY kind, name")?;
    let rows = statement.query_map([], |row| {
        let name: String = row.get(1)?;
        let name = Name::new(&name).map_err(|e| corrupt(e.to_string()))?;
        let flag = if row.get::<_, u8>(0)? == 0 { Flag::AgentPaused(name) } else { Flag::TriggerDisabled(name) };
        Ok((flag, row.get(2)?))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The places of an event's runs, oldest first.
pub(super) fn runs_of(conn: &Connection, event: u64) -> rusqlite::Result<Vec<u64>> {
    let sql = "SELECT first_run, runs FROM events WHERE seq = ?1";
    let span = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
    let span = conn.prepare_cached(sql)?.query_row([event.cast_signed()], span).optional()?;
    let Some((first, count)) = span else { return Ok(Vec::new()) };
    let mut places: Vec<u64> = (first..first + count).map(i64::cast_unsigned).collect();
    let mut statement = conn.prepare_cached("SELECT run FROM run_events WHERE event = ?1 ORDER BY run")?;
    let replayed = statement.query_map([event.cast_signed()], |row| row.get::<_, i64>(0))?;
    for place in replayed {
        places.push(place?.cast_unsigned());
    }
    Ok(places)
}
