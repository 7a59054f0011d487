//! How many requests are too many: the generic cell rate algorithm (ITU-T I.371, "virtual scheduling"), for a source, for
//! everybody together, and for each sender address. Called by the door; the time is passed in.
//!
//! A meter is one number: the time at which the next request would be exactly on time. A whole amount may come at once, then
//! one in each interval. So taking a place is one compare-and-swap, refusing changes nothing, and the wait that is told is
//! the one after which a request does pass.

use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

/// So many requests in a span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    interval_ns: u64,
    /// How far ahead of its time a request may come: the burst less one.
    tolerance_ns: u64,
    text: String,
}

impl Quota {
    /// `count` requests in each `per`, written as `text`. None if either is zero.
    pub fn new(count: u32, per: Duration, text: impl Into<String>) -> Option<Self> {
        let per_ns = u64::try_from(per.as_nanos()).ok()?;
        let interval_ns = per_ns.checked_div(u64::from(count)).filter(|ns| *ns > 0)?;
        Some(Self { interval_ns, tolerance_ns: interval_ns * u64::from(count - 1), text: text.into() })
    }

    /// As the configuration wrote it: `6000/min`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The decision: the meter's next state, or how long until a request would pass. `due` and `now` in nanoseconds of one
    /// monotonic clock.
    fn ask(&self, due: u64, now: u64) -> Result<u64, Duration> {
        let due = due.max(now);
        match (due - now).checked_sub(self.tolerance_ns) {
            None | Some(0) => Ok(due.saturating_add(self.interval_ns)),
            Some(early) => Err(Duration::from_nanos(early)),
        }
    }
}

/// One share, for all requests together.
#[derive(Debug)]
pub struct Meter {
    quota: Quota,
    due: AtomicU64,
}

impl Meter {
    /// An unused share.
    pub fn new(quota: Quota) -> Self {
        Self { quota, due: AtomicU64::new(0) }
    }

    /// What it allows.
    pub fn quota(&self) -> &Quota {
        &self.quota
    }

