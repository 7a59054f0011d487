//! The tables of the memory store and the moves on them. Written for being plainly right: lanes are looked through whole,
//! nothing is cached, and every rule stands where it acts.

use std::collections::{BTreeMap, HashMap};

use doorbell_core::decision::{Decision, Kind, NewDecision};
use doorbell_core::event::{Admission, Event, Fingerprint, NewEvent, OnDuplicateFailed, Receipt, SeenBy};
use doorbell_core::lane::LaneId;
use doorbell_core::ports::{Claim, Finished, Flag, LogPiece, Notice, Retention, StoreError, Swept};
use doorbell_core::run::{Lease, NewRun, State, Transition};
use doorbell_core::{DecisionId, EventId, Name, RunId, StoreTag, Timestamp};

use super::edge::Edge;
use super::secrets::Secrets;
use crate::record::{Output, Record, duplicate_decision, within};

/// A run: its moving part, and what never changes.
pub(super) struct StoredRun {
    pub(super) record: Record,
    pub(super) source: Name,
    pub(super) event_type: String,
    pub(super) agent: Name,
    pub(super) trigger: Name,
    pub(super) key: Option<String>,
    pub(super) title: String,
    pub(super) flag: Option<String>,
    pub(super) output: Option<bytes::Bytes>,
    pub(super) log: Vec<LogPiece>,
}

pub(super) struct StoredEvent {
    pub(super) event: Event,
    /// The runs it was accepted with, then replays.
    runs: Vec<u64>,
    accepted_with: usize,
}

pub(super) struct StoredDecision {
    pub(super) decision: Decision,
    in_ring: bool,
}

/// Everything.
pub(super) struct Tables {
    pub(super) tag: StoreTag,
    next_seq: u64,
    next_run: u64,
    pub(super) events: BTreeMap<u64, StoredEvent>,
    pub(super) runs: BTreeMap<u64, StoredRun>,
    pub(super) decisions: BTreeMap<u64, StoredDecision>,
    prints: HashMap<Fingerprint, (u64, Timestamp)>,
    pub(super) flags: BTreeMap<(u8, Name), (Flag, bool)>,
    pub(super) edge: Edge,
    pub(super) secrets: Secrets,
    retention: Retention,
    /// What is told once the lock is let go.
    pub(super) notices: Vec<Notice>,
    pub(super) ready: bool,
}

/// How a lane stands.
#[derive(Clone, Copy, Default)]
pub(super) struct Lane {
    /// Its running run.
    pub(super) running: Option<u64>,
    /// Place and number of the oldest unfinished run that is not passed.
    pub(super) head: Option<(u64, u64)>,
}

impl Tables {
    pub(super) fn new(tag: StoreTag) -> Self {
        Self {
            tag,
            next_seq: 1,
            next_run: 1,
            events: BTreeMap::new(),
            runs: BTreeMap::new(),
            decisions: BTreeMap::new(),
            prints: HashMap::new(),
            flags: BTreeMap::new(),
            edge: Edge::default(),
            secrets: Secrets::default(),
            retention: Retention::default(),
            notices: Vec::new(),
            ready: false,
        }
    }

    pub(super) fn lanes(&self) -> HashMap<LaneId, Lane> {
        let mut lanes: HashMap<LaneId, Lane> = HashMap::new();
        for run in self.runs.values().filter(|run| !run.record.state.is_final()) {
            let record = &run.record;
            let Some(id) = record.lane else { continue };
            let lane = lanes.entry(id).or_default();
            if record.state == State::Running {
                lane.running = Some(record.seq);
            }
            let place = (record.ord, record.seq);
            if !record.passed && lane.head.is_none_or(|head| place < head) {
                lane.head = Some(place);
            }
        }
        lanes
    }

    fn queued_of(&self, trigger: &Name) -> u64 {
        self.runs.values().filter(|run| run.record.state == State::Queued && run.trigger == *trigger).count() as u64
    }

    // ---- accepting ----

