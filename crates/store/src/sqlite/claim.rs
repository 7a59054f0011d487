//! Claiming: due runs in the order of their due times over all queues that have free places, one running run a lane.
//!
//! Only rows of the claimable index are read, a chunk a queue at a time, merged by a heap; so a claim costs what it gives,
//! however many runs are queued. The runs' full rows and their events are read after the commit, off this thread, unless
//! they are few: then waking another thread would take longer than reading them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::LazyLock;

use doorbell_core::ports::{Claim, Notice, QueueStats, Work};
use doorbell_core::run::{Lease, State};
use doorbell_core::{Name, RunId, Timestamp};
use rusqlite::{Connection, params};

use super::book::time;
use super::errors::{Fail, corrupt};
use super::lane;
use super::read::{self, View};
use super::rows;
use super::writer::Tx;
use crate::record::Output;

/// So many runs are read by the writer itself.
const FEW: usize = 4;
/// Rows read from a queue at once.
const CHUNK: i64 = 64;

/// What a claim gave, before the full rows are read.
pub(super) struct Taken {
    pub(super) leases: Vec<Lease>,
    pub(super) next_due: Option<Timestamp>,
    /// The full rows, where they are so few that reading them here is sooner done than handing them on.
    pub(super) work: Option<Vec<Work>>,
}

/// A row of the claimable index, with what its lane needs.
#[derive(Clone, Copy)]
struct Candidate {
    due: i64,
    ord: u64,
    seq: u64,
    lane: Option<doorbell_core::lane::LaneId>,
    passed: bool,
}

/// Reads a queue's claimable runs in order, a chunk at a time.
struct Cursor {
    queue: u32,
    rows: VecDeque<Candidate>,
    after: (i64, u64),
    more: bool,
}

impl Cursor {
    fn new(queue: u32) -> Self {
        Self { queue, rows: VecDeque::new(), after: (i64::MIN, 0), more: true }
    }

    fn next(&mut self, conn: &Connection) -> rusqlite::Result<Option<Candidate>> {
        if self.rows.is_empty() && self.more {
            // The limit is written out: SQLite plans a statement anew each time that a bound one could change.
            static SQL: LazyLock<String> = LazyLock::new(|| {
                format!(
                    "SELECT due_at, ord, seq, lane, passed FROM runs INDEXED BY runs_due
                     WHERE state = 0 AND blocked = 0 AND queue = ?1 AND (due_at, ord) > (?2, ?3)
                     ORDER BY due_at, ord LIMIT {CHUNK}"
                )
            });
            let mut statement = conn.prepare_cached(&SQL)?;
            let mut rows = statement.query(params![self.queue, self.after.0, self.after.1.cast_signed()])?;
            while let Some(row) = rows.next()? {
                self.rows.push_back(Candidate {
                    due: row.get(0)?,
                    ord: row.get::<_, i64>(1)?.cast_unsigned(),
                    seq: row.get::<_, i64>(2)?.cast_unsigned(),
                    lane: row.get::<_, Option<i64>>(3)?.map(doorbell_core::lane::LaneId),
                    passed: row.get(4)?,
                });
            }
            self.more = self.rows.len() as i64 == CHUNK;
            if let Some(last) = self.rows.back() {
                self.after = (last.due, last.ord);
            }
        }
        Ok(self.rows.pop_front())
    }
}

/// Free places by the number of an agent's or a trigger's name.
fn places(tx: &Tx<'_, '_>, list: &[(Name, u32)]) -> HashMap<u32, u32> {
    list.iter().filter_map(|(name, free)| tx.book.names().id(name).map(|id| (id, *free))).collect()
}

fn is_free(places: &HashMap<u32, u32>, id: u32) -> bool {
    places.get(&id).is_some_and(|free| *free > 0)
}

fn take_place(places: &mut HashMap<u32, u32>, id: u32) {
    if let Some(free) = places.get_mut(&id) {
        *free -= 1;
    }
}

