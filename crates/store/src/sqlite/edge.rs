//! What the edge keeps: how breakers stand.

use doorbell_core::breaker::Standing;
use doorbell_core::{Name, Timestamp};
use rusqlite::params;

use super::errors::{Fail, corrupt};
use super::read::View;
use super::writer::Tx;

/// How the breakers stand.
pub(super) fn breakers(view: &View<'_>) -> Result<Vec<(Name, Standing)>, Fail> {
    let mut statement = view.conn.prepare_cached("SELECT agent, failures, open_until FROM breakers")?;
    let mut rows = statement.query([])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        let name = Name::new(&name).map_err(|e| corrupt(e.to_string()))?;
        let open_until = row.get::<_, Option<i64>>(2)?.map(Timestamp::from_millis);
        all.push((name, Standing { failures: row.get(1)?, open_until }));
    }
    Ok(all)
}

/// Keeps how one stands.
pub(super) fn set_breaker(tx: &mut Tx<'_, '_>, (agent, standing): &(Name, Standing)) -> Result<(), Fail> {
    let sql = "INSERT INTO breakers (agent, failures, open_until) VALUES (?1, ?2, ?3)
               ON CONFLICT (agent) DO UPDATE SET failures = ?2, open_until = ?3";
    let until = standing.open_until.map(Timestamp::millis);
    tx.conn.prepare_cached(sql)?.execute(params![agent.as_str(), standing.failures, until])?;
    Ok(())
}
