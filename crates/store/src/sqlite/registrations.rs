//! Agents that registered themselves over a wire contract.

use doorbell_core::registration::Registration;
use doorbell_core::{Name, Timestamp};
use rusqlite::{OptionalExtension, Row, params};

use super::errors::{Fail, corrupt};
use super::read::View;
use super::writer::Tx;
use crate::edge::no_registration;

const COLUMNS: &str = "name, acp_url, acp_type, description, input_type, metadata, created_at, registered_at";

fn of_row(row: &Row<'_>) -> rusqlite::Result<Registration> {
    let name: String = row.get(0)?;
    Ok(Registration {
        name: Name::new(&name).map_err(|e| corrupt(e.to_string()))?,
        acp_url: row.get(1)?,
        acp_type: row.get(2)?,
        description: row.get(3)?,
        input_type: row.get(4)?,
        metadata: row.get(5)?,
        created_at: Timestamp::from_millis(row.get(6)?),
        registered_at: Timestamp::from_millis(row.get(7)?),
    })
}

/// Keeps one, in the place of what it said before.
pub(super) fn put(tx: &mut Tx<'_, '_>, agent: &Registration) -> Result<Registration, Fail> {
    let sql = format!(
        "INSERT INTO registrations ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT (name) DO UPDATE SET acp_url = ?2, acp_type = ?3, description = ?4, input_type = ?5, metadata = ?6,
             registered_at = ?8
         RETURNING {COLUMNS}"
    );
    let kept = tx.conn.prepare_cached(&sql)?.query_row(
        params![
            agent.name.as_str(),
            agent.acp_url,
            agent.acp_type,
            agent.description,
            agent.input_type,
            agent.metadata,
            agent.created_at.millis(),
            agent.registered_at.millis(),
        ],
        of_row,
    )?;
    Ok(kept)
}

/// One of them.
pub(super) fn one(view: &View<'_>, agent: &Name) -> Result<Option<Registration>, Fail> {
    let sql = format!("SELECT {COLUMNS} FROM registrations WHERE name = ?1");
    Ok(view.conn.prepare_cached(&sql)?.query_row([agent.as_str()], of_row).optional()?)
}

/// All of them, by name.
pub(super) fn all(view: &View<'_>) -> Result<Vec<Registration>, Fail> {
    let mut statement = view.conn.prepare_cached(&format!("SELECT {COLUMNS} FROM registrations ORDER BY name"))?;
    let found = statement.query_map([], of_row)?.collect::<rusqlite::Result<Vec<Registration>>>()?;
    Ok(found)
}

/// Forgets one.
pub(super) fn remove(tx: &mut Tx<'_, '_>, agent: &Name) -> Result<(), Fail> {
    let removed = tx.conn.prepare_cached("DELETE FROM registrations WHERE name = ?1")?.execute([agent.as_str()])?;
    if removed == 0 { Err(no_registration(agent).into()) } else { Ok(()) }
}