/// Carries a claim out.
pub(super) fn claim(tx: &mut Tx<'_, '_>, claim: &Claim) -> Result<Taken, Fail> {
    let mut agents = places(tx, &claim.agents);
    let mut triggers = places(tx, &claim.triggers);
    let mut cursors = Vec::new();
    let mut heap = BinaryHeap::new();
    let queues: Vec<_> = tx.book.names().all_queues().collect();
    for (queue, agent, trigger) in queues {
        if tx.book.count(queue).queued == 0 || !is_free(&agents, agent) || !is_free(&triggers, trigger) {
            continue;
        }
        let mut cursor = Cursor::new(queue);
        if let Some(first) = cursor.next(tx.conn)? {
            heap.push(Reverse((first.due, first.ord, cursors.len())));
            cursors.push((cursor, agent, trigger, first));
        }
    }
    let mut taken = Taken { leases: Vec::new(), next_due: None, work: None };
    while let Some(Reverse((due, _, at))) = heap.pop() {
        let (cursor, agent, trigger, candidate) = &mut cursors[at];
        if !is_free(&agents, *agent) || !is_free(&triggers, *trigger) {
            continue;
        }
        let now = *candidate;
        let later = time(due) > claim.now;
        // The row was read before this claim took another of its lane: it waits for that one, not for its time. A passed
        // run falls due at its time, whatever its lane does now.
        if later && (now.passed || lane::may_go(tx, now.lane, false, now.ord)?) {
            taken.next_due = Some(time(due));
            break;
        }
        if later || !lane::may_go(tx, now.lane, now.passed, now.ord)? {
            lane::set_blocked(tx.conn, now.seq, true)?;
        } else if taken.leases.len() >= claim.limit {
            taken.next_due = Some(time(due));
            break;
        } else {
            taken.leases.push(take(tx, now, claim)?);
            take_place(&mut agents, *agent);
            take_place(&mut triggers, *trigger);
        }
        if let Some(next) = cursor.next(tx.conn)? {
            *candidate = next;
            heap.push(Reverse((next.due, next.ord, at)));
        }
    }
    if taken.leases.len() <= FEW {
        let names = tx.shared.names.read().map(|names| names.clone()).unwrap_or_default();
        taken.work = Some(read::work(&View { conn: tx.conn, names, shared: tx.shared }, &taken.leases)?);
    }
    Ok(taken)
}

fn take(tx: &mut Tx<'_, '_>, candidate: Candidate, claim: &Claim) -> Result<Lease, Fail> {
    let found = rows::load(tx.conn, candidate.seq)?;
    let mut record = found.ok_or_else(|| corrupt(format!("run {} is in an index only", candidate.seq)))?;
    record.claim(claim);
    rows::save(tx.conn, &record, &Output::Keep)?;
    tx.book.moved(record.queue, Some(State::Queued), State::Running)?;
    if let Some(lane) = record.lane {
        tx.book.running.insert(lane);
        // A passed run goes before the head, which was free: now it has to wait.
        if candidate.passed {
            block_head(tx, lane, candidate.seq)?;
        }
    }
    let run = RunId::new(record.seq, tx.tag());
    tx.effects.notices.push(Notice::Moved(run, State::Running));
    Ok(Lease { run, token: record.lease })
}

/// Blocks the queued head behind a passed run that now runs (and is unpassed, so it may be found as head itself).
fn block_head(tx: &Tx<'_, '_>, lane: doorbell_core::lane::LaneId, running: u64) -> rusqlite::Result<()> {
    let sql = "SELECT seq FROM runs WHERE shared = 1 AND passed = 0 AND state < 3 AND lane = ?1
               ORDER BY ord LIMIT 2";
    let mut statement = tx.conn.prepare_cached(sql)?;
    let mut rows = statement.query([lane.0])?;
    let mut heads = Vec::new();
    while let Some(row) = rows.next()? {
        heads.push(row.get::<_, i64>(0)?.cast_unsigned());
    }
    if let Some(head) = heads.into_iter().find(|seq| *seq != running) {
        let sql = "UPDATE runs SET blocked = 1 WHERE seq = ?1 AND state = 0";
        tx.conn.prepare_cached(sql)?.execute([head.cast_signed()])?;
    }
    Ok(())
}

/// How every queue stands: counts from memory, the oldest due time from the claimable index.
pub(super) fn stats(tx: &mut Tx<'_, '_>, (): &()) -> Result<Vec<QueueStats>, Fail> {
    let queues: Vec<_> = tx.book.names().all_queues().map(|(queue, ..)| queue).collect();
    let mut list = Vec::with_capacity(queues.len());
    for queue in queues {
        let count = tx.book.count(queue);
        let (agent, trigger) = tx.book.names().queue_names(queue)?;
        let mut oldest_due = None;
        let mut cursor = Cursor::new(queue);
        while count.queued > 0
            && let Some(candidate) = cursor.next(tx.conn)?
        {
            if lane::may_go(tx, candidate.lane, candidate.passed, candidate.ord)? {
                oldest_due = Some(time(candidate.due));
                break;
            }
        }
        list.push(QueueStats {
            agent,
            trigger,
            queued: count.queued,
            running: count.running,
            waiting: count.waiting,
            oldest_due,
        });
    }
    list.sort_by(|a, b| (&a.agent, &a.trigger).cmp(&(&b.agent, &b.trigger)));
    Ok(list)
}
