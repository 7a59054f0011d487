//! What the holder of a lease does: finish, renew, defer, log, note children. Every one is fenced: a token that is not the
//! run's latest, or a run that is not running any more, changes nothing.

use doorbell_core::ports::{Child, Finished, LeaseStatus, Notice, Piece, Renewal, Stale, StaleRun, StoreError, Stream};
use doorbell_core::run::{Lease, State, Transition};
use doorbell_core::{RunId, Timestamp};
use rusqlite::params;

use super::errors::Fail;
use super::writer::Tx;
use super::{lane, rows};
use crate::record::{Output, Record};

/// The run, if the lease is its latest and it runs; none: fenced. A run that is not there is fenced too.
fn held(tx: &Tx<'_, '_>, lease: Lease) -> rusqlite::Result<Option<Record>> {
    if lease.run.store != tx.tag() {
        return Ok(None);
    }
    Ok(rows::load(tx.conn, lease.run.seq)?.filter(|record| record.held_with(lease.token)))
}

fn lost(lease: Lease) -> StoreError {
    StoreError::Conflict(format!("the lease on run {} is no longer held", lease.run))
}

/// Ends an attempt and lets the lane move on.
pub(super) fn finish(
    tx: &mut Tx<'_, '_>,
    (lease, transition, now): &(Lease, Transition, Timestamp),
) -> Result<Finished, Fail> {
    let Some(mut record) = held(tx, *lease)? else { return Ok(Finished::Fenced) };
    let output: Output = record.finish(transition, *now);
    // Who may go is found by `advance`, which may find this very run.
    record.blocked = record.state == State::Queued && record.lane.is_some() && !record.passed;
    rows::save(tx.conn, &record, &output)?;
    tx.book.moved(record.queue, Some(State::Running), record.state)?;
    if let Some(lane) = record.lane {
        tx.book.running.remove(&lane);
    }
    tx.effects.ready |= record.state == State::Queued && !record.blocked;
    lane::moved_on(tx, &record)?;
    tx.effects.notices.push(Notice::Moved(lease.run, record.state));
    Ok(Finished::Done)
}

/// Extends leases.
pub(super) fn renew(tx: &mut Tx<'_, '_>, (leases, until): &(Vec<Lease>, Timestamp)) -> Result<Vec<Renewal>, Fail> {
    let mut renewals = Vec::with_capacity(leases.len());
    for lease in leases {
        let status = match held(tx, *lease)? {
            None => LeaseStatus::Lost,
            Some(record) => {
                let sql = "UPDATE runs SET lease_until = max(lease_until, ?2) WHERE seq = ?1";
                tx.conn.prepare_cached(sql)?.execute(params![lease.run.seq.cast_signed(), until.millis()])?;
                if record.cancel_by.is_some() { LeaseStatus::CancelAsked } else { LeaseStatus::Held }
            }
        };
        renewals.push(Renewal { lease: *lease, status });
    }
    Ok(renewals)
}

/// Lets a lease hold until the agent calls back.
pub(super) fn defer(tx: &mut Tx<'_, '_>, (lease, until): &(Lease, Timestamp)) -> Result<Finished, Fail> {
    if held(tx, *lease)?.is_none() {
        return Ok(Finished::Fenced);
    }
    let sql = "UPDATE runs SET deferred = 1, lease_until = ?2 WHERE seq = ?1";
    tx.conn.prepare_cached(sql)?.execute(params![lease.run.seq.cast_signed(), until.millis()])?;
    Ok(Finished::Done)
}

/// Adds pieces to a run's log.
pub(super) fn append_log(tx: &mut Tx<'_, '_>, (lease, pieces): &(Lease, Vec<Piece>)) -> Result<(), Fail> {
    let Some(record) = held(tx, *lease)? else { return Err(lost(*lease).into()) };
    let run = record.seq.cast_signed();
    let sql = "SELECT coalesce(max(n), 0) FROM log WHERE run = ?1";
    let mut n: i64 = tx.conn.prepare_cached(sql)?.query_row([run], |row| row.get(0))?;
    let sql = "INSERT INTO log (run, n, attempt, at, stream, bytes) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let mut put = tx.conn.prepare_cached(sql)?;
    for piece in pieces {
        n += 1;
        put.execute(params![run, n, record.attempt, piece.at.millis(), stream_code(piece.stream), &piece.bytes[..]])?;
    }
    Ok(())
}

/// The number kept for a stream.
fn stream_code(stream: Stream) -> u8 {
    match stream {
        Stream::Output => 0,
        Stream::Log => 1,
        Stream::Note => 2,
    }
}

/// The stream behind a number of [`stream_code`].
pub(super) fn stream_of(code: u8) -> Option<Stream> {
    [Stream::Output, Stream::Log, Stream::Note].get(usize::from(code)).copied()
}

/// Notes a child process.
pub(super) fn note_child(tx: &mut Tx<'_, '_>, (lease, child): &(Lease, Child)) -> Result<(), Fail> {
    let Some(mut record) = held(tx, *lease)? else { return Err(lost(*lease).into()) };
    if !record.children.contains(child) {
        record.children.push(*child);
        rows::save(tx.conn, &record, &Output::Keep)?;
    }
    Ok(())
}

/// Running runs that nobody works on.
pub(super) fn stale(tx: &mut Tx<'_, '_>, (which, limit): &(Stale, usize)) -> Result<Vec<StaleRun>, Fail> {
    static SQL: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
        format!("SELECT {} FROM runs WHERE state IN (1, 2, 4) AND state = 1 ORDER BY seq", rows::RECORD)
    });
    let mut found = Vec::new();
    let mut statement = tx.conn.prepare_cached(&SQL)?;
    let mut running = statement.query([])?;
    while let Some(row) = running.next()? {
        if found.len() >= *limit {
            break;
        }
        let record = rows::record(row)?;
        let (agent, trigger) = tx.book.names().queue_names(record.queue)?;
        if record.is_stale(*which) {
            found.push(record.into_stale(tx.tag(), agent, trigger));
        }
    }
    Ok(found)
}

/// What an operator asks of a run: its number, who asks, when.
pub(super) type Asked = (RunId, String, Timestamp);

fn known(tx: &Tx<'_, '_>, run: RunId) -> Result<Record, Fail> {
    let missing = || StoreError::NotFound(format!("run {run}"));
    if run.store != tx.tag() {
        return Err(missing().into());
    }
    Ok(rows::load(tx.conn, run.seq)?.ok_or_else(missing)?)
}

/// Cancels a run, or asks its attempt to end.
pub(super) fn cancel(tx: &mut Tx<'_, '_>, (run, by, now): &Asked) -> Result<State, Fail> {
    let mut record = known(tx, *run)?;
    let from = record.state;
    let to = record.cancel(*run, by, *now)?;
    if from.is_final() {
        return Ok(to);
    }
    rows::save(tx.conn, &record, &Output::Keep)?;
    if to == State::Running {
        tx.effects.notices.push(Notice::CancelAsked(*run));
        return Ok(to);
    }
    tx.book.moved(record.queue, Some(from), to)?;
    tx.effects.notices.push(Notice::Moved(*run, to));
    lane::moved_on(tx, &record)?;
    Ok(to)
}

/// Queues a failed or cancelled run again.
pub(super) fn retry(tx: &mut Tx<'_, '_>, (run, by, now): &Asked) -> Result<(), Fail> {
    let mut record = known(tx, *run)?;
    lane::requeue(tx, &mut record, format!("retried by {by}"), *now)
}
