//! Lanes: who may go next. A run is *blocked* while its lane must move before it can be claimed; the index of claimable
//! runs leaves blocked ones out, so a hundred thousand runs behind one stuck head cost the other lanes nothing.
//!
//! A run *holds* its lane while it is unfinished and not passed; the holder with the lowest place is the head. Unblocked
//! are: the head, if queued and nothing of the lane runs; and passed runs, of which those that fell due while the lane was
//! busy are blocked when a claim meets them, and freed one a queue when the lane moves.

use doorbell_core::lane::LaneId;
use doorbell_core::ports::Notice;
use doorbell_core::run::State;
use doorbell_core::{RunId, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};

use super::errors::Fail;
use super::rows;
use super::writer::Tx;
use crate::record::{Output, Record};

/// The run that holds a lane.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) seq: u64,
    pub(super) ord: u64,
    pub(super) state: State,
}

/// The head of a lane, if it has one.
pub(super) fn head(conn: &Connection, lane: LaneId) -> rusqlite::Result<Option<Head>> {
    let sql = "SELECT seq, ord, state FROM runs
               WHERE lane IS NOT NULL AND passed = 0 AND state < 3 AND lane = ?1 ORDER BY ord LIMIT 1";
    let row = |row: &rusqlite::Row<'_>| {
        Ok(Head {
            seq: row.get::<_, i64>(0)?.cast_unsigned(),
            ord: row.get::<_, i64>(1)?.cast_unsigned(),
            state: rows::state(row.get(2)?)?,
        })
    };
    conn.prepare_cached(sql)?.query_row([lane.0], row).optional()
}

/// Whether a run that joins the lane's tail has to wait.
pub(super) fn is_held(conn: &Connection, lane: LaneId) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM runs INDEXED BY runs_holding
               WHERE lane IS NOT NULL AND passed = 0 AND state < 3 AND lane = ?1 LIMIT 1";
    conn.prepare_cached(sql)?.exists([lane.0])
}

/// Whether a queued run could be claimed as its lane stands.
pub(super) fn may_go(tx: &Tx<'_, '_>, lane: Option<LaneId>, passed: bool, ord: u64) -> rusqlite::Result<bool> {
    let Some(lane) = lane else { return Ok(true) };
    if tx.book.running.contains(&lane) {
        return Ok(false);
    }
    if !passed {
        return Ok(true);
    }
    Ok(head(tx.conn, lane)?.is_none_or(|head| head.ord > ord))
}

/// Marks a run as waiting for its lane, or as free.
pub(super) fn set_blocked(conn: &Connection, seq: u64, blocked: bool) -> rusqlite::Result<()> {
    conn.prepare_cached("UPDATE runs SET blocked = ?2 WHERE seq = ?1")?.execute(params![seq.cast_signed(), blocked])?;
    Ok(())
}

/// The lane moved: frees whoever may go next. Does nothing while one of the lane runs.
pub(super) fn advance(tx: &mut Tx<'_, '_>, lane: Option<LaneId>) -> rusqlite::Result<()> {
    let Some(lane) = lane else { return Ok(()) };
    if tx.book.running.contains(&lane) {
        return Ok(());
    }
    let head = head(tx.conn, lane)?;
    if let Some(head) = head.filter(|head| head.state == State::Queued) {
        set_blocked(tx.conn, head.seq, false)?;
        tx.effects.ready = true;
    }
    let before = head.map_or(i64::MAX, |head| head.ord.cast_signed());
    let sql = "SELECT seq, queue FROM runs
               WHERE state = 0 AND passed = 1 AND blocked = 1 AND lane = ?1 AND queue > ?2 AND ord < ?3
               ORDER BY queue, due_at, ord LIMIT 1";
    let mut queue = -1i64;
    loop {
        let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
        let next = tx.conn.prepare_cached(sql)?.query_row(params![lane.0, queue, before], row).optional()?;
        let Some((seq, of)) = next else { return Ok(()) };
        set_blocked(tx.conn, seq.cast_unsigned(), false)?;
        tx.effects.ready = true;
        queue = of;
    }
}

/// Queues a failed or cancelled run again, at the tail of its lane: its place becomes the next free one, and the counter
/// is written down, because no row's number tells it.
pub(super) fn requeue(tx: &mut Tx<'_, '_>, record: &mut Record, why: String, now: Timestamp) -> Result<(), Fail> {
    tx.refuse_stuck()?;
    let id = RunId::new(record.seq, tx.tag());
    let from = record.state;
    let output: Output = record.retry(id, tx.book.upcoming_run(), why, now)?;
    tx.book.next_run();
    record.blocked = match record.lane {
        Some(lane) => is_held(tx.conn, lane)?,
        None => false,
    };
    rows::save(tx.conn, record, &output)?;
    tx.book.save_floors(tx.conn)?;
    tx.book.moved(record.queue, Some(from), record.state)?;
    tx.effects.ready |= !record.blocked;
    tx.effects.notices.push(Notice::Moved(id, record.state));
    Ok(())
}
