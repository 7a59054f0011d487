//! Replays, flags and retention's deletions: what people and the housekeeping ask of the writer.

use doorbell_core::ports::{Flag, Notice, StoreError};
use doorbell_core::run::NewRun;
use doorbell_core::{EventId, RunId, Timestamp};
use rusqlite::{OptionalExtension, params};

use super::accept::{Parent, insert_runs, refuse_over_limit};
use super::errors::Fail;
use super::writer::Tx;

/// Makes new runs of a stored event.
pub(super) fn replay(
    tx: &mut Tx<'_, '_>,
    (event, runs, now): &(EventId, Vec<NewRun>, Timestamp),
) -> Result<Vec<RunId>, Fail> {
    if tx.short {
        return Err(StoreError::Unavailable("disk space is short; make room, then try again".into()).into());
    }
    let missing = || StoreError::NotFound(format!("event {event}"));
    if event.store != tx.tag() {
        return Err(missing().into());
    }
    let sql = "SELECT source, event_type FROM events WHERE seq = ?1";
    let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, u32>(0)?, row.get::<_, String>(1)?));
    let found = tx.conn.prepare_cached(sql)?.query_row([event.seq.cast_signed()], row).optional()?;
    let (source, event_type) = found.ok_or_else(missing)?;
    refuse_over_limit(tx.book, runs.iter())?;
    let parent = Parent { event: event.seq, source, event_type: &event_type };
    let ids = insert_runs(tx, &parent, runs, *now)?;
    let mut link = tx.conn.prepare_cached("INSERT INTO run_events (event, run) VALUES (?1, ?2)")?;
    for id in &ids {
        link.execute(params![event.seq.cast_signed(), id.seq.cast_signed()])?;
    }
    Ok(ids)
}

/// Sets or clears a flag.
pub(super) fn set_flag(tx: &mut Tx<'_, '_>, (flag, value, now): &(Flag, bool, Timestamp)) -> Result<(), Fail> {
    let (kind, name) = match flag {
        Flag::AgentPaused(name) => (0, name),
        Flag::TriggerDisabled(name) => (1, name),
    };
    let sql = "INSERT INTO flags (kind, name, value, at) VALUES (?1, ?2, ?3, ?4)
               ON CONFLICT (kind, name) DO UPDATE SET value = ?3, at = ?4";
    tx.conn.prepare_cached(sql)?.execute(params![kind, name.as_str(), value, now.millis()])?;
    tx.effects.notices.push(Notice::Flags);
    tx.effects.ready = true;
    Ok(())
}
