//! What an error of `SQLite` means to the caller: come back later, stop the process, or a defect. Every statement's error
//! passes through here on its way out of the store.

use doorbell_core::ports::StoreError;
use rusqlite::ErrorCode as Code;
use rusqlite::ffi;

/// Why a write did not happen.
#[derive(Debug)]
pub(super) enum Fail {
    /// The rules say no; nothing was written, the transaction goes on.
    Refused(StoreError),
    /// `SQLite` said no; the transaction must be rolled back.
    Sql(rusqlite::Error),
}

impl From<StoreError> for Fail {
    fn from(error: StoreError) -> Self {
        Self::Refused(error)
    }
}

impl From<rusqlite::Error> for Fail {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

/// Sorts an error by what the caller can do. After a failed fsync the kernel may have dropped the dirty pages and called
/// them clean, so a second try proves nothing: that is fatal (<https://www.sqlite.org/rescode.html#ioerr_fsync>).
pub(super) fn sort(error: &rusqlite::Error) -> StoreError {
    let rusqlite::Error::SqliteFailure(failure, text) = error else {
        return StoreError::Corrupt(error.to_string());
    };
    let text = text.clone().unwrap_or_else(|| failure.to_string());
    match (failure.extended_code, failure.code) {
        (ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC, _) => {
            StoreError::Fatal(format!("an fsync failed, so what is on disk is not known: {text}"))
        }
        (_, Code::DatabaseCorrupt | Code::NotADatabase) => StoreError::Fatal(format!(
            "the database file is damaged: {text}; stop, keep a copy of it, and restore a backup"
        )),
        (_, Code::DiskFull) => {
            StoreError::Unavailable(format!("the disk or the database's size limit is full: {text}"))
        }
        (_, Code::ReadOnly | Code::CannotOpen | Code::DatabaseBusy | Code::DatabaseLocked | Code::SystemIoFailure) => {
            StoreError::Unavailable(text)
        }
        (_, Code::OutOfMemory | Code::OperationInterrupted) => StoreError::Unavailable(text),
        _ => StoreError::Corrupt(format!("a statement failed: {text}")),
    }
}

/// Whether the disk or the size limit is full.
pub(super) fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(Code::DiskFull)
}

/// Something read back makes no sense.
pub(super) fn corrupt(what: impl Into<String>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Blob, what.into().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: i32) -> StoreError {
        sort(&rusqlite::Error::SqliteFailure(ffi::Error::new(code), None))
    }

    #[test]
    fn a_failed_fsync_is_fatal_and_a_full_disk_is_not() {
        assert!(matches!(failure(ffi::SQLITE_IOERR_FSYNC), StoreError::Fatal(_)));
        assert!(matches!(failure(ffi::SQLITE_IOERR_DIR_FSYNC), StoreError::Fatal(_)));
        assert!(matches!(failure(ffi::SQLITE_CORRUPT), StoreError::Fatal(_)));
        for code in [ffi::SQLITE_FULL, ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_READONLY, ffi::SQLITE_CANTOPEN] {
            assert!(matches!(failure(code), StoreError::Unavailable(_)), "{code}");
        }
    }
}
