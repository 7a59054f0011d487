//! What the edge keeps: how breakers stand, and API keys.

use doorbell_core::breaker::Standing;
use doorbell_core::keys::{Key, KeyHash, KeyId, Kind, Right};
use doorbell_core::{Name, Timestamp};
use rusqlite::{OptionalExtension, Row, params};

use super::errors::{Fail, corrupt};
use super::read::View;
use super::writer::Tx;
use crate::edge::{key_exists, no_key};

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

const KEY: &str =
    "finder, agent, name, kind, rights, created_at, expires_at, last_used_at, hash, before_hash, before_until";

fn key_row(row: &Row<'_>) -> rusqlite::Result<Key> {
    let finder: String = row.get(0)?;
    let agent: String = row.get(1)?;
    let (kind, rights): (String, String) = (row.get(3)?, row.get(4)?);
    let time = |at: Option<i64>| at.map(Timestamp::from_millis);
    let before = match (row.get::<_, Option<[u8; 32]>>(9)?, time(row.get(10)?)) {
        (Some(hash), Some(until)) => Some((KeyHash(hash), until)),
        _ => None,
    };
    Ok(Key {
        id: KeyId::of_finder(&finder).ok_or_else(|| corrupt(format!("`{finder}` finds no key")))?,
        agent: match agent.as_str() {
            "" => None,
            agent => Some(Name::new(agent).map_err(|e| corrupt(e.to_string()))?),
        },
        name: row.get(2)?,
        kind: kind.parse::<Kind>().map_err(corrupt)?,
        rights: rights.split_whitespace().map(str::parse::<Right>).collect::<Result<_, _>>().map_err(corrupt)?,
        created_at: Timestamp::from_millis(row.get(5)?),
        expires_at: time(row.get(6)?),
        last_used_at: time(row.get(7)?),
        hash: KeyHash(row.get(8)?),
        before,
    })
}

/// Keeps a new key. The index says whether there is one of its name: a look before the insert could be overtaken.
pub(super) fn add_key(tx: &mut Tx<'_, '_>, key: &Key) -> Result<(), Fail> {
    let sql = "INSERT INTO api_keys (finder, agent, name, kind, rights, created_at, expires_at, hash)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING";
    let rights: Vec<&str> = key.rights.iter().map(|r| r.as_str()).collect();
    let added = tx.conn.prepare_cached(sql)?.execute(params![
        key.id.finder(),
        key.agent.as_ref().map_or("", Name::as_str),
        key.name,
        key.kind.as_str(),
        rights.join(" "),
        key.created_at.millis(),
        key.expires_at.map(Timestamp::millis),
        key.hash.0,
    ])?;
    if added == 0 { Err(key_exists(key).into()) } else { Ok(()) }
}

/// All keys, oldest first.
pub(super) fn keys(view: &View<'_>) -> Result<Vec<Key>, Fail> {
    let sql = format!("SELECT {KEY} FROM api_keys ORDER BY id");
    let mut statement = view.conn.prepare_cached(&sql)?;
    let found = statement.query_map([], key_row)?.collect::<rusqlite::Result<Vec<Key>>>()?;
    Ok(found)
}

/// One key.
pub(super) fn key(view: &View<'_>, id: &KeyId) -> Result<Option<Key>, Fail> {
    let sql = format!("SELECT {KEY} FROM api_keys WHERE finder = ?1");
    Ok(view.conn.prepare_cached(&sql)?.query_row([id.finder()], key_row).optional()?)
}

/// Gives a key another secret.
pub(super) fn rotate_key(tx: &mut Tx<'_, '_>, (id, hash, until): &(KeyId, KeyHash, Timestamp)) -> Result<Key, Fail> {
    let sql = format!(
        "UPDATE api_keys SET before_hash = hash, before_until = ?2, hash = ?3 WHERE finder = ?1 RETURNING {KEY}"
    );
    let found = tx.conn.prepare_cached(&sql)?.query_row(params![id.finder(), until.millis(), hash.0], key_row);
    Ok(found.optional()?.ok_or_else(|| no_key(id))?)
}

/// Removes a key.
pub(super) fn remove_key(tx: &mut Tx<'_, '_>, id: &KeyId) -> Result<(), Fail> {
    let removed = tx.conn.prepare_cached("DELETE FROM api_keys WHERE finder = ?1")?.execute([id.finder()])?;
    if removed == 0 { Err(no_key(id).into()) } else { Ok(()) }
}

/// Notes that a key was used.
pub(super) fn key_used(tx: &mut Tx<'_, '_>, (id, at): &(KeyId, Timestamp)) -> Result<(), Fail> {
    let sql = "UPDATE api_keys SET last_used_at = max(coalesce(last_used_at, 0), ?2) WHERE finder = ?1";
    tx.conn.prepare_cached(sql)?.execute(params![id.finder(), at.millis()])?;
    Ok(())
}
