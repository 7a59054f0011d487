//! Time and chance, passed in. Everything that must know the hour or draw a number takes a [`Clock`], so that tests set
//! both and `clippy.toml` can ban the ambient ones.

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point in time: whole milliseconds since 1970-01-01T00:00:00Z. In JSON an RFC 3339 text in UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From milliseconds since 1970.
    pub const fn from_millis(ms: i64) -> Self {
        Self(ms)
    }

    /// From seconds since 1970.
    pub const fn from_secs(s: i64) -> Self {
        Self(s.saturating_mul(1000))
    }

    /// Milliseconds since 1970.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Seconds since 1970, rounded down.
    pub const fn secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Reads an RFC 3339 text.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse::<jiff::Timestamp>().ok().map(|t| Self(t.as_millisecond()))
    }

    /// How long from `earlier` to `self`; zero if it lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// `self` less `span`; stops at the smallest time.
    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(millis_of(span)))
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;
    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(millis_of(span)))
    }
}

fn millis_of(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(t) => write!(f, "{t:.3}"),
            Err(_) => write!(f, "{}ms", self.0),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("`{text}` is not an RFC 3339 time")))
    }
}

/// The hour and the dice. Cheap to clone; every clone of one clock tells the same time.
#[derive(Clone)]
pub struct Clock(Inner);

#[derive(Clone)]
enum Inner {
    System,
    Hand { now_ms: Arc<AtomicI64>, dice: Arc<AtomicU64> },
}

impl Clock {
    /// The machine's own clock and random numbers.
    pub fn system() -> Self {
        Self(Inner::System)
    }

    /// A clock that stands at `start` until [`Clock::advance`] moves it, with the same dice in every run. For tests.
    pub fn by_hand(start: Timestamp) -> Self {
        Self(Inner::Hand { now_ms: Arc::new(AtomicI64::new(start.0)), dice: Arc::new(AtomicU64::new(1)) })
    }

    /// The time now.
    #[allow(clippy::disallowed_methods, reason = "the one place that asks the machine for the time")]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Inner::System => {
                let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                Timestamp(millis_of(since))
            }
            Inner::Hand { now_ms, .. } => Timestamp(now_ms.load(Ordering::SeqCst)),
        }
    }

    /// How long this clock has run: never goes back, whatever becomes of the wall clock. Starts somewhere above zero.
    pub fn uptime(&self) -> Duration {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        match &self.0 {
            Inner::System => START.elapsed() + Duration::from_secs(1),
            Inner::Hand { now_ms, .. } => Timestamp(now_ms.load(Ordering::SeqCst)).since(Timestamp(0)),
        }
    }

    /// Moves a clock made by hand; does nothing to the system's.
    pub fn advance(&self, by: Duration) {
        if let Inner::Hand { now_ms, .. } = &self.0 {
            now_ms.fetch_add(millis_of(by), Ordering::SeqCst);
        }
    }

    /// 64 random bits; from a clock made by hand the same series in every run.
    #[allow(clippy::disallowed_methods, reason = "the one place that asks the machine for chance")]
    pub fn random(&self) -> u64 {
        match &self.0 {
            Inner::System => rand::random(),
            Inner::Hand { dice, .. } => {
                // splitmix64: enough for jitter and tags in tests.
                let mut z = dice.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst).wrapping_add(0x9e37_79b9_7f4a_7c15);
                z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                z ^ (z >> 31)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_rfc_3339_in_utc_with_milliseconds() {
        let t = Timestamp::from_millis(1_760_000_000_123);
        assert_eq!(t.to_string(), "2025-10-09T08:53:20.123Z");
        assert_eq!(Timestamp::parse("2025-10-09T10:53:20.123+02:00"), Some(t));
    }

    #[test]
    fn a_clock_by_hand_stands_still_until_moved() {
        let clock = Clock::by_hand(Timestamp::from_secs(10));
        let twin = clock.clone();
        clock.advance(Duration::from_secs(5));
        assert_eq!(twin.now(), Timestamp::from_secs(15));
    }
}