    pub(super) fn accept(&mut self, admission: &Admission) -> Result<Vec<Receipt>, StoreError> {
        let standings = self.stand(admission);
        let new = admission.events.iter().zip(&standings).filter(|(_, copy)| copy.is_none());
        self.refuse_over_limit(new.flat_map(|(event, _)| &event.runs))?;
        let mut places: Vec<u64> = Vec::new();
        let mut receipts = Vec::new();
        for (event, copy) in admission.events.iter().zip(standings) {
            let (place, receipt) = match copy {
                None => self.insert(event, admission.at),
                Some((First::Known(of), by)) => (of, self.duplicate(event, of, by, admission.at)?),
                Some((First::Earlier(index), by)) => {
                    let of = places.get(index).copied().unwrap_or_default();
                    (of, self.duplicate(event, of, by, admission.at)?)
                }
            };
            places.push(place);
            receipts.push(receipt);
        }
        Ok(receipts)
    }

    fn stand(&self, admission: &Admission) -> Vec<Option<(First, SeenBy)>> {
        let keep = self.retention.dedup;
        let mut earlier: HashMap<Fingerprint, usize> = HashMap::new();
        let mut standings = Vec::new();
        for (index, event) in admission.events.iter().enumerate() {
            let key = event.dedup.key.map(|print| (print, keep, SeenBy::Key));
            let replay = event.dedup.replay.map(|(print, window)| (print, window.min(keep), SeenBy::Replay));
            let checks: Vec<_> = key.into_iter().chain(replay).collect();
            let standing = checks.iter().find_map(|(print, window, by)| {
                if let Some(first) = earlier.get(print) {
                    return Some((First::Earlier(*first), *by));
                }
                let (of, at) = self.prints.get(print)?;
                within(*at, admission.at, *window).then_some((First::Known(*of), *by))
            });
            if standing.is_none() && event.verdict == Kind::Accepted {
                earlier.extend(checks.iter().map(|(print, ..)| (*print, index)));
            }
            standings.push(standing);
        }
        standings
    }

