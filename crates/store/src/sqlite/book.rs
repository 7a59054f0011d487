//! What is kept in memory so that the way of an accepted event needs no question to the database: the next
//! numbers, the small numbers of names and queues, how much of each queue stands where, and which lanes are running.
//!
//! It is a part of the desk. All of it follows from the tables and what is owed, and is read from them at the start and after
//! every rollback of a transaction that held the desk.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, RwLock};

use doorbell_core::lane::LaneId;
use doorbell_core::run::{NewRun, State};
use doorbell_core::{Name, Timestamp};
use rusqlite::{Connection, OptionalExtension};

use super::errors::corrupt;

/// Names and queues by their numbers, shared with the readers.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    by_id: Vec<Option<Name>>,
    ids: HashMap<Name, u32>,
    /// Agent and trigger of each queue.
    queues: Vec<Option<(u32, u32)>>,
    queue_ids: HashMap<(u32, u32), u32>,
}

impl Names {
    /// The name behind a number.
    pub(super) fn name(&self, id: u32) -> rusqlite::Result<Name> {
        let found = self.by_id.get(id as usize).and_then(Clone::clone);
        found.ok_or_else(|| corrupt(format!("there is no name {id}")))
    }

    /// The number of a name, if the store ever met it.
    pub(super) fn id(&self, name: &Name) -> Option<u32> {
        self.ids.get(name).copied()
    }

    /// The same for a name as text.
    pub(super) fn id_of(&self, name: &str) -> Option<u32> {
        self.ids.get(name).copied()
    }

    /// The number of the queue of an agent and a trigger, if the store ever met it.
    pub(super) fn queue_of(&self, agent: &str, trigger: &str) -> Option<u32> {
        let pair = (*self.ids.get(agent)?, *self.ids.get(trigger)?);
        self.queue_ids.get(&pair).copied()
    }

    /// Agent and trigger of a queue, as numbers.
    pub(super) fn queue(&self, id: u32) -> rusqlite::Result<(u32, u32)> {
        let found = self.queues.get(id as usize).copied().flatten();
        found.ok_or_else(|| corrupt(format!("there is no queue {id}")))
    }

    /// Agent and trigger of a queue.
    pub(super) fn queue_names(&self, id: u32) -> rusqlite::Result<(Name, Name)> {
        let (agent, trigger) = self.queue(id)?;
        Ok((self.name(agent)?, self.name(trigger)?))
    }

    /// Every queue: its number, its agent's and its trigger's.
    pub(super) fn all_queues(&self) -> impl Iterator<Item = (u32, u32, u32)> + '_ {
        self.queues.iter().zip(0..).filter_map(|(pair, id)| pair.map(|(agent, trigger)| (id, agent, trigger)))
    }

    fn add_name(&mut self, id: u32, name: Name) {
        set(&mut self.by_id, id, name.clone());
        self.ids.insert(name, id);
    }

    fn add_queue(&mut self, id: u32, pair: (u32, u32)) {
        set(&mut self.queues, id, pair);
        self.queue_ids.insert(pair, id);
    }
}

fn set<T: Clone>(list: &mut Vec<Option<T>>, at: u32, value: T) {
    let at = at as usize;
    if list.len() <= at {
        list.resize(at + 1, None);
    }
    list[at] = Some(value);
}

/// Names as the readers see them. The writer adds a name before the commit that first uses it.
pub(super) type SharedNames = Arc<RwLock<Arc<Names>>>;

/// How many runs of a queue stand where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) queued: u64,
    pub(super) running: u64,
    pub(super) waiting: u64,
}

impl Count {
    fn of(&mut self, state: State) -> Option<&mut u64> {
        match state {
            State::Queued => Some(&mut self.queued),
            State::Running => Some(&mut self.running),
            State::Waiting => Some(&mut self.waiting),
            State::Succeeded | State::Failed | State::Cancelled => None,
        }
    }
}

/// The memory.
pub(super) struct Book {
    shared: SharedNames,
    names: Names,
    next_seq: u64,
    next_run: u64,
    /// The first event and run that the ack log has and the tables have not: the floors stay before them, since by these
    /// a recovery knows what it must write.
    pub(super) owed: Option<(u64, u64)>,
    counts: Vec<Count>,
    queued_by_trigger: HashMap<u32, u64>,
    /// Lanes with a running run.
    pub(super) running: HashSet<LaneId>,
    /// Decisions in the ring of each source; 0 stands for unknown paths.
    pub(super) rings: HashMap<u32, u64>,
}

