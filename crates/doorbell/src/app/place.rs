//! Whether the store's file is still the one at its path. A file that is removed or replaced under an open database goes
//! on taking writes, and the next start finds nothing of them: every 202 after that would be a lie. The store itself
//! cannot tell, so the app looks, and stops when it is so.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use doorbell_server::Status;
use tokio_util::sync::CancellationToken;

use super::{Failure, Fatal};

/// Between two looks: as long as events may be accepted that the next start does not find. A look is two `stat`s.
const EVERY: Duration = Duration::from_secs(1);

/// A file system's own number of a file, which no other file has while this one is open.
type Identity = (u64, u64);

/// The files that hold what was accepted, as they were when they were first seen.
pub(super) struct Place(Vec<(PathBuf, Option<Identity>)>);

impl Place {
    /// Of the store at `path`, which is open.
    ///
    /// # Errors
    /// If it cannot be looked at.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        // What was accepted last stands in the logs alone. They are made with the first write at the latest, and then stay.
        let beside = |suffix: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            (PathBuf::from(name), None)
        };
        let known = identity(path)?;
        Ok(Self(vec![(path.to_owned(), Some(known)), beside("-wal"), beside("-acks-a"), beside("-acks-b")]))
    }

    /// The first file that is gone or another one.
    fn lost(&mut self) -> Option<PathBuf> {
        for (path, known) in &mut self.0 {
            match (identity(path), &known) {
                (Ok(now), Some(then)) if now != *then => return Some(path.clone()),
                (Ok(now), _) => *known = Some(now),
                (Err(error), Some(_)) if is_gone(&error) => return Some(path.clone()),
                // Not there yet; or the disk does not say, which the store's own writes will find out.
                (Err(_), _) => {}
            }
        }
        None
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(unix)]
fn identity(path: &Path) -> io::Result<Identity> {
    use std::os::unix::fs::MetadataExt as _;
    let meta = std::fs::metadata(path)?;
    Ok((meta.dev(), meta.ino()))
}

#[cfg(not(unix))]
fn identity(path: &Path) -> io::Result<Identity> {
    std::fs::metadata(path).map(|_| (0, 0))
}

/// Looks until told to stop, or until a file is lost: then nothing more is accepted and the program must end.
pub(super) async fn watch(mut place: Place, status: Arc<Status>, failure: Failure, quit: CancellationToken) {
    loop {
        tokio::select! {
            () = quit.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        if let Some(path) = place.lost() {
            // First of all: from now on senders get a 503 and keep their events.
            status.set_stopping();
            tracing::error!(path = %path.display(), "The store's file was removed or replaced: the process must stop.");
            failure.tell(Fatal::Moved(path));
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_removed_or_replaced_is_lost_and_one_that_grows_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (db, log) = (dir.path().join("a.db"), dir.path().join("a.db-wal"));
        let next = dir.path().join("next");
        std::fs::write(&db, "1").unwrap();
        let mut place = Place::of(&db).unwrap();
        assert_eq!(place.lost(), None, "there is no log yet");
        std::fs::write(&log, "1").unwrap();
        assert_eq!(place.lost(), None);
        std::fs::write(&db, "longer").unwrap();
        assert_eq!(place.lost(), None);
        std::fs::remove_file(&log).unwrap();
        assert_eq!(place.lost(), Some(log));
        std::fs::write(&next, "longer").unwrap();
        std::fs::rename(&next, &db).unwrap();
        assert_eq!(place.lost(), Some(db.clone()));
        std::fs::remove_file(&db).unwrap();
        assert_eq!(place.lost(), Some(db.clone()));
        assert!(Place::of(&db).is_err());
    }
}
