//! Sealed secrets: bytes that this crate cannot read.

use std::path::Path;

use doorbell_core::Timestamp;
use doorbell_core::ports::StoreError;
use doorbell_core::seal::{Earlier, KeptSecret, NewSecret, Sealed, SecretName, VALUES_MAX};
use rusqlite::{Connection, Row, params};

use super::errors::{Fail, corrupt, sort};
use super::read::View;
use super::schema::{check_version, open_reader};
use super::writer::Tx;
use crate::edge::{no_secret, secret_exists, too_many_values};

const SECRET: &str = "id, name, sealed, made_at, expires_at";

fn secret_row(row: &Row<'_>) -> rusqlite::Result<KeptSecret> {
    let (name, sealed): (String, Vec<u8>) = (row.get(1)?, row.get(2)?);
    Ok(KeptSecret {
        id: row.get::<_, i64>(0)?.cast_unsigned(),
        secret: NewSecret {
            name: SecretName::new(name).map_err(|e| corrupt(e.to_string()))?,
            sealed: Sealed::from_bytes(sealed)
                .ok_or_else(|| corrupt("a secret that was not sealed here".to_owned()))?,
            made_at: Timestamp::from_millis(row.get(3)?),
            expires_at: row.get::<_, Option<i64>>(4)?.map(Timestamp::from_millis),
        },
    })
}

/// Keeps a value as the newest of its name.
pub(super) fn put(tx: &mut Tx<'_, '_>, (secret, earlier): &(NewSecret, Earlier)) -> Result<(), Fail> {
    let (name, now) = (secret.name.as_str(), secret.made_at.millis());
    let good = "SELECT count(*) FROM secrets WHERE name = ?1 AND (expires_at IS NULL OR expires_at > ?2)";
    let good: u32 = tx.conn.prepare_cached(good)?.query_row(params![name, now], |row| row.get(0))?;
    // Looked at before anything is written: a refusal does not roll back what was.
    match earlier {
        Earlier::MustNotBe if good > 0 => return Err(secret_exists(&secret.name).into()),
        Earlier::Until(_) | Earlier::Kept if good as usize >= VALUES_MAX => {
            return Err(too_many_values(&secret.name).into());
        }
        Earlier::Until(until) => {
            let shorten = "UPDATE secrets SET expires_at = min(coalesce(expires_at, ?2), ?2) WHERE name = ?1";
            tx.conn.prepare_cached(shorten)?.execute(params![name, until.millis()])?;
            let forget = "DELETE FROM secrets WHERE name = ?1 AND expires_at <= ?2";
            tx.conn.prepare_cached(forget)?.execute(params![name, now])?;
        }
        Earlier::Kept => {}
        Earlier::Removed | Earlier::MustNotBe => {
            tx.conn.prepare_cached("DELETE FROM secrets WHERE name = ?1")?.execute([name])?;
        }
    }
    let sql = "INSERT INTO secrets (name, sealed, made_at, expires_at) VALUES (?1, ?2, ?3, ?4)";
    let expires_at = secret.expires_at.map(Timestamp::millis);
    tx.conn.prepare_cached(sql)?.execute(params![name, secret.sealed.as_bytes(), now, expires_at])?;
    Ok(())
}

/// The values of one name, newest first.
pub(super) fn of_name(view: &View<'_>, name: &SecretName) -> Result<Vec<KeptSecret>, Fail> {
    Ok(read(view.conn, name)?)
}

/// All of them, newest first.
pub(super) fn all(view: &View<'_>) -> Result<Vec<KeptSecret>, Fail> {
    Ok(read_all(view.conn)?)
}

/// All of them in the database at `path`, newest first, also while another process holds it; none in one that is not made
/// yet. Called on a thread that may block.
///
/// # Errors
/// If there is no such file, or it cannot be read.
pub fn all_in_file(path: &Path) -> Result<Vec<KeptSecret>, StoreError> {
    let conn = open_reader(path)?;
    if check_version(&conn, path)? == 0 {
        return Ok(Vec::new());
    }
    read_all(&conn).map_err(|error| sort(&error))
}

/// The values of one name in the database at `path`, newest first, also while another process holds it. For whoever may
/// read the file and has the master key. Called on a thread that may block.
///
/// # Errors
/// If there is no such file, or it cannot be read.
pub fn in_file(path: &Path, name: &SecretName) -> Result<Vec<KeptSecret>, StoreError> {
    let conn = open_reader(path)?;
    check_version(&conn, path)?;
    read(&conn, name).map_err(|error| sort(&error))
}

fn read_all(conn: &Connection) -> rusqlite::Result<Vec<KeptSecret>> {
    let sql = format!("SELECT {SECRET} FROM secrets ORDER BY id DESC");
    conn.prepare_cached(&sql)?.query_map([], secret_row)?.collect()
}

fn read(conn: &Connection, name: &SecretName) -> rusqlite::Result<Vec<KeptSecret>> {
    let sql = format!("SELECT {SECRET} FROM secrets WHERE name = ?1 ORDER BY id DESC");
    conn.prepare_cached(&sql)?.query_map([name.as_str()], secret_row)?.collect()
}

/// Puts the same secret in its place, sealed anew.
pub(super) fn reseal(tx: &mut Tx<'_, '_>, (id, sealed): &(u64, Sealed)) -> Result<(), Fail> {
    let sql = "UPDATE secrets SET sealed = ?2 WHERE id = ?1";
    tx.conn.prepare_cached(sql)?.execute(params![id.cast_signed(), sealed.as_bytes()])?;
    Ok(())
}

/// Removes every value of a name.
pub(super) fn remove(tx: &mut Tx<'_, '_>, name: &SecretName) -> Result<(), Fail> {
    let removed = tx.conn.prepare_cached("DELETE FROM secrets WHERE name = ?1")?.execute([name.as_str()])?;
    if removed == 0 { Err(no_secret(name).into()) } else { Ok(()) }
}

/// Forgets what has expired.
pub(super) fn sweep(conn: &Connection, now: Timestamp) -> rusqlite::Result<()> {
    conn.prepare_cached("DELETE FROM secrets WHERE expires_at <= ?1")?.execute([now.millis()])?;
    Ok(())
}