    /// Takes one place at `now` ([`crate::Clock::uptime`]); else how long until there is one.
    ///
    /// # Errors
    /// How long until a request passes.
    pub fn take(&self, now: Duration) -> Result<(), Duration> {
        let now = nanos(now);
        let mut seen = self.due.load(Ordering::Relaxed);
        loop {
            let next = self.quota.ask(seen, now)?;
            match self.due.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(other) => seen = other,
            }
        }
    }

    fn look(&self, now: Duration) -> Result<(), Duration> {
        self.quota.ask(self.due.load(Ordering::Relaxed), nanos(now)).map(|_| ())
    }

    /// Goes on where `old` stands, if it allows the same: a reload is no way to a fresh share.
    pub fn adopt(&self, old: &Self) {
        if self.quota == old.quota {
            self.due.fetch_max(old.due.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}

/// Sets of a table. With eight places each that is room for 32,768 keys that are in use at the same time, in about 1 MiB.
const SETS: usize = 4096;
const PLACES: usize = 8;

/// A share for each key (an address, a lane), in a table of fixed size.
///
/// A key whose share is whole again needs no place. When all places of a set are in use, further keys of that set share one
/// meter, so that a flood from many addresses costs no memory and lets nobody by unmeasured.
pub struct Meters {
    quota: Quota,
    sets: Box<[Mutex<Set>]>,
}

#[derive(Clone, Copy, Default)]
struct Set {
    places: [Place; PLACES],
    shared: Place,
}

#[derive(Clone, Copy, Default)]
struct Place {
    key: u128,
    due: u64,
    /// `due` at the time of the last refusal, to know the first of a series.
    refused_at: u64,
}

/// A no of [`Meters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Over {
    /// How long until one passes.
    pub wait: Duration,
    /// Whether it is the first since one passed: worth a line in the record.
    pub first: bool,
}

/// The places that a key may have; drawn at each start, so that nobody can choose keys that meet in one set.
static PLACEMENT: LazyLock<RandomState> = LazyLock::new(RandomState::new);

impl Meters {
    /// An empty table.
    pub fn new(quota: Quota) -> Self {
        Self { quota, sets: (0..SETS).map(|_| Mutex::default()).collect() }
    }

    /// What it allows each key.
    pub fn quota(&self) -> &Quota {
        &self.quota
    }

    /// Takes one place of `key`'s share at `now`.
    ///
    /// # Errors
    /// How long until one passes, and whether that is news.
    pub fn take(&self, key: u128, now: Duration) -> Result<(), Over> {
        let now = nanos(now);
        let mut set = self.set(key).lock().unwrap_or_else(PoisonError::into_inner);
        let place = set.place(key, now);
        match self.quota.ask(place.due, now) {
            Ok(next) => {
                place.due = next;
                Ok(())
            }
            Err(wait) => {
                let first = place.refused_at != place.due;
                place.refused_at = place.due;
                Err(Over { wait, first })
            }
        }
    }

    /// Whether `key` has nothing left of its share at `now`; takes nothing.
    pub fn is_over(&self, key: u128, now: Duration) -> bool {
        self.look(key, now).is_err()
    }

    fn look(&self, key: u128, now: Duration) -> Result<(), Duration> {
        let now = nanos(now);
        let mut set = self.set(key).lock().unwrap_or_else(PoisonError::into_inner);
        let due = set.place(key, now).due;
        self.quota.ask(due, now).map(|_| ())
    }

    /// Gives back what [`Self::take`] took for something that did not happen.
    pub fn give_back(&self, key: u128, now: Duration) {
        let mut set = self.set(key).lock().unwrap_or_else(PoisonError::into_inner);
        let place = set.place(key, nanos(now));
        place.due = place.due.saturating_sub(self.quota.interval_ns);
    }

    /// Goes on where `old` stands, if it allows the same.
    pub fn adopt(&self, old: &Self) {
        if self.quota == old.quota {
            for (mine, theirs) in self.sets.iter().zip(&old.sets) {
                let theirs = *theirs.lock().unwrap_or_else(PoisonError::into_inner);
                *mine.lock().unwrap_or_else(PoisonError::into_inner) = theirs;
            }
        }
    }

    #[allow(clippy::cast_possible_truncation, reason = "the low bits of a hash are as good as the high ones")]
    fn set(&self, key: u128) -> &Mutex<Set> {
        &self.sets[PLACEMENT.hash_one(key) as usize % SETS]
    }
}

impl std::fmt::Debug for Meters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meters").field("quota", &self.quota).finish_non_exhaustive()
    }
}

impl Set {
    /// The key's place, else one that nobody needs, else the shared one.
    fn place(&mut self, key: u128, now: u64) -> &mut Place {
        let own = self.places.iter().position(|place| place.key == key && place.due > now);
        match own.or_else(|| self.places.iter().position(|place| place.due <= now)) {
            Some(at) => {
                let place = &mut self.places[at];
                if place.key != key {
                    *place = Place { key, ..Place::default() };
                }
                place
            }
            None => {
                metrics::counter!("doorbell_limit_table_full_total").increment(1);
                &mut self.shared
            }
        }
    }
}

/// What one sender is told apart by: an IPv4 address, or the first 64 bits of an IPv6 address, since whoever has one of
/// those has 2^64 of them (RFC 6177).
pub fn key_of(address: Option<IpAddr>) -> u128 {
    match address.map(|ip| ip.to_canonical()) {
        Some(IpAddr::V4(ip)) => ip.to_ipv6_mapped().to_bits(),
        Some(IpAddr::V6(ip)) => ip.to_bits() & !u128::from(u64::MAX),
        // Not known who: one share for all of those.
        None => Ipv6Addr::UNSPECIFIED.to_bits() | 1,
    }
}

/// The limits of one webhook source. What is not configured is not there, and costs nothing.
#[derive(Debug, Default)]
pub struct Limits {
    /// For the source.
    pub source: Option<Meter>,
    /// For each sender address.
    pub address: Option<Meters>,
    /// For all sources of the server together: the same meter in each of them.
    pub server: Option<Arc<Meter>>,
    /// For failed checks of the sender, by address. Never asked for a request that is signed well.
    pub failures: Option<Meters>,
}

/// Which limit said no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// A stable word for the record.
    pub code: &'static str,
    /// The key of the configuration.
    pub setting: &'static str,
    /// What it allows.
    pub allowed: String,
    /// How long until a request passes all limits.
    pub wait: Duration,
}

