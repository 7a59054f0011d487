//! Lanes: who may go next. A run is *blocked* while its lane must move before it can be claimed; the index of claimable
//! runs leaves blocked ones out, so a hundred thousand runs behind one stuck head cost the other lanes nothing. Who is in
//! which lane is kept in memory; an index has those who share one.
//!
//! A run *holds* its lane while it is unfinished and not passed; the holder with the lowest place is the head. Unblocked
//! are: the head, if queued and nothing of the lane runs; and passed runs, of which those that fell due while the lane was
//! busy are blocked when a claim meets them, and freed one a queue when the lane moves.

use std::collections::HashMap;

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

impl Head {
    fn of(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            seq: row.get::<_, i64>(0)?.cast_unsigned(),
            ord: row.get::<_, i64>(1)?.cast_unsigned(),
            state: rows::state(row.get(2)?)?,
        })
    }
}

/// The head of a lane that several runs are in, or were; one that was always alone is not found. For readers, who ask who
/// is before a run.
pub(super) fn shared_head(conn: &Connection, lane: LaneId) -> rusqlite::Result<Option<Head>> {
    let sql = "SELECT seq, ord, state FROM runs
               WHERE shared = 1 AND passed = 0 AND state < 3 AND lane = ?1 ORDER BY ord LIMIT 1";
    conn.prepare_cached(sql)?.query_row([lane.0], Head::of).optional()
}

/// Who is in which lane: unfinished runs, passed ones too. In memory, so that a run which is alone in its lane, as most are,
/// needs no entry in an index; 20 to 40 bytes a lane. Read at opening; kept by whoever writes rows.
pub(super) struct Lanes {
    members: HashMap<LaneId, Members>,
    /// What the present transaction changed, and from what.
    undo: Vec<(LaneId, Option<Members>)>,
}

/// The runs in a lane: one, by its number, or so many, all of which are marked `shared` in their rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Members(i64);

impl Members {
    fn only(seq: u64) -> Self {
        Self(seq.cast_signed())
    }

    fn many(count: u64) -> Self {
        Self(-count.cast_signed())
    }

    fn get(self) -> Who {
        match self.0.is_positive() {
            true => Who::Only(self.0.unsigned_abs()),
            false => Who::Many(self.0.unsigned_abs()),
        }
    }

    fn with_another(self) -> Self {
        match self.get() {
            Who::Only(_) => Self::many(2),
            Who::Many(count) => Self::many(count + 1),
        }
    }
}

/// [`Members`], unpacked.
enum Who {
    /// Its number.
    Only(u64),
    /// How many.
    Many(u64),
}

/// How a run stands that joined a lane.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Joined {
    /// Another holds the lane: it has to wait.
    pub(super) blocked: bool,
    /// What its row says of others in its lane.
    pub(super) shared: bool,
}

impl Lanes {
    /// Reads who is unfinished. Each of the four kinds is found by an index; together they are all.
    pub(super) fn read(conn: &Connection) -> rusqlite::Result<Self> {
        let mut lanes = Self { members: HashMap::new(), undo: Vec::new() };
        for sql in [
            "SELECT lane, seq FROM runs INDEXED BY runs_due WHERE state = 0 AND blocked = 0 AND lane IS NOT NULL",
            "SELECT lane, seq FROM runs INDEXED BY runs_holding
             WHERE shared = 1 AND passed = 0 AND state < 3 AND state = 0 AND blocked = 1",
            "SELECT lane, seq FROM runs INDEXED BY runs_passed WHERE state = 0 AND passed = 1 AND blocked = 1",
            "SELECT lane, seq FROM runs INDEXED BY runs_apart
             WHERE state IN (1, 2, 4) AND state IN (1, 2) AND lane IS NOT NULL",
        ] {
            let mut statement = conn.prepare(sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let (lane, seq) = (LaneId(row.get(0)?), row.get::<_, i64>(1)?.cast_unsigned());
                let members = lanes.members.entry(lane);
                members.and_modify(|m| *m = m.with_another()).or_insert(Members::only(seq));
            }
        }
        Ok(lanes)
    }

