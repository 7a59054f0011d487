//! The tables of the memory store as the trait shows them: runs with whom they are behind, queues in numbers, what is
//! stale. Reads only.

use std::collections::{BTreeMap, HashMap};

use doorbell_core::lane::LaneId;
use doorbell_core::ports::{QueueStats, Stale, StaleRun, StoreError};
use doorbell_core::run::{Run, State};
use doorbell_core::{EventId, Name, RunId};

use super::state::{Lane, StoredRun, Tables, may_go};

impl Tables {
    /// Every run as the trait shows it, without outputs, oldest first.
    pub(super) fn all_runs(&self) -> Vec<Run> {
        let lanes = self.lanes();
        self.runs.values().map(|run| self.show(run, &lanes)).collect()
    }

    pub(super) fn run(&self, id: RunId) -> Result<Run, StoreError> {
        let stored = self.runs.get(&id.seq).filter(|_| id.store == self.tag);
        let stored = stored.ok_or_else(|| StoreError::NotFound(format!("run {id}")))?;
        Ok(Run { output: stored.output.clone(), ..self.show(stored, &self.lanes()) })
    }

    fn show(&self, run: &StoredRun, lanes: &HashMap<LaneId, Lane>) -> Run {
        let record = &run.record;
        let lane = record.lane.filter(|_| record.state == State::Queued).and_then(|lane| lanes.get(&lane));
        let behind = lane.and_then(|lane| {
            let ahead = lane.head.filter(|(ord, _)| *ord < record.ord).map(|(_, seq)| seq);
            lane.running.or(ahead)
        });
        Run {
            id: RunId::new(record.seq, self.tag),
            event: EventId::new(record.event, self.tag),
            source: run.source.clone(),
            event_type: run.event_type.clone(),
            agent: run.agent.clone(),
            trigger: run.trigger.clone(),
            key: run.key.clone(),
            lane: record.lane,
            title: run.title.clone(),
            state: record.state,
            behind: behind.map(|seq| RunId::new(seq, self.tag)),
            attempt: record.attempt,
            created_at: record.created_at,
            due_at: record.due_at,
            started_at: record.started_at,
            finished_at: record.finished_at,
            lease: record.lease,
            lease_until: record.lease_until,
            cancelling: record.cancel_by.is_some(),
            moves: record.history(),
            error: record.error.clone(),
            flag: run.flag.clone(),
            steps: record.steps,
            usage: record.usage,
            approval: record.approval.clone(),
            output: None,
        }
    }

    pub(super) fn stats(&self) -> Vec<QueueStats> {
        let lanes = self.lanes();
        let mut queues: BTreeMap<(Name, Name), QueueStats> = BTreeMap::new();
        for run in self.runs.values() {
            let key = (run.agent.clone(), run.trigger.clone());
            let stats = queues.entry(key).or_insert_with(|| QueueStats {
                agent: run.agent.clone(),
                trigger: run.trigger.clone(),
                queued: 0,
                running: 0,
                waiting: 0,
                oldest_due: None,
            });
            match run.record.state {
                State::Queued => {
                    stats.queued += 1;
                    if may_go(&lanes, &run.record) {
                        let due = run.record.due_at;
                        stats.oldest_due = Some(stats.oldest_due.map_or(due, |oldest| oldest.min(due)));
                    }
                }
                State::Running => stats.running += 1,
                State::Waiting => stats.waiting += 1,
                State::Succeeded | State::Failed | State::Cancelled => {}
            }
        }
        queues.into_values().collect()
    }

    pub(super) fn stale(&self, which: Stale, limit: usize) -> Vec<StaleRun> {
        let stale = self.runs.values().filter(|run| run.record.is_stale(which)).take(limit);
        stale.map(|run| run.record.clone().into_stale(self.tag, run.agent.clone(), run.trigger.clone())).collect()
    }
}
