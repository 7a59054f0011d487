//! Which deliveries were seen: fingerprint to event.
//!
//! Fingerprints are random, so each one put into a large table would dirty a page of its own: 4 KiB of log for 30 bytes.
//! So new prints stay in memory first and move to the table later, many neighbours at a time, as in a log-structured
//! merge tree: `young` takes new ones; once it is large it becomes `moving`, in the order of the table, of which every
//! transaction moves a slice (twice as many as it adds, so that `moving` is empty before `young` is large again).
//!
//! Nothing is lost in a crash: the prints stand in their events' rows too, and `meta.dedup_floor` says from which event on
//! they may not have been moved. At opening these are read back into `young`; moving one twice changes nothing.

use std::collections::HashMap;
use std::time::Duration;

use doorbell_core::Timestamp;
use doorbell_core::event::Fingerprint;
use rusqlite::{Connection, OptionalExtension, Statement, params};

use super::book::time;
use super::sieve::Sieve;
use crate::record::within;

/// So many young prints begin to move: some five megabytes, and half a second to read back.
const YOUNG_MAX: usize = 64 * 1024;
/// A transaction moves at least so many while there are any.
const MOVE_MIN: usize = 16;

/// The kept prints that are not, or not only, in the table.
pub(super) struct Prints {
    young: HashMap<Fingerprint, Seen>,
    /// The event of the first young print.
    young_from: Option<u64>,
    /// The event of the first moving print.
    moving_from: Option<u64>,
    /// In the table's order; those before `moved` are in the table, or in the transaction that is being written.
    moving: Vec<(Fingerprint, Seen)>,
    moved: usize,
    /// Added since the last slice, and on disk in the ack log.
    owed: usize,
    /// What was done since [`Prints::keep`] or [`Prints::logged`], to be undone by [`Prints::forget`].
    step: Step,
    sieve: Sifting,
}

/// Whether what is in the table can be told without a look.
enum Sifting {
    /// It can.
    With(Sieve),
    /// A sieve is being made: what moved meanwhile.
    Soon(Vec<Fingerprint>),
    /// Somebody should make one.
    Without,
    /// None can be made.
    Never,
}

#[derive(Default)]
struct Step {
    added: Vec<(Fingerprint, Option<Seen>)>,
    moved_before: usize,
    young_from_before: Option<u64>,
}

/// Who left a print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) event: u64,
    pub(super) at: Timestamp,
}

/// Prints on their way into the table.
#[derive(Default)]
pub(super) struct Slice {
    prints: Vec<(Fingerprint, Seen)>,
    /// What the floor becomes with them.
    floor: Option<u64>,
    /// What was owed when it was cut.
    owed: usize,
}

/// Puts prints into the table, inside a transaction.
pub(super) struct Writes<'c> {
    put: Statement<'c>,
    set_floor: Statement<'c>,
}

impl<'c> Writes<'c> {
    pub(super) fn new(conn: &'c Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            put: conn.prepare("INSERT OR REPLACE INTO dedup (head, rest, event, at) VALUES (?1, ?2, ?3, ?4)")?,
            set_floor: conn.prepare(
                "INSERT INTO meta (name, value) VALUES ('dedup_floor', ?1)
                 ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            )?,
        })
    }

    pub(super) fn write(&mut self, slice: &Slice) -> rusqlite::Result<()> {
        for (print, seen) in &slice.prints {
            let (head, rest) = halves(*print);
            self.put.execute([head, rest, seen.event.cast_signed(), seen.at.millis()])?;
        }
        if let Some(floor) = slice.floor {
            self.set_floor.execute([floor.cast_signed()])?;
        }
        Ok(())
    }
}

impl Prints {
    /// Reads back what a former process had not moved.
    pub(super) fn read(conn: &Connection) -> rusqlite::Result<Self> {
        let mut prints = Self {
            young: HashMap::new(),
            young_from: None,
            moving_from: None,
            moving: Vec::new(),
            moved: 0,
            owed: 0,
            step: Step::default(),
            sieve: Sifting::Without,
        };
        if !conn.prepare("SELECT 1 FROM dedup LIMIT 1")?.exists([])? {
            prints.sieve = Sifting::With(Sieve::for_twice(0));
        }
        let mut statement =
            conn.prepare("SELECT seq, at, prints FROM events WHERE seq >= ?1 AND prints IS NOT NULL ORDER BY seq")?;
        let mut rows = statement.query([floor(conn)?.cast_signed()])?;
        while let Some(row) = rows.next()? {
            let seen = Seen { event: row.get::<_, i64>(0)?.cast_unsigned(), at: time(row.get(1)?) };
            prints.put_row(row.get_ref(2)?.as_blob()?, seen);
        }
        prints.mark();
        Ok(prints)
    }

