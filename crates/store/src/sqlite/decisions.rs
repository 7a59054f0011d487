//! Decisions that made no event: recorded with the transaction that made them, or, for requests that were not verified,
//! written behind from a bounded buffer into a ring for each source (semantics 4).

use std::sync::Mutex;

use doorbell_core::decision::NewDecision;
use rusqlite::params;

use super::errors::{Fail, corrupt};
use super::rows::bytes_of;
use super::writer::Tx;

/// Notes that wait for the writer; more are dropped and counted.
const NOTES_MAX: usize = 4096;

/// How long a decision is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// Until its retention is over.
    ByAge,
    /// Until newer ones of its source push it out, too.
    InRing,
}

/// Notes on their way to the writer.
#[derive(Default)]
pub(super) struct Notes(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    notes: Vec<NewDecision>,
    /// The writer was told that there are some.
    told: bool,
}

/// What became of a note.
pub(super) struct Noted {
    /// The writer must be told that notes wait.
    pub(super) first: bool,
    /// There was no room for this one.
    pub(super) dropped: bool,
}

impl Notes {
    /// Adds a note if there is room.
    pub(super) fn add(&self, note: NewDecision) -> Noted {
        let Ok(mut waiting) = self.0.lock() else { return Noted { first: false, dropped: true } };
        let dropped = waiting.notes.len() >= NOTES_MAX;
        if !dropped {
            waiting.notes.push(note);
        }
        Noted { first: !std::mem::replace(&mut waiting.told, true), dropped }
    }

    /// Takes all.
    pub(super) fn take(&self) -> Vec<NewDecision> {
        self.0.lock().map(|mut waiting| std::mem::take(&mut *waiting).notes).unwrap_or_default()
    }

    /// Whether none wait.
    pub(super) fn are_none(&self) -> bool {
        self.0.lock().map_or(true, |waiting| waiting.notes.is_empty())
    }

    /// They wait on, for room on the disk: the next one that is added has the writer try again.
    pub(super) fn wait(&self) {
        if let Ok(mut waiting) = self.0.lock() {
            waiting.told = false;
        }
    }

    /// Takes back what found no room. How many had to be dropped.
    pub(super) fn put_back(&self, mut notes: Vec<NewDecision>) -> usize {
        let Ok(mut waiting) = self.0.lock() else { return notes.len() };
        notes.append(&mut waiting.notes);
        let over = notes.len().saturating_sub(NOTES_MAX);
        notes.truncate(NOTES_MAX);
        *waiting = Waiting { notes, told: false };
        over
    }
}

/// Writes one decision.
pub(super) fn write(tx: &mut Tx<'_, '_>, decision: &NewDecision, kept: Kept) -> rusqlite::Result<()> {
    let checks = serde_json::to_vec(&decision.checks).map_err(|e| corrupt(format!("checks: {e}")))?;
    let source = match &decision.source {
        Some(name) => Some(tx.book.intern(tx.conn, name)?),
        None => None,
    };
    let seq = tx.book.next_seq();
    let sql = "INSERT INTO decisions (seq, at, kind, source, ring, event, remote, code, reason, checks)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    tx.conn.prepare_cached(sql)?.execute(params![
        seq.cast_signed(),
        decision.at.millis(),
        decision.kind.code(),
        source,
        kept == Kept::InRing,
        decision.event.map(|event| event.seq.cast_signed()),
        decision.remote.map(bytes_of),
        decision.code,
        decision.reason,
        checks,
    ])?;
    if kept == Kept::InRing {
        let ring = tx.shared.ring();
        let count = tx.book.rings.entry(source.unwrap_or(0)).or_default();
        *count += 1;
        // Twice the ring before it is cut, so that a flood does not pay for a deletion with every note.
        if *count > ring.saturating_mul(2) {
            cut_ring(tx, source.unwrap_or(0), ring)?;
        }
    }
    Ok(())
}

/// Cuts the ring of a source (0: unknown paths) to its newest `keep`. How many went.
pub(super) fn cut_ring(tx: &mut Tx<'_, '_>, source: u32, keep: u64) -> rusqlite::Result<u64> {
    let count = tx.book.rings.get(&source).copied().unwrap_or(0);
    let over = count.saturating_sub(keep);
    if over == 0 {
        return Ok(0);
    }
    let sql = "DELETE FROM decisions WHERE seq IN
               (SELECT seq FROM decisions WHERE ring = 1 AND source IS ?1 ORDER BY seq LIMIT ?2)";
    let of = (source != 0).then_some(source);
    let gone = tx.conn.prepare_cached(sql)?.execute(params![of, over.cast_signed()])? as u64;
    tx.book.rings.insert(source, count.saturating_sub(gone));
    Ok(gone)
}

/// Writes the notes that came in.
pub(super) fn write_notes(tx: &mut Tx<'_, '_>, notes: &[NewDecision]) -> rusqlite::Result<()> {
    notes.iter().try_for_each(|note| write(tx, note, Kept::InRing))
}

/// Records a decision that made no event.
pub(super) fn record(tx: &mut Tx<'_, '_>, decision: &NewDecision) -> Result<(), Fail> {
    tx.refuse_stuck()?;
    Ok(write(tx, decision, Kept::ByAge)?)
}
