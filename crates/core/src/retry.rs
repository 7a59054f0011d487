//! When to try again: exponential backoff with full jitter on the upper half, so that runs that failed together do not
//! come back together (AWS, "Exponential Backoff And Jitter", 2015: equal jitter).

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How often, and how long between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retries {
    /// Attempts after the first one.
    pub max: u32,
    /// The delay after the first failure; it doubles from there.
    pub backoff: Duration,
    /// No delay is longer.
    pub max_backoff: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Self { max: 3, backoff: Duration::from_secs(10), max_backoff: Duration::from_secs(600) }
    }
}

impl Retries {
    /// The delay after the `attempt`th attempt (from 1) failed; `dice` are 64 random bits. Between half of the
    /// exponential delay and the whole of it.
    pub fn delay(&self, attempt: u32, dice: u64) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        let whole = self.backoff.saturating_mul(1u32 << doublings).min(self.max_backoff);
        let half = whole / 2;
        let span = u64::try_from((whole - half).as_micros()).unwrap_or(u64::MAX);
        let jitter = if span == 0 { 0 } else { dice % (span + 1) };
        half + Duration::from_micros(jitter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_delay_lies_between_half_and_the_whole_and_never_over_the_cap(attempt in 0u32..200, dice: u64, base_ms in 0u64..100_000, cap_ms in 0u64..10_000_000) {
            let r = Retries { max: 3, backoff: Duration::from_millis(base_ms), max_backoff: Duration::from_millis(cap_ms) };
            let whole = r.backoff.saturating_mul(1 << attempt.saturating_sub(1).min(31)).min(r.max_backoff);
            let delay = r.delay(attempt, dice);
            prop_assert!(delay <= r.max_backoff);
            prop_assert!(delay >= whole / 2 && delay <= whole);
        }
    }
}
