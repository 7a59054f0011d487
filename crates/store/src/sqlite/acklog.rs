//! The ack log: what was accepted, on disk before its rows are. A commit of SQLite writes whole pages, five or more for
//! one event; here an event is its own bytes, appended to a file that is written over again and again, so that an
//! fsync has little to do and no file grows. The rows follow, many events at a time, in a transaction that need not wait
//! for the disk: until they are known to be there, the log has them.
//!
//! Two files take turns. A file is a series of *laps*: a header with the store's tag and the number of the lap, then
//! records. A record carries the lap in its checksum, so that what an earlier lap left behind it is never read. A file
//! may begin a new lap only once the rows of its last one are on disk.
//!
//! At opening, records whose numbers the tables have not given out are written into the tables before anything else.

use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use doorbell_core::StoreTag;
use doorbell_core::ports::StoreError;

use super::backup::parent;
use super::lock::beside;

/// A file that is longer ends its lap. Two such files are made at every start.
const LAP_BYTES: u64 = 4 * 1024 * 1024;
/// Tag of the format, tag of the store, number of the lap, checksum.
const HEADER_BYTES: usize = 8 + 8 + 8 + 4;
const MAGIC: &[u8; 8] = b"DBACK\0\0\x01";
/// Length of the events, checksum, first event, first run, time.
const RECORD_HEADER_BYTES: usize = 4 + 4 + 8 + 8 + 8;
/// The files' names are the database's with these.
pub(super) const SUFFIXES: [&str; 2] = ["-acks-a", "-acks-b"];

/// An admission that was acknowledged: its numbers and its events as [`super::entry`] writes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// The number of its first event; the others follow.
    pub(super) first_event: u64,
    /// The number of its first run; the others follow.
    pub(super) first_run: u64,
    /// When the door decided, in milliseconds since 1970.
    pub(super) at: i64,
    /// Its events.
    pub(super) events: Vec<u8>,
}

/// The two files, one of which is being written.
pub(super) struct AckLog {
    files: [File; 2],
    paths: [PathBuf; 2],
    active: usize,
    tag: StoreTag,
    lap: u64,
    /// Where the next record goes; 0: a lap begins with it.
    at: u64,
    /// Records not yet written.
    buffer: Vec<u8>,
    resting: Resting,
}

/// What the file that is not being written waits for, until it may begin a new lap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resting {
    /// Nothing: the rows of its last lap are on disk.
    Free,
    /// For its rows, up to this event.
    Owed(u64),
    /// For a sync of its rows: the ticket.
    Asked(u64),
}

impl AckLog {
    /// Opens the files of `database`, making them if they are not there, and reads what they hold, oldest first.
    pub(super) fn open(database: &Path, tag: StoreTag) -> Result<(Self, Vec<Record>), StoreError> {
        let paths = SUFFIXES.map(|suffix| beside(database, suffix));
        let open = |path: &Path| {
            let file = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
            file.map_err(|e| StoreError::Unavailable(format!("cannot open {}: {e}", path.display())))
        };
        let files = [open(&paths[0])?, open(&paths[1])?];
        // A file whose name is not on disk is not there after a power cut, whatever was synced into it.
        File::open(parent(database)).and_then(|directory| directory.sync_all()).map_err(|e| {
            StoreError::Unavailable(format!("cannot sync the directory of {}: {e}", database.display()))
        })?;
        let mut laps = Vec::new();
        for (file, path) in files.iter().zip(&paths) {
            let bytes =
                read(file).map_err(|e| StoreError::Unavailable(format!("cannot read {}: {e}", path.display())))?;
            let Some(header) = Header::read(&bytes) else { continue };
            if header.tag != tag.get() {
                return Err(StoreError::Conflict(format!(
                    "{} belongs to another database: move it away if that one is gone for good, or put both back together; it may hold acknowledged events",
                    path.display()
                )));
            }
            laps.push((header.lap, read_lap(&bytes, header.lap)));
        }
        laps.sort_by_key(|(lap, _)| *lap);
        // A torn write may have left records of a lap whose header is not on disk. Numbers that are drawn make sure that no
        // later lap takes them for its own.
        let drawn = RandomState::new().hash_one(()) & u64::from(u32::MAX);
        let lap = laps.last().map_or(0, |(lap, _)| *lap).wrapping_add(drawn);
        let log = Self { files, paths, active: 0, tag, lap, at: 0, buffer: Vec::new(), resting: Resting::Free };
        Ok((log, standing(laps.into_iter().flat_map(|(_, records)| records))))
    }