impl Book {
    /// Reads everything from the tables.
    pub(super) fn read(conn: &Connection, shared: SharedNames) -> rusqlite::Result<Self> {
        let mut names = Names::default();
        let mut statement = conn.prepare("SELECT id, name FROM names")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let name: String = row.get(1)?;
            names.add_name(row.get(0)?, Name::new(&name).map_err(|e| corrupt(e.to_string()))?);
        }
        let mut statement = conn.prepare(r#"SELECT id, agent, "trigger" FROM queues"#)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            names.add_queue(row.get(0)?, (row.get(1)?, row.get(2)?));
        }
        if let Ok(mut seen) = shared.write() {
            *seen = Arc::new(names.clone());
        }
        let mut book = Self {
            shared,
            names,
            next_seq: floor(conn, "next_seq")?.max(top(conn, "events")? + 1).max(top(conn, "decisions")? + 1),
            next_run: floor(conn, "next_run")?.max(top(conn, "runs")? + 1),
            owed: None,
            counts: Vec::new(),
            queued_by_trigger: HashMap::new(),
            running: HashSet::new(),
            rings: HashMap::new(),
        };
        book.read_counts(conn)?;
        Ok(book)
    }

    fn read_counts(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        let mut add = |sql: &str, state: State| -> rusqlite::Result<()> {
            let mut statement = conn.prepare(sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let (queue, count): (u32, i64) = (row.get(0)?, row.get(1)?);
                self.add(queue, state, count)?;
            }
            Ok(())
        };
        // Together they are all queued runs; each is found by an index.
        add("SELECT queue, count(*) FROM runs WHERE state = 0 AND blocked = 0 GROUP BY queue", State::Queued)?;
        add(
            "SELECT queue, count(*) FROM runs INDEXED BY runs_holding
             WHERE shared = 1 AND passed = 0 AND state < 3 AND state = 0 AND blocked = 1 GROUP BY queue",
            State::Queued,
        )?;
        add(
            "SELECT queue, count(*) FROM runs WHERE state = 0 AND passed = 1 AND blocked = 1 GROUP BY queue",
            State::Queued,
        )?;
        add("SELECT queue, count(*) FROM runs WHERE state IN (1, 2, 4) AND state = 1 GROUP BY queue", State::Running)?;
        add("SELECT queue, count(*) FROM runs WHERE state IN (1, 2, 4) AND state = 2 GROUP BY queue", State::Waiting)?;
        let sql = "SELECT lane FROM runs WHERE state IN (1, 2, 4) AND state = 1 AND lane IS NOT NULL";
        let mut statement = conn.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            self.running.insert(LaneId(row.get(0)?));
        }
        let mut statement =
            conn.prepare("SELECT coalesce(source, 0), count(*) FROM decisions WHERE ring = 1 GROUP BY source")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let count: i64 = row.get(1)?;
            self.rings.insert(row.get(0)?, count.cast_unsigned());
        }
        Ok(())
    }

    /// The next place of an event or decision.
    pub(super) fn next_seq(&mut self) -> u64 {
        self.next_seq += 1;
        self.next_seq - 1
    }

    /// The next place of a run, or in a lane.
    pub(super) fn next_run(&mut self) -> u64 {
        self.next_run += 1;
        self.next_run - 1
    }

    /// What [`Book::next_run`] would give.
    pub(super) fn upcoming_run(&self) -> u64 {
        self.next_run
    }

    /// The numbers that the next event and the next run will be given.
    pub(super) fn upcoming(&self) -> (u64, u64) {
        (self.next_seq, self.next_run)
    }

    /// Numbers from these on were given to nobody in the end.
    pub(super) fn go_back_to(&mut self, (next_seq, next_run): (u64, u64)) {
        (self.next_seq, self.next_run) = (next_seq, next_run);
    }

    /// Counts no more new runs that were counted as queued.
    pub(super) fn take_back<'r>(&mut self, runs: impl Iterator<Item = &'r NewRun>) {
        for run in runs {
            if let Some(queue) = self.names.queue_of(run.agent.as_str(), run.trigger.as_str()) {
                // Only a queue without a name could not be counted, and this one has both.
                let _ = self.add(queue, State::Queued, -1);
            }
        }
    }

    /// Numbers before these were given out.
    pub(super) fn pass(&mut self, next_seq: u64, next_run: u64) {
        self.next_seq = self.next_seq.max(next_seq);
        self.next_run = self.next_run.max(next_run);
    }

    /// Writes the counters down, for when the rows that carry the highest numbers go.
    pub(super) fn save_floors(&self, conn: &Connection) -> rusqlite::Result<()> {
        let sql = "INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2";
        let mut put = conn.prepare_cached(sql)?;
        let (next_seq, next_run) = self.owed.unwrap_or((self.next_seq, self.next_run));
        put.execute(rusqlite::params!["next_seq", next_seq.cast_signed()])?;
        put.execute(rusqlite::params!["next_run", next_run.cast_signed()])?;
        Ok(())
    }

    /// The number of a name; writes it down when it is new.
    pub(super) fn intern(&mut self, conn: &Connection, name: &Name) -> rusqlite::Result<u32> {
        if let Some(id) = self.names.id(name) {
            return Ok(id);
        }
        let id = u32::try_from(self.names.by_id.len().max(1)).map_err(|_| corrupt("there are too many names"))?;
        conn.execute("INSERT INTO names (id, name) VALUES (?1, ?2)", rusqlite::params![id, name.as_str()])?;
        self.names.add_name(id, name.clone());
        self.share(|names| names.add_name(id, name.clone()));
        Ok(id)
    }

    /// [`Book::intern`] for a name that is mostly known.
    pub(super) fn intern_str(&mut self, conn: &Connection, name: &str) -> rusqlite::Result<u32> {
        match self.names.id_of(name) {
            Some(id) => Ok(id),
            None => self.intern(conn, &Name::new(name).map_err(|e| corrupt(e.to_string()))?),
        }
    }

    /// [`Book::queue`] for names that are mostly known.
    pub(super) fn queue_str(&mut self, conn: &Connection, agent: &str, trigger: &str) -> rusqlite::Result<u32> {
        let name = |text: &str| Name::new(text).map_err(|e| corrupt(e.to_string()));
        match self.names.queue_of(agent, trigger) {
            Some(id) => Ok(id),
            None => self.queue(conn, &name(agent)?, &name(trigger)?),
        }
    }

    /// The number of an agent's queue for a trigger.
    pub(super) fn queue(&mut self, conn: &Connection, agent: &Name, trigger: &Name) -> rusqlite::Result<u32> {
        let pair = (self.intern(conn, agent)?, self.intern(conn, trigger)?);
        if let Some(id) = self.names.queue_ids.get(&pair) {
            return Ok(*id);
        }
        let id = u32::try_from(self.names.queues.len().max(1)).map_err(|_| corrupt("there are too many queues"))?;
        let sql = r#"INSERT INTO queues (id, agent, "trigger") VALUES (?1, ?2, ?3)"#;
        conn.execute(sql, rusqlite::params![id, pair.0, pair.1])?;
        self.names.add_queue(id, pair);
        self.share(|names| names.add_queue(id, pair));
        Ok(id)
    }

    /// Names and queues.
    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    /// How a queue stands.
    pub(super) fn count(&self, queue: u32) -> Count {
        self.counts.get(queue as usize).copied().unwrap_or_default()
    }

    /// Runs of a trigger that are queued, over all agents.
    pub(super) fn queued_of(&self, trigger: &Name) -> u64 {
        self.names.id(trigger).and_then(|id| self.queued_by_trigger.get(&id)).copied().unwrap_or(0)
    }

    /// A run of `queue` came to `to` (from `from`, unless it is new).
    pub(super) fn moved(&mut self, queue: u32, from: Option<State>, to: State) -> rusqlite::Result<()> {
        if let Some(from) = from {
            self.add(queue, from, -1)?;
        }
        self.add(queue, to, 1)
    }

    fn add(&mut self, queue: u32, state: State, by: i64) -> rusqlite::Result<()> {
        let at = queue as usize;
        if self.counts.len() <= at {
            self.counts.resize(at + 1, Count::default());
        }
        if let Some(count) = self.counts[at].of(state) {
            *count = count.saturating_add_signed(by);
        }
        if state == State::Queued {
            let (_, trigger) = self.names.queue(queue)?;
            let count = self.queued_by_trigger.entry(trigger).or_default();
            *count = count.saturating_add_signed(by);
        }
        Ok(())
    }

    fn share(&self, change: impl FnOnce(&mut Names)) {
        if let Ok(mut names) = self.shared.write() {
            change(Arc::make_mut(&mut names));
        }
    }
}

fn floor(conn: &Connection, name: &str) -> rusqlite::Result<u64> {
    let sql = "SELECT value FROM meta WHERE name = ?1";
    let found: Option<i64> = conn.query_row(sql, [name], |row| row.get(0)).optional()?;
    Ok(found.map_or(1, i64::cast_unsigned))
}

fn top(conn: &Connection, table: &str) -> rusqlite::Result<u64> {
    let found: i64 = conn.query_row(&format!("SELECT coalesce(max(seq), 0) FROM {table}"), [], |row| row.get(0))?;
    Ok(found.cast_unsigned())
}

/// A time as kept in a column.
pub(super) fn time(at: i64) -> Timestamp {
    Timestamp::from_millis(at)
}
