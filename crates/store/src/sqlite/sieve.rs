//! Which prints are surely not in the table, told from memory: a Bloom filter. Nearly every delivery is new, and each would
//! otherwise read the table's pages twice only to learn that; the table's order is random, so nothing of it stays near.
//!
//! It holds every print that is in the table or on the way there, and some that are gone: what it does not have need not be
//! looked up. It is made from the table once rows are written, and again when it has taken in as many as it was made for;
//! meanwhile every print is looked up.

use std::path::Path;
use std::sync::Arc;

use doorbell_core::event::Fingerprint;
use doorbell_core::ports::StoreError;
use rusqlite::Connection;

use super::dedup::whole;
use super::desk::SharedDesk;
use super::errors::sort;
use super::{Shared, schema};

/// It is made for so many prints at the least: 1.3 MB.
const CAPACITY_MIN: usize = 1 << 20;
/// Bits for each print: with [`BITS_SET`] one in a hundred that is not there is looked up all the same.
const BITS_EACH: usize = 10;
/// It never takes more: 64 MiB. Beyond 50 million prints more are looked up in vain.
const BLOCKS_MAX: usize = 1 << 20;
/// Bits set for a print, all in one line of the processor's cache.
const BITS_SET: u32 = 7;
/// Rows read at once from the table: some milliseconds.
const CHUNK: i64 = 10_000;

/// The filter.
pub(super) struct Sieve {
    /// None before the first print: most stores are idle when they are opened.
    blocks: Vec<[u64; 8]>,
    capacity: usize,
    taken: usize,
}

impl Sieve {
    /// One for `count` prints and as many again, before it is full.
    pub(super) fn for_twice(count: usize) -> Self {
        let capacity = count.saturating_mul(2).max(CAPACITY_MIN);
        Self { blocks: Vec::new(), capacity, taken: 0 }
    }

    pub(super) fn insert(&mut self, print: Fingerprint) {
        if self.blocks.is_empty() {
            let blocks = self.capacity.saturating_mul(BITS_EACH).div_ceil(512);
            self.blocks = vec![[0; 8]; blocks.min(BLOCKS_MAX)];
        }
        let (block, bits) = self.place(print);
        for (word, bit) in bits {
            self.blocks[block][word] |= bit;
        }
        self.taken += 1;
    }

    /// False: it was never taken in.
    pub(super) fn may_have(&self, print: Fingerprint) -> bool {
        let (block, mut bits) = self.place(print);
        self.blocks.get(block).is_some_and(|block| bits.all(|(word, bit)| block[word] & bit != 0))
    }

    /// It has taken in as many as it was made for.
    pub(super) fn is_full(&self) -> bool {
        self.taken >= self.capacity
    }

    /// Prints are digests: their bits are as good as any hash of them.
    fn place(&self, print: Fingerprint) -> (usize, impl Iterator<Item = (usize, u64)> + use<>) {
        let number = u128::from_be_bytes(print.0);
        let (high, low) = ((number >> 64) as u64, number as u64);
        let block = ((u128::from(high) * self.blocks.len() as u128) >> 64) as usize;
        let bits = (0..BITS_SET).map(move |n| {
            let bit = (low >> (n * 9)) & 511;
            ((bit >> 6) as usize, 1 << (bit & 63))
        });
        (block, bits)
    }
}

/// Makes one from the table, on a thread of its own, and gives it to the desk, which nobody holds here.
pub(super) fn make_behind(path: &Path, shared: &Arc<Shared>, desk: &Arc<SharedDesk>) {
    let thread = std::thread::Builder::new().name("doorbell-sieve".into()).spawn({
        let (path, shared, desk) = (path.to_owned(), shared.clone(), desk.clone());
        move || {
            if let Err(error) = make(&path, &shared, &desk) {
                go_without(&shared, &desk, &error.to_string());
            }
        }
    });
    if let Err(error) = thread {
        go_without(shared, desk, &error.to_string());
    }
}

fn go_without(shared: &Shared, desk: &SharedDesk, why: &str) {
    tracing::warn!(error = %why, "Until the next start every delivery is looked up in the database, which is slower: no filter could be made.");
    if let Ok(mut guard) = desk.lock(shared)
        && let Some(desk) = guard.as_mut()
    {
        desk.prints.go_without_sieve();
    }
}

fn make(path: &Path, shared: &Shared, desk: &SharedDesk) -> Result<(), StoreError> {
    let conn = schema::open_reader(path)?;
    // Places are evenly spread, so a part of them tells how many there are: to count all would read the whole table.
    let sql = "SELECT count(*) FROM dedup WHERE head < ?1";
    let in_part: i64 = conn.query_row(sql, [i64::MIN + (1 << 54)], |row| row.get(0)).map_err(|e| sort(&e))?;
    let mut sieve = Sieve::for_twice(usize::try_from(in_part).unwrap_or(0) << 10);
    let mut after = None;
    loop {
        // A piece at a time: whoever closes the store waits for no long read.
        let read = fill(&conn, &mut sieve, after).map_err(|e| sort(&e))?;
        let mut guard = desk.lock(shared)?;
        let Some(desk) = guard.as_mut() else { return Ok(()) };
        match read {
            Some(last) => after = Some(last),
            None => {
                desk.prints.take_sieve(sieve);
                return Ok(());
            }
        }
    }
}

/// Takes in the next rows after `after`; gives the place of the last one, or none if there are no more.
fn fill(conn: &Connection, sieve: &mut Sieve, after: Option<i64>) -> rusqlite::Result<Option<i64>> {
    let sql = "SELECT head, rest FROM dedup WHERE head >= ?1 ORDER BY head LIMIT ?2";
    let from = after.map_or(Some(i64::MIN), |after| after.checked_add(1));
    let Some(from) = from else { return Ok(None) };
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([from, CHUNK])?;
    let mut last = None;
    while let Some(row) = rows.next()? {
        let head: i64 = row.get(0)?;
        sieve.insert(whole(head, row.get(1)?));
        last = Some(head);
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::super::dedup::halves;
    use super::*;

    fn print(n: u64) -> Fingerprint {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&blake3::hash(&n.to_le_bytes()).as_bytes()[..16]);
        Fingerprint(bytes)
    }

    #[test]
    fn what_was_taken_in_is_always_found_and_most_others_are_not() {
        let mut sieve = Sieve::for_twice(0);
        let count = CAPACITY_MIN as u64 / 4;
        (0..count).for_each(|n| sieve.insert(print(n)));
        assert!(!sieve.is_full());
        assert!((0..count).all(|n| sieve.may_have(print(n))));
        let others = (count..2 * count).filter(|n| sieve.may_have(print(*n))).count();
        assert!(others < count as usize / 100, "{others} of {count}");
    }

    #[test]
    fn a_place_in_the_table_tells_the_print() {
        for n in 0..1000 {
            let (head, rest) = halves(print(n));
            assert_eq!(whole(head, rest), print(n));
        }
    }
}