    /// Makes both files as long as a lap, so that none has to grow while a sender waits.
    pub(super) fn fill(&self) {
        for (file, path) in self.files.iter().zip(&self.paths) {
            if let Err(error) = fill(file) {
                // It grows as it is written, then: slower, and as safe.
                tracing::debug!(error = %error, path = %path.display(), "The ack log was not made long beforehand.");
            }
        }
    }

    /// Whether `bytes` more fit into this lap.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.at + (self.buffer.len() + bytes) as u64 <= LAP_BYTES
    }

    /// Whether `bytes` fit into a lap at all.
    pub(super) fn could_have_room(&self, bytes: usize) -> bool {
        (HEADER_BYTES + bytes) as u64 <= LAP_BYTES
    }

    /// Adds a record to the next [`AckLog::commit`].
    pub(super) fn add(&mut self, first_event: u64, first_run: u64, at: i64, events: &[u8]) {
        if self.at == 0 && self.buffer.is_empty() {
            self.lap += 1;
            self.buffer.extend_from_slice(&Header { tag: self.tag.get(), lap: self.lap }.bytes());
        }
        let mut header = [0; RECORD_HEADER_BYTES];
        header[..4].copy_from_slice(&(events.len() as u32).to_le_bytes());
        header[8..16].copy_from_slice(&first_event.to_le_bytes());
        header[16..24].copy_from_slice(&first_run.to_le_bytes());
        header[24..].copy_from_slice(&at.to_le_bytes());
        let sum = checksum(self.lap, &header, events);
        header[4..8].copy_from_slice(&sum.to_le_bytes());
        self.buffer.extend_from_slice(&header);
        self.buffer.extend_from_slice(events);
    }

    /// Forgets what was added since the last commit.
    pub(super) fn forget(&mut self) {
        self.buffer.clear();
    }

    /// Puts what was added on disk.
    ///
    /// # Errors
    /// If it cannot be written, the lap ends before it. If it cannot be made durable, nobody knows
    /// what is on disk: [`Failed::Sync`] is fatal.
    pub(super) fn commit(&mut self) -> Result<(), Failed> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let file = &self.files[self.active];
        let written = file.write_all_at(&self.buffer, self.at);
        let length = self.buffer.len() as u64;
        self.buffer.clear();
        if let Err(error) = written {
            // What was written of it must not be taken for a continuation of what comes here next.
            self.at = LAP_BYTES;
            return Err(Failed::Write(error));
        }
        file.sync_data().map_err(Failed::Sync)?;
        self.at += length;
        Ok(())
    }

    /// Removes the files: all that they held is in the tables, and the tables are on disk.
    pub(super) fn remove(self) {
        for path in &self.paths {
            if let Err(error) = std::fs::remove_file(path) {
                tracing::debug!(error = %error, "The ack log was not removed; the next opening finds nothing new in it.");
            }
        }
    }

    /// The rows of everything logged so far are on disk: the next record begins a lap.
    pub(super) fn restart(&mut self) {
        self.at = 0;
        self.resting = Resting::Free;
    }

    /// Goes on in the other file, if that one may begin a lap. `synced` is the last ticket that was served; the lap that ends
    /// now holds events up to `last`.
    pub(super) fn switch(&mut self, synced: u64, last: u64) -> bool {
        match self.resting {
            Resting::Owed(_) => return false,
            Resting::Asked(ticket) if synced < ticket => return false,
            Resting::Asked(_) | Resting::Free => {}
        }
        self.resting = Resting::Owed(last);
        self.active = 1 - self.active;
        self.at = 0;
        true
    }

    /// The rows of every event before `owed` are written, or of all if none is owed. If the resting file waited for that,
    /// `ask` asks for them to be put on disk, for a ticket. True if it did.
    pub(super) fn rows_written(&mut self, owed: Option<u64>, ask: impl FnOnce() -> u64) -> bool {
        let Resting::Owed(last) = self.resting else { return false };
        let is_written = owed.is_none_or(|owed| owed > last);
        if is_written {
            self.resting = Resting::Asked(ask());
        }
        is_written
    }
}

