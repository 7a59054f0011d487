//! Opening connections and bringing the file to the schema that this program knows. Forward only: a file of a newer
//! program is refused, because writing to it by old rules could lose what the new ones rely on.

use std::path::Path;
use std::time::Duration;

use doorbell_core::ports::StoreError;
use doorbell_core::{Clock, StoreTag};
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::errors::sort;

mod embedded {
    refinery::embed_migrations!("migrations/sqlite");
}

/// Larger than usual: what is written is mostly appended, and fewer, larger frames cost fewer system calls.
pub(super) const PAGE_BYTES: u32 = 8192;

/// What was drawn when the store was made.
#[derive(Clone, Copy)]
pub(super) struct Identity {
    pub(super) tag: StoreTag,
    pub(super) token_key: [u8; 32],
}

/// Opens the one writing connection and migrates the file.
pub(super) fn open_writer(path: &Path, cache_kib: u32, max_pages: Option<u32>) -> Result<Connection, StoreError> {
    let mut conn = Connection::open(path).map_err(|e| open_failed(path, &e))?;
    let set = |conn: &Connection| -> rusqlite::Result<()> {
        conn.busy_timeout(Duration::from_secs(5))?;
        conn.pragma_update(None, "page_size", PAGE_BYTES)?;
        conn.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
        conn.pragma_update(None, "synchronous", "full")?;
        conn.pragma_update(None, "foreign_keys", false)?;
        conn.pragma_update(None, "wal_autocheckpoint", 0)?;
        conn.pragma_update(None, "temp_store", "memory")?;
        conn.pragma_update(None, "cache_size", -i64::from(cache_kib))?;
        Ok(())
    };
    set(&conn).map_err(|e| open_failed(path, &e))?;
    conn.set_prepared_statement_cache_capacity(128);
    migrate(&mut conn, path)?;
    if let Some(pages) = max_pages {
        conn.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).map_err(|e| open_failed(path, &e))?;
    }
    Ok(conn)
}

/// Opens a connection that only reads.
pub(super) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).map_err(|e| open_failed(path, &e))?;
    conn.busy_timeout(Duration::from_secs(5)).map_err(|e| open_failed(path, &e))?;
    conn.pragma_update(None, "cache_size", -8192).map_err(|e| open_failed(path, &e))?;
    conn.set_prepared_statement_cache_capacity(64);
    Ok(conn)
}

fn open_failed(path: &Path, error: &rusqlite::Error) -> StoreError {
    let with = |text: String| format!("opening {}: {text}", path.display());
    match sort(error) {
        StoreError::Fatal(t) => StoreError::Fatal(with(t)),
        StoreError::Corrupt(t) => StoreError::Corrupt(with(t)),
        StoreError::Unavailable(t) => StoreError::Unavailable(with(t)),
        other => other,
    }
}

/// The newest schema this program knows.
pub(super) fn known_version() -> i64 {
    let version = |m: &refinery::Migration| i64::from(m.version());
    embedded::migrations::runner().get_migrations().iter().map(version).max().unwrap_or(0)
}

/// The schema a file has; 0 for an empty one.
pub(super) fn version_of(conn: &Connection) -> rusqlite::Result<i64> {
    let history = "SELECT 1 FROM sqlite_schema WHERE name = 'refinery_schema_history'";
    if conn.query_row(history, [], |_| Ok(())).optional()?.is_none() {
        return Ok(0);
    }
    conn.query_row("SELECT coalesce(max(version), 0) FROM refinery_schema_history", [], |row| row.get(0))
}

/// Refuses a file that is not ours, or that a newer program wrote.
pub(super) fn check_version(conn: &Connection, path: &Path) -> Result<i64, StoreError> {
    let found = version_of(conn).map_err(|e| open_failed(path, &e))?;
    let known = known_version();
    if found > known {
        return Err(StoreError::Conflict(format!(
            "{} was written by a newer Doorbell (schema {found}, this one knows {known}): install that version again, or restore a backup made before it",
            path.display()
        )));
    }
    if found > 0 && !is_of_our_steps(conn).map_err(|e| open_failed(path, &e))? {
        return Err(StoreError::Conflict(format!(
            "{} was made by a build between two versions, whose tables this one does not know: go on with that build, or move the file away and begin anew",
            path.display()
        )));
    }
    if found == 0 {
        let tables = "SELECT count(*) FROM sqlite_schema WHERE type = 'table'";
        let tables: i64 = conn.query_row(tables, [], |row| row.get(0)).map_err(|e| open_failed(path, &e))?;
        if tables > 0 {
            return Err(StoreError::Conflict(format!(
                "{} is a database of another program: name another file in [store] url",
                path.display()
            )));
        }
    }
    Ok(found)
}

/// Whether the file came to its schema by the steps that this program knows: each of them leaves its checksum.
fn is_of_our_steps(conn: &Connection) -> rusqlite::Result<bool> {
    let known = embedded::migrations::runner();
    let mut statement = conn.prepare("SELECT version, checksum FROM refinery_schema_history")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (version, checksum): (i64, String) = (row.get(0)?, row.get(1)?);
        let ours = known.get_migrations().iter().find(|m| i64::from(m.version()) == version);
        if ours.is_some_and(|m| m.checksum().to_string() != checksum) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn migrate(conn: &mut Connection, path: &Path) -> Result<(), StoreError> {
    if check_version(conn, path)? == known_version() {
        return Ok(());
    }
    embedded::migrations::runner()
        .run(conn)
        .map_err(|e| StoreError::Unavailable(format!("bringing {} to this version's schema: {e}", path.display())))?;
    Ok(())
}

/// The store's identity; drawn on the first opening.
pub(super) fn identity(conn: &Connection, clock: &Clock) -> rusqlite::Result<Identity> {
    let get = |name: &str| {
        conn.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get::<_, Vec<u8>>(0)).optional()
    };
    let key_of = |bytes: Vec<u8>| <[u8; 32]>::try_from(bytes).ok();
    let tag_of = |bytes: Vec<u8>| <[u8; 8]>::try_from(bytes).ok().map(|b| StoreTag::new(u64::from_be_bytes(b)));
    if let (Some(tag), Some(key)) = (get("tag")?.and_then(tag_of), get("token_key")?.and_then(key_of)) {
        return Ok(Identity { tag, token_key: key });
    }
    let tag = StoreTag::new(clock.random());
    let mut token_key = [0; 32];
    for chunk in token_key.chunks_mut(8) {
        chunk.copy_from_slice(&clock.random().to_be_bytes());
    }
    let transaction = conn.unchecked_transaction()?;
    let put = "INSERT INTO meta (name, value) VALUES (?1, ?2)";
    transaction.execute(put, rusqlite::params!["tag", &tag.get().to_be_bytes()[..]])?;
    transaction.execute(put, rusqlite::params!["token_key", &token_key[..]])?;
    transaction.commit()?;
    Ok(Identity { tag, token_key })
}