    fn refuse_over_limit<'r>(&self, runs: impl Iterator<Item = &'r NewRun>) -> Result<(), StoreError> {
        let mut joining: HashMap<&Name, u64> = HashMap::new();
        for run in runs {
            let more = joining.entry(&run.trigger).or_default();
            if let Some(limit) = run.max_queued
                && self.queued_of(&run.trigger) + *more >= u64::from(limit)
            {
                return Err(StoreError::QueueFull { trigger: run.trigger.clone(), limit });
            }
            *more += 1;
        }
        Ok(())
    }

    fn insert(&mut self, new: &NewEvent, at: Timestamp) -> (u64, Receipt) {
        let seq = self.next_seq;
        self.next_seq += 1;
        let id = EventId::new(seq, self.tag);
        let event = Event {
            id,
            source: new.source.clone(),
            verdict: new.verdict,
            event_type: new.event_type.clone(),
            subject: new.subject.clone(),
            remote: new.remote,
            facts: new.facts.clone(),
            received_at: at,
            body_format: new.body_format,
            body: Some(new.body.clone()),
            body_len: new.body.len() as u64,
        };
        let runs = self.insert_runs(&event, &new.runs, at);
        let accepted_with = runs.len();
        let places = runs.iter().map(|run| run.seq).collect();
        self.events.insert(seq, StoredEvent { event, runs: places, accepted_with });
        if new.verdict == Kind::Accepted {
            for print in new.dedup.key.into_iter().chain(new.dedup.replay.map(|(print, _)| print)) {
                self.prints.insert(print, (seq, at));
            }
        }
        (seq, Receipt::Stored { event: id, runs })
    }

    fn insert_runs(&mut self, event: &Event, runs: &[NewRun], at: Timestamp) -> Vec<RunId> {
        let mut ids = Vec::new();
        for new in runs {
            let seq = self.next_run;
            self.next_run += 1;
            let id = RunId::new(seq, self.tag);
            let run = StoredRun {
                record: Record::new(seq, event.id.seq, new, at),
                source: event.source.clone(),
                event_type: event.event_type.clone(),
                agent: new.agent.clone(),
                trigger: new.trigger.clone(),
                key: new.key.clone(),
                title: new.title.clone(),
                flag: new.flag.clone(),
                output: None,
                log: Vec::new(),
            };
            self.runs.insert(seq, run);
            self.ready = true;
            ids.push(id);
        }
        ids
    }

    fn duplicate(&mut self, event: &NewEvent, first: u64, by: SeenBy, at: Timestamp) -> Result<Receipt, StoreError> {
        let accepted = self.events.get(&first).map(|stored| stored.runs[..stored.accepted_with].to_vec());
        let mut runs = Vec::new();
        for seq in accepted.unwrap_or_default() {
            let id = RunId::new(seq, self.tag);
            let failed = self.runs.get(&seq).is_some_and(|run| run.record.state == State::Failed);
            if failed && event.dedup.on_failed == OnDuplicateFailed::Retry {
                self.requeue(id, "the sender delivered it again".into(), at)?;
            }
            if let Some(run) = self.runs.get(&seq) {
                runs.push((run.trigger.clone(), id, run.record.state));
            }
        }
        let id = EventId::new(first, self.tag);
        self.decide(&duplicate_decision(event, id, by, at), false);
        Ok(Receipt::Duplicate { event: id, runs, by })
    }

    // ---- decisions ----

    pub(super) fn decide(&mut self, new: &NewDecision, in_ring: bool) {
        let seq = self.next_seq;
        self.next_seq += 1;
        let decision = Decision {
            id: DecisionId::new(seq, self.tag),
            source: new.source.clone(),
            kind: new.kind,
            code: new.code.clone().into_owned(),
            reason: new.reason.clone().into_owned(),
            checks: new.checks.clone(),
            event_id: new.event,
            remote: new.remote,
            created_at: new.at,
        };
        self.decisions.insert(seq, StoredDecision { decision, in_ring });
        if in_ring {
            self.cut_ring(&new.source, 2 * self.retention.ring as usize, self.retention.ring as usize);
        }
    }

    /// If the ring of a source holds more than `over`, cuts it to its newest `keep`.
    fn cut_ring(&mut self, source: &Option<Name>, over: usize, keep: usize) -> u64 {
        let of = |stored: &&StoredDecision| stored.in_ring && stored.decision.source == *source;
        let count = self.decisions.values().filter(of).count();
        if count <= over {
            return 0;
        }
        let gone: Vec<u64> =
            self.decisions.values().filter(of).take(count - keep.min(count)).map(|d| d.decision.id.seq).collect();
        for seq in &gone {
            self.decisions.remove(seq);
        }
        gone.len() as u64
    }

    // ---- claiming and ending ----

    pub(super) fn claim(&mut self, claim: &Claim) -> (Vec<Lease>, Option<Timestamp>) {
        let mut agents: HashMap<&Name, u32> = claim.agents.iter().map(|(name, free)| (name, *free)).collect();
        let mut triggers: HashMap<&Name, u32> = claim.triggers.iter().map(|(name, free)| (name, *free)).collect();
        let mut lanes = self.lanes();
        let mut queued: Vec<(Timestamp, u64, u64)> = self
            .runs
            .values()
            .filter(|run| run.record.state == State::Queued)
            .map(|run| (run.record.due_at, run.record.ord, run.record.seq))
            .collect();
        queued.sort_unstable();
        let mut leases = Vec::new();
        for (due, _, seq) in queued {
            let Some(run) = self.runs.get_mut(&seq) else { continue };
            let free = |places: &HashMap<&Name, u32>, name: &Name| places.get(name).is_some_and(|free| *free > 0);
            if !free(&agents, &run.agent) || !free(&triggers, &run.trigger) {
                continue;
            }
            let later = due > claim.now;
            // A passed run that is not due yet falls due at its time, whatever its lane does now.
            let comes_due = later && run.record.passed;
            if !comes_due && !may_go(&lanes, &run.record) {
                continue;
            }
            if later || leases.len() >= claim.limit {
                return (leases, Some(due));
            }
            run.record.claim(claim);
            if let Some(lane) = run.record.lane.and_then(|lane| lanes.get_mut(&lane)) {
                lane.running = Some(seq);
            }
            for (places, name) in [(&mut agents, &run.agent), (&mut triggers, &run.trigger)] {
                if let Some(free) = places.get_mut(name) {
                    *free -= 1;
                }
            }
            let id = RunId::new(seq, self.tag);
            leases.push(Lease { run: id, token: run.record.lease });
            self.notices.push(Notice::Moved(id, State::Running));
        }
        (leases, None)
    }

    /// The run, if the lease is its latest and it runs.
    pub(super) fn held(&mut self, lease: Lease) -> Option<&mut StoredRun> {
        let ours = lease.run.store == self.tag;
        self.runs.get_mut(&lease.run.seq).filter(|run| ours && run.record.held_with(lease.token))
    }

    pub(super) fn finish(&mut self, lease: Lease, transition: &Transition, now: Timestamp) -> Finished {
        let Some(run) = self.held(lease) else { return Finished::Fenced };
        match run.record.finish(transition, now) {
            Output::Keep => {}
            Output::Set(output) => run.output = Some(output),
            Output::Clear => run.output = None,
        }
        let state = run.record.state;
        self.ready = true;
        self.notices.push(Notice::Moved(lease.run, state));
        Finished::Done
    }

    fn known(&mut self, run: RunId) -> Result<&mut StoredRun, StoreError> {
        let ours = run.store == self.tag;
        let found = self.runs.get_mut(&run.seq).filter(|_| ours);
        found.ok_or_else(|| StoreError::NotFound(format!("run {run}")))
    }

    pub(super) fn cancel(&mut self, run: RunId, by: &str, now: Timestamp) -> Result<State, StoreError> {
        let record = &mut self.known(run)?.record;
        let was_final = record.state.is_final();
        let state = record.cancel(run, by, now)?;
        if !was_final {
            let running = state == State::Running;
            self.notices.push(if running { Notice::CancelAsked(run) } else { Notice::Moved(run, state) });
            self.ready = true;
        }
        Ok(state)
    }

    pub(super) fn requeue(&mut self, run: RunId, why: String, now: Timestamp) -> Result<(), StoreError> {
        let ord = self.next_run;
        let stored = self.known(run)?;
        stored.record.retry(run, ord, why, now)?;
        stored.output = None;
        self.next_run += 1;
        self.ready = true;
        self.notices.push(Notice::Moved(run, State::Queued));
        Ok(())
    }

    pub(super) fn replay(&mut self, event: EventId, runs: &[NewRun], now: Timestamp) -> Result<Vec<RunId>, StoreError> {
        let missing = || StoreError::NotFound(format!("event {event}"));
        let parent = self.events.get(&event.seq).filter(|_| event.store == self.tag).ok_or_else(missing)?;
        let parent = Event { body: None, ..parent.event.clone() };
        self.refuse_over_limit(runs.iter())?;
        let ids = self.insert_runs(&parent, runs, now);
        if let Some(stored) = self.events.get_mut(&event.seq) {
            stored.runs.extend(ids.iter().map(|id| id.seq));
        }
        Ok(ids)
    }

    // ---- retention ----

    pub(super) fn sweep(&mut self, retention: &Retention, now: Timestamp) -> Swept {
        self.retention = *retention;
        let mut swept = Swept::default();
        let old = |stored: &StoredEvent| {
            let keep = if stored.event.verdict == Kind::Accepted { retention.events } else { retention.ignored };
            stored.event.received_at < now.minus(keep)
        };
        let is_final = |seq: &u64| self.runs.get(seq).is_none_or(|run| run.record.state.is_final());
        let gone: Vec<u64> = self
            .events
            .iter()
            .filter(|(_, stored)| old(stored) && stored.runs.iter().all(is_final))
            .map(|(seq, _)| *seq)
            .collect();
        for seq in gone {
            let runs = self.events.remove(&seq).map(|stored| stored.runs).unwrap_or_default();
            swept.events += 1;
            swept.runs += runs.iter().filter(|run| self.runs.remove(run).is_some()).count() as u64;
        }
        let before = self.decisions.len();
        self.decisions.retain(|_, stored| stored.decision.created_at >= now.minus(retention.decisions));
        swept.decisions = (before - self.decisions.len()) as u64;
        let mut sources: Vec<_> =
            self.decisions.values().filter(|d| d.in_ring).map(|d| d.decision.source.clone()).collect();
        sources.sort();
        sources.dedup();
        for source in sources {
            swept.decisions += self.cut_ring(&source, retention.ring as usize, retention.ring as usize);
        }
        let before = self.prints.len();
        self.prints.retain(|_, (_, at)| within(*at, now, retention.dedup));
        swept.dedup = (before - self.prints.len()) as u64;
        self.secrets.sweep(now);
        swept
    }
}

/// The first of several copies.
enum First {
    Known(u64),
    Earlier(usize),
}

/// Whether a queued run could be claimed as its lane stands, but for its due time.
pub(super) fn may_go(lanes: &HashMap<LaneId, Lane>, record: &Record) -> bool {
    let Some(lane) = record.lane.and_then(|lane| lanes.get(&lane)) else { return true };
    lane.running.is_none() && lane.head.is_none_or(|head| (record.ord, record.seq) <= head)
}
