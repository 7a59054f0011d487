//! How many attempts each agent and each trigger may still start. A [`Slot`] is one place taken; dropping it gives the
//! place back and wakes the claim loop.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::ids::Name;

/// Places taken, by agent and by trigger.
#[derive(Debug, Default)]
pub(super) struct Slots {
    taken: Mutex<Taken>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    agents: HashMap<Name, u32>,
    triggers: HashMap<Name, u32>,
}

impl Slots {
    /// Takes a place; whoever claimed the run has asked for no more than was free.
    pub(super) fn take(self: &Arc<Self>, agent: &Name, trigger: &Name) -> Slot {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all += 1;
        *taken.agents.entry(agent.clone()).or_default() += 1;
        *taken.triggers.entry(trigger.clone()).or_default() += 1;
        drop(taken);
        Slot { slots: Arc::clone(self), agent: agent.clone(), trigger: trigger.clone() }
    }

    /// How many of an agent's places are taken.
    pub(super) fn of_agent(&self, agent: &Name) -> u32 {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).agents.get(agent).copied().unwrap_or(0)
    }

    /// How many of a trigger's places are taken.
    pub(super) fn of_trigger(&self, trigger: &Name) -> u32 {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).triggers.get(trigger).copied().unwrap_or(0)
    }

    /// How many places are taken in all.
    pub(super) fn all(&self) -> usize {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).all
    }

    /// Resolves when a place was given back since the last call.
    pub(super) async fn freed(&self) {
        self.freed.notified().await;
    }
}

/// One place taken.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Arc<Slots>,
    agent: Name,
    trigger: Name,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = &mut *taken;
        taken.all -= 1;
        for (counts, name) in [(&mut taken.agents, &self.agent), (&mut taken.triggers, &self.trigger)] {
            if let Some(n) = counts.get_mut(name) {
                *n -= 1;
                if *n == 0 {
                    counts.remove(name);
                }
            }
        }
        self.slots.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_slot_gives_its_place_back() {
        let slots = Arc::new(Slots::default());
        let (a, t) = (Name::new("a").unwrap(), Name::new("t").unwrap());
        let first = slots.take(&a, &t);
        let second = slots.take(&a, &t);
        assert_eq!((slots.of_agent(&a), slots.of_trigger(&t), slots.all()), (2, 2, 2));
        drop(first);
        drop(second);
        assert_eq!((slots.of_agent(&a), slots.of_trigger(&t), slots.all()), (0, 0, 0));
    }
}
