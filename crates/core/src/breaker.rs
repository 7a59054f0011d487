//! The breaker of an agent: after so many failures in a row its runs are held for a while, then one is let go to see. A pure
//! state machine; the house keeps one for each agent that is configured to have one, the store what has to survive.
//!
//! closed ──failures──▶ open ──reset──▶ half open ──good──▶ closed, ──bad──▶ open

use std::time::Duration;

use crate::attempt::Outcome;
use crate::clock::Timestamp;
use crate::ids::RunId;

/// When a breaker opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Failures in a row that open it.
    pub failures: u32,
    /// How long it stays open.
    pub reset: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { failures: 5, reset: Duration::from_secs(60) }
    }
}

/// What survives a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Failures since the last good end.
    pub failures: u32,
    /// Set once it has opened: from then on it is half open.
    pub open_until: Option<Timestamp>,
}

/// How a breaker stands at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Runs go.
    Closed,
    /// Runs are held until then.
    Open(Timestamp),
    /// One run goes, the others are held.
    HalfOpen,
}

impl State {
    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open(_) => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// What an attempt tells of its agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It works.
    Good,
    /// It does not.
    Bad,
    /// Neither: a person ended it, it asked for later, or we lost it.
    None,
}

impl Sign {
    /// What follows from an outcome. A failure for good counts like one that is tried again: either way the agent did not do
    /// its work. A snooze is the agent's own way to say "not now", and answers well.
    pub fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Succeeded(_) | Outcome::Waiting(..) => Self::Good,
            Outcome::Failed(_) | Outcome::TimedOut { .. } => Self::Bad,
            Outcome::Snoozed { .. } | Outcome::Cancelled { .. } | Outcome::Lost { .. } => Self::None,
        }
    }
}

/// One agent's breaker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Breaker {
    standing: Standing,
    /// The run that was let go to see.
    probe: Option<RunId>,
    /// The first such run whose agent will call back: its end still counts, and meanwhile the next one may go.
    trial: Option<RunId>,
}

impl Breaker {
    /// As it was kept.
    pub fn new(standing: Standing) -> Self {
        Self { standing, probe: None, trial: None }
    }

    /// What is to be kept.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// How it stands now.
    pub fn state(&self, now: Timestamp) -> State {
        match self.standing.open_until {
            None => State::Closed,
            Some(until) if now < until => State::Open(until),
            Some(_) => State::HalfOpen,
        }
    }

    /// How many of `free` places may be given to runs now.
    pub fn places(&self, free: u32, now: Timestamp) -> u32 {
        match self.state(now) {
            State::Closed => free,
            State::HalfOpen if self.probe.is_none() => free.min(1),
            State::HalfOpen | State::Open(_) => 0,
        }
    }

    /// A run was taken up.
    pub fn started(&mut self, run: RunId, now: Timestamp) {
        if self.state(now) == State::HalfOpen && self.probe.is_none() {
            self.probe = Some(run);
        }
    }

    /// A run's agent will call back. That may take as long as the agent likes, so the others do not wait for it; agents that
    /// always call back close their breaker by the first call.
    pub fn deferred(&mut self, run: RunId) {
        if self.probe == Some(run) {
            self.probe = None;
            self.trial.get_or_insert(run);
        }
    }

