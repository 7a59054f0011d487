//! Deleting what has outlived its retention, a bounded share a call, so that accepting never waits long for it. An event
//! goes with its runs and logs, and only once all of them are final. Fingerprints outlive events (semantics 7).

use doorbell_core::Timestamp;
use doorbell_core::ports::{Retention, Swept};
use doorbell_core::run::State;
use rusqlite::params;

use super::book::time;
use super::errors::Fail;
use super::read::runs_of;
use super::writer::Tx;
use super::{decisions, dedup, secrets};

/// Events looked at in one call: some tens of milliseconds of the writer's time.
const EVENTS_A_CALL: usize = 500;
const DECISIONS_A_CALL: usize = 2000;
const PRINTS_A_CALL: usize = 5000;

/// Where the last call stopped. In memory only: a restart begins anew.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Accepted events up to this place were looked at in this round.
    event: i64,
    /// The same for ignored ones: time and place.
    unwanted: (i64, i64),
    pub(super) prints: dedup::Round,
}

/// Carries one call out.
pub(super) fn sweep(tx: &mut Tx<'_, '_>, (retention, now): &(Retention, Timestamp)) -> Result<Swept, Fail> {
    tx.shared.keep(retention);
    let mut progress = tx.shared.progress.lock().map(|mut p| std::mem::take(&mut *p)).unwrap_or_default();
    let (prints, more) = tx.prints.tidy(PRINTS_A_CALL);
    tx.hot.prints.write(&prints)?;
    let mut swept = Swept { more, ..Swept::default() };
    sweep_accepted(tx, now.minus(retention.events), &mut progress, &mut swept)?;
    sweep_unwanted(tx, now.minus(retention.ignored), &mut progress, &mut swept)?;
    sweep_decisions(tx, retention, now.minus(retention.decisions), &mut swept)?;
    secrets::sweep(tx.conn, *now)?;
    let round = dedup::sweep(tx.conn, &mut progress.prints, *now, retention.dedup, PRINTS_A_CALL)?;
    swept.dedup = round.gone;
    swept.more |= round.more;
    if swept.events + swept.runs + swept.decisions > 0 {
        tx.book.save_floors(tx.conn)?;
    }
    if let Ok(mut kept) = tx.shared.progress.lock() {
        *kept = progress;
    }
    Ok(swept)
}

fn sweep_accepted(
    tx: &mut Tx<'_, '_>,
    before: Timestamp,
    progress: &mut Progress,
    swept: &mut Swept,
) -> rusqlite::Result<()> {
    let found: Vec<(i64, i64, u8)> = {
        let sql = "SELECT seq, at, verdict FROM events WHERE seq > ?1 ORDER BY seq LIMIT ?2";
        let mut statement = tx.conn.prepare_cached(sql)?;
        let rows = statement.query_map(params![progress.event, EVENTS_A_CALL as i64], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?;
        rows.collect::<rusqlite::Result<_>>()?
    };
    let full = found.len() == EVENTS_A_CALL;
    let floor = tx.prints.floor();
    for (seq, at, verdict) in found {
        // Prints that only the event's row keeps must be moved first.
        if time(at) >= before || seq.cast_unsigned() >= floor {
            progress.event = 0;
            return Ok(());
        }
        progress.event = seq;
        if verdict == 0 {
            delete_event(tx, seq.cast_unsigned(), swept)?;
        }
    }
    swept.more |= full;
    if !full {
        progress.event = 0;
    }
    Ok(())
}

fn sweep_unwanted(
    tx: &mut Tx<'_, '_>,
    before: Timestamp,
    progress: &mut Progress,
    swept: &mut Swept,
) -> rusqlite::Result<()> {
    let found: Vec<(i64, i64)> = {
        let sql = "SELECT at, seq FROM events WHERE verdict <> 0 AND at < ?1 AND (at, seq) > (?2, ?3)
                   ORDER BY at, seq LIMIT ?4";
        let (at, seq) = progress.unwanted;
        let mut statement = tx.conn.prepare_cached(sql)?;
        let rows = statement
            .query_map(params![before.millis(), at, seq, EVENTS_A_CALL as i64], |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.collect::<rusqlite::Result<_>>()?
    };
    progress.unwanted = if found.len() == EVENTS_A_CALL { found.last().copied().unwrap_or_default() } else { (0, 0) };
    swept.more |= found.len() == EVENTS_A_CALL;
    for (_, seq) in found {
        delete_event(tx, seq.cast_unsigned(), swept)?;
    }
    Ok(())
}

/// Deletes an event with its runs and logs, if all of them are final.
fn delete_event(tx: &Tx<'_, '_>, event: u64, swept: &mut Swept) -> rusqlite::Result<()> {
    let runs = runs_of(tx.conn, event)?;
    let mut state = tx.conn.prepare_cached("SELECT state FROM runs WHERE seq = ?1")?;
    for run in &runs {
        let code: u8 = state.query_row([run.cast_signed()], |row| row.get(0))?;
        if State::from_code(code).is_none_or(|state| !state.is_final()) {
            return Ok(());
        }
    }
    for run in &runs {
        tx.conn.prepare_cached("DELETE FROM log WHERE run = ?1")?.execute([run.cast_signed()])?;
        tx.conn.prepare_cached("DELETE FROM runs WHERE seq = ?1")?.execute([run.cast_signed()])?;
    }
    tx.conn.prepare_cached("DELETE FROM run_events WHERE event = ?1")?.execute([event.cast_signed()])?;
    tx.conn.prepare_cached("DELETE FROM events WHERE seq = ?1")?.execute([event.cast_signed()])?;
    swept.events += 1;
    swept.runs += runs.len() as u64;
    Ok(())
}

fn sweep_decisions(
    tx: &mut Tx<'_, '_>,
    retention: &Retention,
    before: Timestamp,
    swept: &mut Swept,
) -> rusqlite::Result<()> {
    let found: Vec<(i64, i64, bool, Option<u32>)> = {
        let sql = "SELECT seq, at, ring, source FROM decisions ORDER BY seq LIMIT ?1";
        let mut statement = tx.conn.prepare_cached(sql)?;
        let rows = statement
            .query_map([DECISIONS_A_CALL as i64], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
        rows.collect::<rusqlite::Result<_>>()?
    };
    let full = found.len() == DECISIONS_A_CALL;
    let mut gone = 0;
    for (seq, at, ring, source) in found {
        if time(at) >= before {
            break;
        }
        tx.conn.prepare_cached("DELETE FROM decisions WHERE seq = ?1")?.execute([seq])?;
        gone += 1;
        if ring && let Some(count) = tx.book.rings.get_mut(&source.unwrap_or(0)) {
            *count = count.saturating_sub(1);
        }
    }
    swept.decisions += gone;
    swept.more |= full && gone == DECISIONS_A_CALL as u64;
    let sources: Vec<u32> = tx.book.rings.keys().copied().collect();
    for source in sources {
        swept.decisions += decisions::cut_ring(tx, source, u64::from(retention.ring))?;
    }
    Ok(())
}