    /// A run joins a lane, at its tail. Its own row does not hold it yet.
    pub(super) fn join(&mut self, conn: &Connection, lane: LaneId, seq: u64) -> rusqlite::Result<Joined> {
        let Some(members) = self.members.get(&lane).copied() else {
            self.set(lane, Some(Members::only(seq)));
            return Ok(Joined::default());
        };
        if let Who::Only(only) = members.get() {
            share(conn, only)?;
        }
        self.set(lane, Some(members.with_another()));
        Ok(Joined { blocked: shared_head(conn, lane)?.is_some(), shared: true })
    }

    /// A run of the lane is finished.
    fn leave(&mut self, lane: LaneId) {
        let rest = match self.members.get(&lane).map(|members| members.get()) {
            None | Some(Who::Only(_) | Who::Many(0 | 1)) => None,
            // Which one is left is not known; its row says that it was not alone.
            Some(Who::Many(count)) => Some(Members::many(count - 1)),
        };
        self.set(lane, rest);
    }

    /// The head of a lane, if it has one.
    pub(super) fn head(&self, conn: &Connection, lane: LaneId) -> rusqlite::Result<Option<Head>> {
        let Some(members) = self.members.get(&lane) else { return Ok(None) };
        let Who::Only(only) = members.get() else { return shared_head(conn, lane) };
        let sql = "SELECT seq, ord, state FROM runs WHERE seq = ?1 AND passed = 0 AND state < 3";
        conn.prepare_cached(sql)?.query_row([only.cast_signed()], Head::of).optional()
    }

    fn set(&mut self, lane: LaneId, members: Option<Members>) {
        let before = match members {
            Some(members) => self.members.insert(lane, members),
            None => self.members.remove(&lane),
        };
        self.undo.push((lane, before));
    }

    /// The transaction is committed.
    pub(super) fn keep(&mut self) {
        self.undo.clear();
        // After a long queue its memory goes back.
        if self.members.capacity() > 8 * (self.members.len() + 1024) {
            self.members.shrink_to(2 * self.members.len());
        }
    }

    /// The transaction was rolled back.
    pub(super) fn forget(&mut self) {
        for (lane, before) in std::mem::take(&mut self.undo).into_iter().rev() {
            match before {
                Some(members) => self.members.insert(lane, members),
                None => self.members.remove(&lane),
            };
        }
    }
}

/// Notes in its row that a run is not alone in its lane.
fn share(conn: &Connection, seq: u64) -> rusqlite::Result<()> {
    let sql = "UPDATE runs SET shared = 1 WHERE seq = ?1 AND shared = 0";
    conn.prepare_cached(sql)?.execute([seq.cast_signed()])?;
    Ok(())
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
    Ok(tx.hot.lanes.head(tx.conn, lane)?.is_none_or(|head| head.ord > ord))
}

/// Marks a run as waiting for its lane, or as free.
pub(super) fn set_blocked(conn: &Connection, seq: u64, blocked: bool) -> rusqlite::Result<()> {
    conn.prepare_cached("UPDATE runs SET blocked = ?2 WHERE seq = ?1")?.execute(params![seq.cast_signed(), blocked])?;
    Ok(())
}

/// A run ended its attempt, or was cancelled: frees whoever of its lane may go next. Frees nobody while one of the lane runs.
pub(super) fn moved_on(tx: &mut Tx<'_, '_>, record: &Record) -> rusqlite::Result<()> {
    let Some(lane) = record.lane else { return Ok(()) };
    if record.state.is_final() {
        tx.hot.lanes.leave(lane);
    }
    if tx.book.running.contains(&lane) || !tx.hot.lanes.members.contains_key(&lane) {
        return Ok(());
    }
    let head = tx.hot.lanes.head(tx.conn, lane)?;
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
    let joined = match record.lane {
        Some(lane) => tx.hot.lanes.join(tx.conn, lane, record.seq)?,
        None => Joined::default(),
    };
    record.blocked = joined.blocked;
    rows::save(tx.conn, record, &output)?;
    if joined.shared {
        share(tx.conn, record.seq)?;
    }
    tx.book.save_floors(tx.conn)?;
    tx.book.moved(record.queue, Some(from), record.state)?;
    tx.effects.ready |= !record.blocked;
    tx.effects.notices.push(Notice::Moved(id, record.state));
    Ok(())
}
