//! How many requests an agent is sent at once. The count outlives a reload: requests that began before it still hold their
//! places.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;

/// The places of one agent.
#[derive(Debug)]
pub struct Places {
    most: usize,
    taken: ArcSwap<AtomicUsize>,
}

/// One that is taken; free when dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<AtomicUsize>);

impl Places {
    /// So many.
    pub fn new(most: u32) -> Self {
        Self { most: usize::try_from(most).unwrap_or(usize::MAX), taken: ArcSwap::default() }
    }

    /// Goes on counting where the old ones stand, which the requests under way hold.
    pub(super) fn adopt(&self, old: &Self) {
        self.taken.store(old.taken.load_full());
    }

    /// One of them, if one is free.
    pub(super) fn take(&self) -> Option<Place> {
        let taken = self.taken.load_full();
        let more = |now: usize| (now < self.most).then(|| now + 1);
        taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        Some(Place(taken))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_that_are_taken_stay_taken_over_a_reload() {
        let before = Places::new(2);
        let (one, two) = (before.take(), before.take());
        assert!(one.is_some() && two.is_some() && before.take().is_none());
        let after = Places::new(3);
        after.adopt(&before);
        let three = after.take();
        assert!(three.is_some() && after.take().is_none());
        // A request that still looks at the old ones counts with the others.
        assert!(before.take().is_none());
        drop((one, two));
        assert!(before.take().is_none() || after.take().is_some());
        drop(three);
        assert!(after.take().is_some());
    }
}