    /// Who left this print last, however long ago. `conn` sees every commit before this call.
    pub(super) fn get(&self, conn: &Connection, print: Fingerprint) -> rusqlite::Result<Option<Seen>> {
        if let Some(seen) = self.young.get(&print) {
            return Ok(Some(*seen));
        }
        if let Ok(at) = self.moving.binary_search_by_key(&print, |(p, _)| *p) {
            return Ok(Some(self.moving[at].1));
        }
        if let Sifting::With(sieve) = &self.sieve
            && !sieve.may_have(print)
        {
            return Ok(None);
        }
        let row =
            |row: &rusqlite::Row<'_>| Ok(Seen { event: row.get::<_, i64>(0)?.cast_unsigned(), at: time(row.get(1)?) });
        let (head, rest) = halves(print);
        let sql = "SELECT event, at FROM dedup WHERE head = ?1 AND rest = ?2";
        conn.prepare_cached(sql)?.query_row([head, rest], row).optional()
    }

    /// Keeps a print; an older one of the same bytes gives way. The event's row must carry it too.
    pub(super) fn put(&mut self, print: Fingerprint, seen: Seen) {
        let before = self.young.insert(print, seen);
        self.young_from.get_or_insert(seen.event);
        self.step.added.push((print, before));
    }

    /// Keeps the prints of an event's row.
    pub(super) fn put_row(&mut self, prints: &[u8], seen: Seen) {
        for print in prints.chunks_exact(16) {
            let mut bytes = [0; 16];
            bytes.copy_from_slice(print);
            self.put(Fingerprint(bytes), seen);
        }
    }

    /// A transaction begins: the young ones begin to move once they are many.
    pub(super) fn begin(&mut self) {
        self.begin_moving(YOUNG_MAX);
    }

    /// Cuts what the transaction that is being written moves of the older prints; once in each.
    pub(super) fn slice(&mut self) -> Slice {
        let owed = std::mem::take(&mut self.owed);
        let slice = self.cut((2 * (self.step.added.len() + owed)).max(MOVE_MIN));
        Slice { owed, ..slice }
    }

    /// The same for a transaction that is written while others admit: there is nothing to undo but the slice itself.
    pub(super) fn slice_apart(&mut self) -> Slice {
        let slice = self.slice();
        self.mark();
        slice
    }

    /// Moves up to `limit` prints, also when there are few: for quiet times. Second: whether more could be moved now.
    pub(super) fn tidy(&mut self, limit: usize) -> (Slice, bool) {
        self.begin_moving(1);
        let slice = self.cut(limit);
        (slice, self.moved < self.moving.len())
    }

    /// The events from this place on may have prints that only their rows keep: they must not be deleted yet.
    pub(super) fn floor(&self) -> u64 {
        let moving = self.moving_from.filter(|_| self.moved < self.moving.len());
        moving.or(self.young_from).unwrap_or(u64::MAX)
    }

    /// The transaction is committed.
    pub(super) fn keep(&mut self) {
        if self.moved == self.moving.len() {
            self.moving = Vec::new();
            self.moving_from = None;
            self.moved = 0;
        }
        self.mark();
    }

    /// What was added since the last call is on disk in the ack log.
    pub(super) fn logged(&mut self) {
        self.owed += self.step.added.len();
        self.mark();
    }

    /// What was done since the last [`Prints::keep`] or [`Prints::logged`] is undone.
    pub(super) fn forget(&mut self) {
        self.moved = self.step.moved_before;
        self.young_from = self.step.young_from_before;
        for (print, before) in std::mem::take(&mut self.step.added).into_iter().rev() {
            match before {
                Some(seen) => self.young.insert(print, seen),
                None => self.young.remove(&print),
            };
        }
        self.mark();
    }

    /// A slice that was cut with [`Prints::slice_apart`] did not get into the table.
    pub(super) fn put_back(&mut self, slice: &Slice) {
        self.moved -= slice.prints.len();
        self.owed += slice.owed;
        self.mark();
    }

    /// Whether a sieve is to be made, by whoever asks first: it must hold all that is in the table now or was moved since.
    pub(super) fn wants_sieve(&mut self) -> bool {
        let wants = matches!(self.sieve, Sifting::Without);
        if wants {
            self.sieve = Sifting::Soon(Vec::new());
        }
        wants
    }

    /// Takes a sieve that holds all that was in the table when it was asked for.
    pub(super) fn take_sieve(&mut self, mut sieve: Sieve) {
        let Sifting::Soon(moved) = std::mem::replace(&mut self.sieve, Sifting::Without) else { return };
        moved.into_iter().for_each(|print| sieve.insert(print));
        self.sieve = Sifting::With(sieve);
    }

    /// The sieve that was asked for could not be made.
    pub(super) fn go_without_sieve(&mut self) {
        self.sieve = Sifting::Never;
    }

    /// What a rollback goes back to.
    fn mark(&mut self) {
        self.step.added.clear();
        self.step.moved_before = self.moved;
        self.step.young_from_before = self.young_from;
    }