/// Why a commit failed.
#[derive(Debug)]
pub(super) enum Failed {
    /// Nothing was acknowledged; it can be tried again.
    Write(io::Error),
    /// What is on disk is not known any more.
    Sync(io::Error),
}

#[derive(Clone, Copy)]
struct Header {
    tag: u64,
    lap: u64,
}

impl Header {
    fn bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..16].copy_from_slice(&self.tag.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.lap.to_le_bytes());
        let sum = crc32fast::hash(&bytes[..24]);
        bytes[24..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let header = Self { tag: number(bytes, 8)?, lap: number(bytes, 16)? };
        (bytes.get(..HEADER_BYTES)? == header.bytes()).then_some(header)
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn small(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Of everything but the checksum itself, and of the lap.
fn checksum(lap: u64, header: &[u8; RECORD_HEADER_BYTES], events: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&lap.to_le_bytes());
    hasher.update(&header[..4]);
    hasher.update(&header[8..]);
    hasher.update(events);
    hasher.finalize()
}

/// Makes the file as long as a lap, with zeros after what it holds: an fsync of a file that does not grow has no blocks to
/// find and no length to write down. Zeros that are really written, since blocks that are only set aside are turned into
/// written ones one by one, at the same cost. If there is no room for them, they are taken away again.
fn fill(file: &File) -> io::Result<()> {
    static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
    let length = file.metadata()?.len();
    let mut at = length;
    let mut write = || -> io::Result<()> {
        while at < LAP_BYTES {
            let count = (LAP_BYTES - at).min(ZEROS.len() as u64);
            file.write_all_at(&ZEROS[..count as usize], at)?;
            at += count;
        }
        file.sync_all()
    };
    if length >= LAP_BYTES {
        return Ok(());
    }
    write().inspect_err(|_| drop(file.set_len(length)))
}

/// What a file holds; nothing if it does not begin with a header.
fn read(file: &File) -> io::Result<Vec<u8>> {
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(0);
    let mut bytes = vec![0; length.min(HEADER_BYTES)];
    file.read_exact_at(&mut bytes, 0)?;
    if Header::read(&bytes).is_some() {
        bytes.resize(length, 0);
        file.read_exact_at(&mut bytes, 0)?;
    }
    Ok(bytes)
}

/// The records that count, of all in the order in which they were written. A number that comes again was not acknowledged
/// the first time: that write failed, after whole records of it.
fn standing(all: impl Iterator<Item = Record>) -> Vec<Record> {
    let mut standing: Vec<Record> = Vec::new();
    for record in all {
        while standing.last().is_some_and(|before| before.first_event >= record.first_event) {
            standing.pop();
        }
        standing.push(record);
    }
    standing
}

/// The whole records of a lap. What follows the last whole one was never acknowledged.
fn read_lap(bytes: &[u8], lap: u64) -> Vec<Record> {
    let mut records = Vec::new();
    let mut at = HEADER_BYTES;
    while let Some((record, next)) = read_record(bytes, at, lap) {
        records.push(record);
        at = next;
    }
    records
}

fn read_record(bytes: &[u8], at: usize, lap: u64) -> Option<(Record, usize)> {
    let header: &[u8; RECORD_HEADER_BYTES] = bytes.get(at..at + RECORD_HEADER_BYTES)?.try_into().ok()?;
    let begin = at + RECORD_HEADER_BYTES;
    let end = begin.checked_add(small(header, 0)? as usize)?;
    let events = bytes.get(begin..end)?;
    if small(header, 4)? != checksum(lap, header, events) {
        return None;
    }
    let record = Record {
        first_event: number(header, 8)?,
        first_run: number(header, 16)?,
        at: number(header, 24)?.cast_signed(),
        events: events.to_vec(),
    };
    Some((record, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path) -> (AckLog, Vec<Record>) {
        AckLog::open(path, StoreTag::new(7)).unwrap()
    }

    fn record(n: u64) -> Record {
        Record { first_event: n, first_run: 10 * n, at: 5, events: vec![n as u8; 100 + n as usize] }
    }

    fn put(log: &mut AckLog, n: u64) {
        let r = record(n);
        log.add(r.first_event, r.first_run, r.at, &r.events);
        log.commit().unwrap();
    }

    #[test]
    fn what_was_committed_is_read_back_and_an_earlier_lap_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("d.db");
        let (mut log, found) = open(&path);
        assert!(found.is_empty());
        (1..=5).for_each(|n| put(&mut log, n));
        assert_eq!(open(&path).1, (1..=5).map(record).collect::<Vec<_>>());
        log.restart();
        put(&mut log, 6);
        assert_eq!(open(&path).1, [record(6)], "the five before it lie behind it, of an earlier lap");
        assert!(log.switch(0, 6));
        put(&mut log, 7);
        assert!(!log.switch(0, 7), "the rows of the first file are not written");
        assert!(!log.rows_written(Some(6), || unreachable!("6 is owed still")));
        assert!(!log.switch(9, 7), "they are not written yet");
        assert!(log.rows_written(Some(7), || 10));
        assert!(!log.switch(9, 7), "they are written, and not known to be on disk");
        assert_eq!(open(&path).1, [record(6), record(7)]);
        assert!(log.switch(10, 7));
        put(&mut log, 8);
        assert_eq!(open(&path).1, [record(7), record(8)]);
    }

    #[test]
    fn a_torn_record_ends_a_lap_wherever_it_is_torn() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("d.db");
        let (mut log, _) = open(&path);
        (1..=2).for_each(|n| put(&mut log, n));
        let file = beside(&path, SUFFIXES[0]);
        let whole = std::fs::read(&file).unwrap();
        let first = HEADER_BYTES + RECORD_HEADER_BYTES + 101;
        for cut in 0..whole.len() {
            std::fs::write(&file, &whole[..cut]).unwrap();
            let expected = usize::from(cut >= first);
            assert_eq!(open(&path).1.len(), expected, "cut at {cut}");
        }
        for flipped in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[flipped] ^= 1;
            std::fs::write(&file, &bytes).unwrap();
            let found = open(&path).1;
            let expected = usize::from(flipped >= first);
            assert_eq!(found, (1..=expected as u64).map(record).collect::<Vec<_>>(), "flipped {flipped}");
        }
    }

    #[test]
    fn a_number_that_comes_again_was_not_acknowledged_before() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("d.db");
        let (mut log, _) = open(&path);
        (1..=4).for_each(|n| put(&mut log, n));
        // As if 3 and 4 were of a write that failed after whole records: their numbers were given to others.
        log.at = LAP_BYTES;
        assert!(!log.has_room(1) && log.switch(0, 1));
        log.add(3, 30, 5, b"another");
        log.commit().unwrap();
        let another = Record { first_event: 3, first_run: 30, at: 5, events: b"another".to_vec() };
        assert_eq!(open(&path).1, [record(1), record(2), another]);
    }

    #[test]
    fn a_file_that_is_made_long_keeps_what_it_holds_and_grows_no_more() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("d.db");
        let (mut log, _) = open(&path);
        put(&mut log, 1);
        log.fill();
        put(&mut log, 2);
        assert!(log.switch(0, 1));
        put(&mut log, 3);
        for suffix in SUFFIXES {
            assert_eq!(std::fs::metadata(beside(&path, suffix)).unwrap().len(), LAP_BYTES);
        }
        assert_eq!(open(&path).1, [record(1), record(2), record(3)]);
    }

    #[test]
    fn another_databases_log_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("d.db");
        put(&mut open(&path).0, 1);
        assert!(matches!(AckLog::open(&path, StoreTag::new(8)), Err(StoreError::Conflict(_))));
    }
}