impl Limits {
    /// Whether none of the limits on good requests is configured.
    pub fn is_none(&self) -> bool {
        self.source.is_none() && self.address.is_none() && self.server.is_none()
    }

    /// Takes a place of each limit, or of none of them.
    ///
    /// # Errors
    /// The limit that has to be waited for longest.
    pub fn take(&self, remote: Option<IpAddr>, now: Duration) -> Result<(), Exceeded> {
        let key = if self.address.is_some() { key_of(remote) } else { 0 };
        // Looked at before any is taken: who is over one limit uses up nobody else's share of another.
        let waits = [
            self.address.as_ref().and_then(|m| m.look(key, now).err()),
            self.source.as_ref().and_then(|m| m.look(now).err()),
            self.server.as_ref().and_then(|m| m.look(now).err()),
        ];
        let longest = (0..waits.len()).filter_map(|at| waits[at].map(|wait| (wait, at))).max();
        if let Some((wait, at)) = longest {
            return Err(self.exceeded(at, wait));
        }
        // Another request may have come between the look and the taking: then the earlier ones are taken in vain.
        self.address.as_ref().map_or(Ok(()), |m| m.take(key, now)).map_err(|over| self.exceeded(0, over.wait))?;
        self.source.as_ref().map_or(Ok(()), |m| m.take(now)).map_err(|wait| self.exceeded(1, wait))?;
        self.server.as_ref().map_or(Ok(()), |m| m.take(now)).map_err(|wait| self.exceeded(2, wait))
    }

    fn exceeded(&self, at: usize, wait: Duration) -> Exceeded {
        let (code, setting, quota) = match at {
            0 => ("address_rate_limited", "rate_limit_per_address", self.address.as_ref().map(Meters::quota)),
            1 => ("rate_limited", "rate_limit", self.source.as_ref().map(Meter::quota)),
            _ => ("server_rate_limited", "server.rate_limit", self.server.as_ref().map(|m| m.quota())),
        };
        Exceeded { code, setting, allowed: quota.map(|q| q.as_str().to_owned()).unwrap_or_default(), wait }
    }

    /// Goes on where the limits of the configuration before stand.
    pub fn adopt(&self, old: &Self) {
        pair(&self.source, &old.source, Meter::adopt);
        pair(&self.address, &old.address, Meters::adopt);
        pair(&self.failures, &old.failures, Meters::adopt);
        if let (Some(new), Some(old)) = (&self.server, &old.server) {
            new.adopt(old);
        }
    }
}

fn pair<T>(new: &Option<T>, old: &Option<T>, adopt: impl FnOnce(&T, &T)) {
    if let (Some(new), Some(old)) = (new, old) {
        adopt(new, old);
    }
}