    /// An attempt ended. Once it has opened only the run that was let go counts: what others that were under way before say
    /// is old news.
    pub fn ended(&mut self, run: RunId, sign: Sign, settings: Settings, now: Timestamp) {
        if self.standing.open_until.is_some() {
            match run {
                run if self.probe == Some(run) => self.probe = None,
                run if self.trial == Some(run) => self.trial = None,
                _ => return,
            }
        }
        match sign {
            Sign::None => {}
            Sign::Good => *self = Self::default(),
            Sign::Bad => {
                // Whoever was let go beside this one began before what is now.
                (self.probe, self.trial) = (None, None);
                self.standing.failures = self.standing.failures.saturating_add(1);
                if self.standing.failures >= settings.failures {
                    self.standing.open_until = Some(now + settings.reset);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::StoreTag;

    const SETTINGS: Settings = Settings { failures: 3, reset: Duration::from_secs(60) };

    fn run(n: u64) -> RunId {
        RunId::new(n, StoreTag::new(1))
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_secs(seconds)
    }

    fn opened() -> Breaker {
        let mut breaker = Breaker::default();
        (1..=3).for_each(|n| breaker.ended(run(n), Sign::Bad, SETTINGS, at(0)));
        breaker
    }

    #[test]
    fn it_opens_after_so_many_failures_in_a_row() {
        let mut breaker = Breaker::default();
        for sign in [Sign::Bad, Sign::Bad, Sign::Good, Sign::Bad, Sign::None, Sign::Bad] {
            breaker.ended(run(1), sign, SETTINGS, at(0));
            assert_eq!(breaker.state(at(0)), State::Closed);
        }
        breaker.ended(run(1), Sign::Bad, SETTINGS, at(0));
        assert_eq!((breaker.state(at(59)), breaker.places(9, at(59))), (State::Open(at(60)), 0));
        assert_eq!((breaker.state(at(60)), breaker.places(9, at(60))), (State::HalfOpen, 1));
    }

    #[test]
    fn half_open_lets_one_run_go_and_its_word_counts_alone() {
        let mut breaker = opened();
        breaker.started(run(7), at(61));
        assert_eq!(breaker.places(9, at(61)), 0);
        breaker.ended(run(2), Sign::Good, SETTINGS, at(62));
        breaker.ended(run(3), Sign::Bad, SETTINGS, at(62));
        assert_eq!(breaker.state(at(62)), State::HalfOpen);
        let mut failed = breaker;
        failed.ended(run(7), Sign::Bad, SETTINGS, at(63));
        assert_eq!(failed.state(at(63)), State::Open(at(123)));
        breaker.ended(run(7), Sign::Good, SETTINGS, at(63));
        assert_eq!((breaker.state(at(63)), breaker.places(9, at(63))), (State::Closed, 9));
    }

    #[test]
    fn a_probe_that_says_nothing_makes_way_for_the_next() {
        let mut breaker = opened();
        breaker.started(run(7), at(61));
        breaker.ended(run(7), Sign::None, SETTINGS, at(62));
        assert_eq!((breaker.state(at(62)), breaker.places(9, at(62))), (State::HalfOpen, 1));
    }

    #[test]
    fn a_probe_that_will_call_back_frees_its_place_and_its_call_counts() {
        let mut breaker = opened();
        breaker.started(run(7), at(61));
        breaker.deferred(run(7));
        assert_eq!((breaker.state(at(61)), breaker.places(9, at(61))), (State::HalfOpen, 1), "the next may go");
        breaker.started(run(8), at(62));
        assert_eq!(breaker.places(9, at(62)), 0, "one at a time");
        breaker.deferred(run(8));
        let (mut good, mut bad, mut lost) = (breaker, breaker, breaker);
        good.ended(run(7), Sign::Good, SETTINGS, at(63));
        assert_eq!((good.state(at(63)), good.places(9, at(63))), (State::Closed, 9));
        bad.started(run(9), at(63));
        bad.ended(run(7), Sign::Bad, SETTINGS, at(63));
        assert_eq!(bad.state(at(63)), State::Open(at(123)));
        bad.ended(run(9), Sign::Good, SETTINGS, at(64));
        assert_eq!((bad.state(at(64)), bad.places(9, at(123))), (State::Open(at(123)), 1), "it began before");
        // The second one counts once the first has said nothing.
        lost.ended(run(7), Sign::None, SETTINGS, at(63));
        lost.started(run(9), at(63));
        lost.deferred(run(9));
        lost.ended(run(8), Sign::Good, SETTINGS, at(64));
        assert_eq!(lost.state(at(64)), State::HalfOpen, "it was never the one that counts");
        lost.ended(run(9), Sign::Good, SETTINGS, at(64));
        assert_eq!(lost.state(at(64)), State::Closed);
    }

    #[test]
    fn what_is_kept_is_what_it_goes_on_with() {
        let mut breaker = opened();
        breaker.started(run(7), at(61));
        let after_restart = Breaker::new(breaker.standing());
        assert_eq!((after_restart.state(at(30)), after_restart.places(9, at(61))), (State::Open(at(60)), 1));
    }

    proptest! {
        /// Against a plain reading of the rule over any series: never more than one run while half open, none while open, and
        /// open exactly after so many failures without a good end between them.
        #[test]
        fn no_series_of_ends_breaks_the_rule(steps in proptest::collection::vec((0_u8..4, 0_i64..50), 1..200)) {
            let (mut breaker, mut now, mut next) = (Breaker::default(), 0, 1);
            let mut under_way: Vec<(RunId, State)> = Vec::new();
            for (step, pass) in steps {
                now += pass;
                let before = breaker.state(at(now));
                if step == 3 {
                    let probes = under_way.iter().filter(|(_, s)| *s == State::HalfOpen).count();
                    let places = breaker.places(4, at(now));
                    match before {
                        State::Closed => prop_assert_eq!(places, 4),
                        State::Open(_) => prop_assert_eq!(places, 0),
                        State::HalfOpen => prop_assert!(places + u32::try_from(probes).unwrap() <= 1),
                    }
                    if places > 0 {
                        breaker.started(run(next), at(now));
                        under_way.push((run(next), before));
                        next += 1;
                    }
                } else if !under_way.is_empty() {
                    let (ended, _) = under_way.remove(usize::try_from(now).unwrap() % under_way.len());
                    let sign = [Sign::Good, Sign::Bad, Sign::None][usize::from(step)];
                    let failures = breaker.standing().failures;
                    breaker.ended(ended, sign, SETTINGS, at(now));
                    if before == State::Closed {
                        let opens = sign == Sign::Bad && failures + 1 >= SETTINGS.failures;
                        prop_assert_eq!(breaker.state(at(now)) != State::Closed, opens);
                    } else if matches!(before, State::Open(_)) {
                        prop_assert_eq!(breaker.state(at(now)), before);
                    }
                    // A probe of an earlier time of openness counts no more.
                    if breaker.state(at(now)) == State::Closed {
                        under_way.iter_mut().for_each(|(_, s)| *s = State::Closed);
                    }
                }
            }
        }
    }
}
