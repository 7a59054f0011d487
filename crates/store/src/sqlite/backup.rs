//! Copies: a consistent one while the store runs, and back from it (semantics 18). Never overwrites a file, and nothing
//! appears under its final name before it is whole and on disk.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use doorbell_core::Clock;
use doorbell_core::ports::{Store as _, StoreError};
use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::errors::sort;
use super::lock::{OwnerLock, beside};
use super::schema::{check_version, open_reader};
use super::{SqliteOptions, SqliteStore, acklog};

/// Copies the database at `from` to the new file `to`, also while another process holds it. Called on a thread that may
/// block.
///
/// # Errors
/// If `to` exists or cannot be written, or `from` cannot be read.
pub fn copy(from: &Path, to: &Path) -> Result<(), StoreError> {
    refuse_existing(to)?;
    let part = beside(to, ".part");
    let said = copy_to_part(from, &part).and_then(|()| publish(&part, to));
    for suffix in ["", "-wal", "-shm", "-journal", ".lock", acklog::SUFFIXES[0], acklog::SUFFIXES[1]] {
        let _ = std::fs::remove_file(beside(&part, suffix));
    }
    said
}

fn copy_to_part(from: &Path, part: &Path) -> Result<(), StoreError> {
    let _ = std::fs::remove_file(part);
    create_private(part)?;
    // Before the tables: what was acknowledged until now is either still here then, or in the tables by then.
    let acks = acklog::SUFFIXES.map(|suffix| (suffix, std::fs::read(beside(from, suffix)).unwrap_or_default()));
    let source = open_reader(from)?;
    let mut target = Connection::open(part).map_err(|e| sort(&e))?;
    {
        // One step, under one read lock: the writer goes on, and the copy is of one moment.
        let backup = Backup::new(&source, &mut target).map_err(|e| sort(&e))?;
        match backup.step(-1).map_err(|e| sort(&e))? {
            StepResult::Done => {}
            other => return Err(StoreError::Unavailable(format!("the copy was not finished ({other:?}); try again"))),
        }
    }
    target.close().map_err(|(_, e)| sort(&e))?;
    if acks.iter().all(|(_, bytes)| bytes.is_empty()) {
        return Ok(());
    }
    for (suffix, bytes) in &acks {
        let path = beside(part, suffix);
        create_private(&path)?;
        let failed = |e| StoreError::Unavailable(format!("writing {}: {e}", path.display()));
        std::fs::write(&path, bytes).map_err(failed)?;
    }
    take_over(part)
}

/// Writes what the copied ack log holds into the copied tables, as a start of the server would.
fn take_over(part: &Path) -> Result<(), StoreError> {
    let options = SqliteOptions { readers: 1, reserve_bytes: 0, min_free_bytes: 0, ..SqliteOptions::default() };
    let store = SqliteStore::open(part, options, &Clock::system())?;
    // On a thread of its own: the caller's may belong to a runtime already.
    let close = || {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        runtime.block_on(store.close());
        Ok::<(), std::io::Error>(())
    };
    let closed = std::thread::scope(|scope| scope.spawn(close).join());
    let failed = |what: String| StoreError::Unavailable(format!("cannot finish the copy: {what}"));
    closed.map_err(|_| failed("closing it broke off".to_owned()))?.map_err(|e| failed(e.to_string()))
}

/// Puts the whole copy on disk under its final name.
fn publish(part: &Path, to: &Path) -> Result<(), StoreError> {
    let failed = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::AlreadyExists => exists(to),
        _ => StoreError::Unavailable(format!("writing {}: {e}", to.display())),
    };
    File::open(part).and_then(|file| file.sync_all()).map_err(failed)?;
    // Unlike a rename, a link never replaces a file.
    std::fs::hard_link(part, to).map_err(failed)?;
    File::open(parent(to)).and_then(|directory| directory.sync_all()).map_err(failed)
}

/// Puts the backup at `from` in place as the database `to`. Refuses a damaged or newer backup, an existing database, and
/// one that a process is using.
pub fn restore(from: &Path, to: &Path, clock: &Clock) -> Result<(), StoreError> {
    let _lock = OwnerLock::take(to, clock.now())?;
    refuse_existing(to)?;
    if !from.is_file() {
        return Err(StoreError::NotFound(format!("file {}", from.display())));
    }
    let damaged = |what: String| StoreError::Corrupt(format!("the backup {} is damaged: {what}", from.display()));
    let source = open_reader(from)?;
    if check_version(&source, from).map_err(|e| match e {
        StoreError::Fatal(text) => damaged(text),
        other => other,
    })? == 0
    {
        return Err(StoreError::Conflict(format!("{} holds no Doorbell store: name another file", from.display())));
    }
    let verdict: String =
        source.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(|e| damaged(e.to_string()))?;
    if verdict != "ok" {
        return Err(damaged(verdict));
    }
    drop(source);
    copy(from, to)
}

/// Also a log that was left beside it: SQLite would play it into whatever file stands there.
fn refuse_existing(to: &Path) -> Result<(), StoreError> {
    let [one, two] = acklog::SUFFIXES;
    let beside = ["-wal", "-shm", "-journal", one, two].map(|suffix| super::lock::beside(to, suffix));
    match std::iter::once(to).chain(beside.iter().map(PathBuf::as_path)).find(|path| path.symlink_metadata().is_ok()) {
        Some(path) => Err(exists(path)),
        None => Ok(()),
    }
}

fn exists(to: &Path) -> StoreError {
    StoreError::Conflict(format!(
        "{} is there already, and is not overwritten: name another file, or move it away",
        to.display()
    ))
}

/// Creates a file that only its owner reads, if it is not there: bodies of events are in it.
pub(super) fn create_private(path: &Path) -> Result<(), StoreError> {
    let options = File::options().write(true).create(true).truncate(false).mode(0o600).open(path);
    options.map(drop).map_err(|e| StoreError::Unavailable(format!("cannot write {}: {e}", path.display())))
}

pub(super) fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}