fn nanos(now: Duration) -> u64 {
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn quota(count: u32, per: Duration) -> Quota {
        Quota::new(count, per, format!("{count}/{per:?}")).unwrap()
    }

    fn ip(text: &str) -> u128 {
        key_of(Some(text.parse().unwrap()))
    }

    #[test]
    fn a_whole_amount_passes_at_once_and_then_one_an_interval() {
        let meter = Meter::new(quota(3, 300 * MS));
        let start = 5000 * MS;
        for _ in 0..3 {
            assert_eq!(meter.take(start), Ok(()));
        }
        assert_eq!(meter.take(start), Err(100 * MS));
        assert_eq!(meter.take(start + 99 * MS), Err(MS));
        assert_eq!(meter.take(start + 100 * MS), Ok(()));
        assert_eq!(meter.take(start + 100 * MS), Err(100 * MS));
        assert!(Quota::new(0, MS, "").is_none() && Quota::new(1, Duration::ZERO, "").is_none());
    }

    #[test]
    fn each_address_has_its_own_share_and_an_ipv6_network_has_one() {
        let meters = Meters::new(quota(1, Duration::from_secs(60)));
        for one in ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8:0:1::1"] {
            assert_eq!(meters.take(ip(one), MS), Ok(()), "{one}");
        }
        for same in ["192.0.2.1", "::ffff:192.0.2.2", "2001:db8::2", "2001:db8:0:1:ffff::"] {
            assert!(meters.take(ip(same), MS).is_err(), "{same}");
        }
    }

    #[test]
    fn a_full_table_measures_the_rest_together_and_frees_places_by_itself() {
        let meters = Meters::new(quota(1, Duration::from_secs(1)));
        let passed = (0..200_000_u128).filter(|key| meters.take(key << 64, MS).is_ok()).count();
        assert!(passed <= SETS * (PLACES + 1), "{passed} passed a table of {}", SETS * PLACES);
        let later = Duration::from_secs(5);
        assert_eq!(meters.take(7 << 64, later), Ok(()));
        assert!(meters.take(7 << 64, later).is_err());
    }

    #[test]
    fn the_first_no_of_a_series_is_news() {
        let meters = Meters::new(quota(1, 100 * MS));
        assert_eq!(meters.take(1, MS), Ok(()));
        let news = |at: Duration| meters.take(1, at).map_err(|over| over.first);
        assert_eq!([news(2 * MS), news(3 * MS), news(4 * MS)], [Err(true), Err(false), Err(false)]);
        assert_eq!(news(101 * MS), Ok(()));
        assert_eq!(news(102 * MS), Err(true));
    }

    #[test]
    fn who_is_over_one_limit_takes_nothing_of_another() {
        let limits = Limits {
            source: Some(Meter::new(quota(2, Duration::from_secs(60)))),
            address: Some(Meters::new(quota(1, Duration::from_secs(60)))),
            ..Limits::default()
        };
        let (a, b) = (Some([192, 0, 2, 1].into()), Some([192, 0, 2, 2].into()));
        assert_eq!(limits.take(a, MS), Ok(()));
        for _ in 0..10 {
            assert_eq!(limits.take(a, MS).unwrap_err().code, "address_rate_limited");
        }
        assert_eq!(limits.take(b, MS), Ok(()));
        assert_eq!(limits.take(Some([192, 0, 2, 3].into()), MS).unwrap_err().code, "rate_limited");
    }

    #[test]
    fn a_place_given_back_may_be_taken_again() {
        let meters = Meters::new(quota(2, Duration::from_secs(60)));
        assert_eq!((meters.take(1, MS), meters.take(1, MS)), (Ok(()), Ok(())));
        meters.give_back(1, MS);
        assert_eq!(meters.take(1, MS), Ok(()));
        assert!(meters.take(1, MS).is_err());
    }

    #[test]
    fn a_reload_is_no_way_to_a_fresh_share() {
        let limits = || Limits {
            source: Some(Meter::new(quota(1, Duration::from_secs(60)))),
            failures: Some(Meters::new(quota(1, Duration::from_secs(60)))),
            ..Limits::default()
        };
        let (old, new) = (limits(), limits());
        old.take(None, MS).unwrap();
        old.failures.as_ref().unwrap().take(9, MS).unwrap();
        new.adopt(&old);
        assert!(new.take(None, MS).is_err());
        assert!(new.failures.as_ref().unwrap().take(9, MS).is_err());
    }

    proptest! {
        /// No window of the span lets more than twice the amount pass (a burst, then what is refilled), and the wait that is
        /// told is exact: just before it there is a no, at its end a yes.
        #[test]
        fn no_more_passes_than_allowed_and_the_wait_is_true(
            count in 1_u32..50,
            gaps in proptest::collection::vec(0_u64..40, 1..300),
        ) {
            let span = Duration::from_millis(u64::from(count) * 10);
            let quota = quota(count, span);
            let meter = Meter::new(quota.clone());
            let (mut now, mut passed) = (1000 * MS, Vec::new());
            for gap in gaps {
                now += Duration::from_millis(gap);
                let before = meter.due.load(Ordering::Relaxed);
                match meter.take(now) {
                    Ok(()) => passed.push(now),
                    Err(wait) => {
                        prop_assert_eq!(meter.due.load(Ordering::Relaxed), before);
                        prop_assert!(quota.ask(before, nanos(now + wait)).is_ok());
                        prop_assert!(quota.ask(before, nanos(now + wait) - 1).is_err());
                    }
                }
                let within = passed.iter().filter(|at| **at + span > now).count();
                prop_assert!(within <= 2 * count as usize);
            }
        }
    }
}