    /// Never with prints that may yet be undone.
    fn begin_moving(&mut self, from: usize) {
        if !self.moving.is_empty() || self.young.len() < from || !self.step.added.is_empty() {
            return;
        }
        self.moving = self.young.drain().collect();
        self.moving.sort_unstable_by_key(|(print, _)| *print);
        self.moving_from = self.young_from.take();
        self.moved = 0;
        self.mark();
    }

    fn cut(&mut self, count: usize) -> Slice {
        if self.moved == self.moving.len() {
            return Slice::default();
        }
        let end = (self.moved + count).min(self.moving.len());
        let prints = self.moving[self.moved..end].to_vec();
        self.moved = end;
        // Also if they do not come to be there: one too many is looked up in vain.
        match &mut self.sieve {
            Sifting::With(sieve) => prints.iter().for_each(|(print, _)| sieve.insert(*print)),
            Sifting::Soon(moved) => moved.extend(prints.iter().map(|(print, _)| *print)),
            Sifting::Without | Sifting::Never => {}
        }
        if let Sifting::With(sieve) = &self.sieve
            && sieve.is_full()
        {
            self.sieve = Sifting::Without;
        }
        // All that moves is in the table then: what only memory and rows keep begins with the young ones.
        let floor = (end == self.moving.len()).then(|| {
            let after = self.moving.iter().map(|(_, seen)| seen.event + 1).max().unwrap_or(0);
            self.young_from.unwrap_or(after)
        });
        Slice { prints, floor, owed: 0 }
    }
}

/// A print as the table keeps it: two integers, the first of which is the row's place. Prints that share only the first
/// (one in 2^64 pairs) replace each other: the older one is forgotten, and never taken for the newer.
pub(super) fn halves(print: Fingerprint) -> (i64, i64) {
    let whole = u128::from_be_bytes(print.0);
    // The sign bit is turned, so that the order of prints is the order of places.
    let head = ((whole >> 64) as u64) ^ (1 << 63);
    (head.cast_signed(), (whole as u64).cast_signed())
}

/// The print of a row: [`halves`] turned back.
pub(super) fn whole(head: i64, rest: i64) -> Fingerprint {
    let high = u128::from(head.cast_unsigned() ^ (1 << 63));
    Fingerprint(((high << 64) | u128::from(rest.cast_unsigned())).to_be_bytes())
}

fn floor(conn: &Connection) -> rusqlite::Result<u64> {
    let sql = "SELECT value FROM meta WHERE name = 'dedup_floor'";
    let floor: Option<i64> = conn.query_row(sql, [], |row| row.get(0)).optional()?;
    Ok(floor.unwrap_or(0).cast_unsigned())
}

/// Where a round over all prints stands. There is no index on their age, since it would cost every accepted event; so
/// retention walks them in their own order, and begins a round only when a 64th of the retention is over since the
/// oldest one left fell due. What is too old is no hit meanwhile: [`Prints::get`]'s caller looks at the age.
#[derive(Debug, Default)]
pub(super) struct Round {
    after: Option<i64>,
    oldest_so_far: Option<Timestamp>,
    /// The oldest print left by the last whole round; none: there was no round yet.
    oldest: Option<Timestamp>,
}

/// What one step of a round did.
pub(super) struct Stepped {
    pub(super) gone: u64,
    pub(super) more: bool,
}

/// Looks at up to `limit` prints and deletes those older than `keep`.
pub(super) fn sweep(
    conn: &Connection,
    round: &mut Round,
    now: Timestamp,
    keep: Duration,
    limit: usize,
) -> rusqlite::Result<Stepped> {
    let idle = Stepped { gone: 0, more: false };
    if round.after.is_none() && round.oldest.is_some_and(|oldest| now.since(oldest) <= keep + keep / 64) {
        return Ok(idle);
    }
    let found: Vec<(i64, i64)> = {
        let sql = "SELECT head, at FROM dedup WHERE head > ?1 ORDER BY head LIMIT ?2";
        let after = round.after.unwrap_or(i64::MIN);
        let mut statement = conn.prepare_cached(sql)?;
        let rows = statement.query_map(params![after, i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
        rows.collect::<rusqlite::Result<_>>()?
    };
    let mut stepped = Stepped { gone: 0, more: found.len() == limit };
    let mut delete = conn.prepare_cached("DELETE FROM dedup WHERE head = ?1")?;
    for (head, at) in &found {
        if within(time(*at), now, keep) {
            round.oldest_so_far = Some(round.oldest_so_far.map_or(time(*at), |oldest| oldest.min(time(*at))));
        } else {
            stepped.gone += delete.execute([head])? as u64;
        }
    }
    if stepped.more {
        round.after = found.last().map(|(head, _)| *head);
    } else {
        round.after = None;
        round.oldest = Some(round.oldest_so_far.take().unwrap_or(now));
    }
    Ok(stepped)
}
