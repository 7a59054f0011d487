//! Disk space: a reserve file beside the database, so that when the disk is full there is still room to finish what
//! runs and to let retention delete, while accepting is refused (semantics 12).

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::lock::beside;

/// How often the free space is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Watches the free space of the database's file system. Used by whoever holds the desk.
pub(super) struct Space {
    directory: PathBuf,
    reserve: PathBuf,
    reserve_bytes: u64,
    min_free: u64,
    short: bool,
    /// Not even what is small and bounded may be written.
    tight: bool,
    /// There is room for the reserve, and none is there.
    lacks_reserve: bool,
    looked: Option<Instant>,
}

impl Space {
    /// Makes the reserve file if there is room for it.
    pub(super) fn new(database: &Path, reserve_bytes: u64, min_free: u64) -> Self {
        let directory = match database.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let reserve = beside(database, ".reserve");
        let mut space = Self {
            directory,
            reserve,
            reserve_bytes,
            min_free,
            short: false,
            tight: false,
            lacks_reserve: false,
            looked: None,
        };
        space.look();
        space.keep_reserve();
        space
    }

    /// Whether what may wait is to be refused. Asked on the way of every answer: it looks now and then, and writes nothing.
    pub(super) fn is_short(&mut self) -> bool {
        if self.looked.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
            self.look();
        }
        self.short
    }

    /// Whether also the record of what was refused has to wait: half of the room that is kept free is gone.
    pub(super) fn is_tight(&mut self) -> bool {
        self.is_short() && self.tight
    }

    /// Writes the reserve anew if there is room for it again. Megabytes: for the thread that writes the tables.
    pub(super) fn keep_reserve(&mut self) {
        if std::mem::take(&mut self.lacks_reserve) {
            self.refill();
        }
    }

    /// A write found no room: gives the reserve up for what must not wait.
    pub(super) fn ran_out(&mut self) {
        if std::fs::remove_file(&self.reserve).is_ok() {
            tracing::warn!(
                reserve_bytes = self.reserve_bytes,
                "The disk is full; the reserve was given up for finishes and retention."
            );
        }
        self.look();
    }

    fn look(&mut self) {
        self.looked = Some(Instant::now());
        let Ok(stat) = rustix::fs::statvfs(&self.directory) else { return };
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        let has_reserve = std::fs::metadata(&self.reserve).is_ok_and(|m| m.len() >= self.reserve_bytes);
        let missing = if has_reserve { 0 } else { self.reserve_bytes };
        let short = free < self.min_free.saturating_add(missing);
        self.tight = free < self.min_free / 2;
        self.lacks_reserve = !short && !has_reserve && self.reserve_bytes > 0;
        if short != self.short {
            match short {
                true => tracing::warn!(
                    free_bytes = free,
                    "Disk space is short: new events are refused until there is room."
                ),
                false => tracing::info!(free_bytes = free, "There is room on the disk again: new events are taken."),
            }
        }
        self.short = short;
    }

    /// Writes real bytes: a sparse file would reserve nothing.
    fn refill(&self) {
        let write = || -> std::io::Result<()> {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&self.reserve)?;
            let zeros = vec![0u8; 64 * 1024];
            let mut left = self.reserve_bytes;
            while left > 0 {
                let piece = left.min(zeros.len() as u64);
                file.write_all(&zeros[..usize::try_from(piece).unwrap_or(zeros.len())])?;
                left -= piece;
            }
            Ok(())
        };
        if let Err(error) = write() {
            let _ = std::fs::remove_file(&self.reserve);
            tracing::warn!(error = %error, "The reserve of disk space could not be made.");
        }
    }
}
