//! Sources that their owner has opened, so that the sender may hand over a secret.

use doorbell_core::seal::{Earlier, KeepEarlier, NewSecret, OpenPairing};
use doorbell_core::{Name, Timestamp};
use rusqlite::{OptionalExtension, params};

use super::errors::{Fail, corrupt};
use super::read::View;
use super::secrets;
use super::writer::Tx;

/// Opens one.
pub(super) fn open(tx: &mut Tx<'_, '_>, pairing: &OpenPairing) -> Result<(), Fail> {
    let sql = "INSERT INTO pairings (source, until, keep) VALUES (?1, ?2, ?3)
               ON CONFLICT (source) DO UPDATE SET until = ?2, keep = ?3";
    let keep = pairing.earlier == KeepEarlier::Yes;
    tx.conn.prepare_cached(sql)?.execute(params![pairing.source.as_str(), pairing.until.millis(), keep])?;
    Ok(())
}

/// Those that were opened and not closed.
pub(super) fn all(view: &View<'_>) -> Result<Vec<OpenPairing>, Fail> {
    let mut statement = view.conn.prepare_cached("SELECT source, until, keep FROM pairings ORDER BY source")?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let source: String = row.get(0)?;
        found.push(OpenPairing {
            source: Name::new(&source).map_err(|e| corrupt(e.to_string()))?,
            until: Timestamp::from_millis(row.get(1)?),
            earlier: keep(row.get(2)?),
        });
    }
    Ok(found)
}

/// Closes one.
pub(super) fn close(tx: &mut Tx<'_, '_>, source: &Name) -> Result<(), Fail> {
    tx.conn.prepare_cached("DELETE FROM pairings WHERE source = ?1")?.execute([source.as_str()])?;
    Ok(())
}

/// Keeps what a sender handed over and closes its source, if that is open.
pub(super) fn take(tx: &mut Tx<'_, '_>, (source, secret): &(Name, NewSecret)) -> Result<bool, Fail> {
    let sql = "SELECT keep FROM pairings WHERE source = ?1 AND until >= ?2";
    let mut open = tx.conn.prepare_cached(sql)?;
    let found: Option<bool> =
        open.query_row(params![source.as_str(), secret.made_at.millis()], |row| row.get(0)).optional()?;
    drop(open);
    let Some(kept) = found else { return Ok(false) };
    let earlier = match keep(kept) {
        KeepEarlier::Yes => Earlier::Kept,
        KeepEarlier::No => Earlier::Removed,
    };
    // First what may refuse.
    secrets::put(tx, &(secret.clone(), earlier))?;
    close(tx, source)?;
    Ok(true)
}

fn keep(kept: bool) -> KeepEarlier {
    if kept { KeepEarlier::Yes } else { KeepEarlier::No }
}
