//! One process per database file (semantics 17): the database itself and a lock file beside it are held with `flock`, so
//! that the kernel lets go when the process dies, however it dies. The lock on the database holds by whatever name it is
//! reached (a link, a removed lock file); the lock file tells a person who holds it, and holds while there is no database.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use doorbell_core::Timestamp;
use doorbell_core::ports::StoreError;
use rustix::fs::{FlockOperation, flock};

/// Held while the store is open.
#[derive(Debug)]
pub(super) struct OwnerLock {
    _beside: File,
    /// Closed after the last connection: closing any handle to the database would end `SQLite`'s own locks on it.
    _database: Option<File>,
}

impl OwnerLock {
    /// Takes the lock of `database`, or says which process has it.
    pub(super) fn take(database: &Path, now: Timestamp) -> Result<Self, StoreError> {
        let path = beside(database, ".lock");
        let failed = |e: std::io::Error| StoreError::Unavailable(format!("cannot lock {}: {e}", path.display()));
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        if let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if error != rustix::io::Errno::WOULDBLOCK {
                return Err(failed(error.into()));
            }
            let mut holder = String::new();
            let _ = file.take(200).read_to_string(&mut holder);
            let holder = if holder.trim().is_empty() { "another process" } else { holder.trim() };
            return Err(StoreError::Conflict(format!(
                "{} is in use by {holder}: one process owns a database file; stop that one first, or speak to it over its API",
                database.display()
            )));
        }
        file.set_len(0).map_err(failed)?;
        file.rewind().map_err(failed)?;
        writeln!(file, "process {} since {now}", std::process::id()).map_err(failed)?;
        Ok(Self { _beside: file, _database: None })
    }

    /// Takes the database itself too, once it is there and before it is opened.
    pub(super) fn take_database(&mut self, database: &Path) -> Result<(), StoreError> {
        let failed = |e: std::io::Error| StoreError::Unavailable(format!("cannot lock {}: {e}", database.display()));
        let file = File::open(database).map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                self._database = Some(file);
                Ok(())
            }
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::Conflict(format!(
                "{} is in use by another process, under another name: one process owns a database file",
                database.display()
            ))),
            Err(error) => Err(failed(error.into())),
        }
    }
}

/// Whether a process has the database open as its owner.
pub(super) fn is_held(database: &Path) -> bool {
    let Ok(file) = File::open(database) else { return false };
    flock(&file, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
}

/// The path of a file that belongs to the database.
pub(super) fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
