//! A source: a named way in, and how its events are verified, labelled, deduplicated and limited.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::Clock as _;
use ipnet::IpNet;

use crate::event::OnDuplicateFailed;
use crate::filter::Filter;
use crate::ids::Name;
use crate::payload::{Paths, PayloadRule};
use crate::provider::{KeptHeaders, KeyCache, Preset, Verifier};
use crate::trigger::Trigger;

/// A source as resolved from the configuration, with its triggers.
#[derive(Debug)]
pub struct Source {
    /// Its name.
    pub name: Name,
    /// How events come in.
    pub way: Way,
    /// Which triggers take its events, in the order of the file.
    pub triggers: Vec<Arc<Trigger>>,
    /// The body paths that labels, filters and lane keys read, all together: the door reads only these.
    pub paths: Paths,
    /// How a redelivery is known.
    pub dedup: DedupRule,
    /// For how long a digest of the body counts as a fingerprint too.
    pub replay_window: Duration,
    /// What a redelivery does when the run failed for good.
    pub on_duplicate_failed: OnDuplicateFailed,
    /// Whether the file says that it takes requests.
    pub enabled: bool,
    /// What the API shows of its settings: no secrets.
    pub shown: serde_json::Value,
}

/// How events come in.
#[derive(Debug)]
pub enum Way {
    /// Over our HTTP ingress.
    Webhook(Box<Webhook>),
    /// Through `POST /api/v1/events` or the library only.
    Direct,
}

impl Source {
    /// The webhook's settings, if it is one.
    pub fn webhook(&self) -> Option<&Webhook> {
        match &self.way {
            Way::Webhook(webhook) => Some(webhook),
            Way::Direct => None,
        }
    }

    /// The word for its kind, as the configuration writes it.
    pub fn kind(&self) -> &'static str {
        match self.way {
            Way::Webhook(_) => "webhook",
            Way::Direct => "event",
        }
    }
}

/// What a webhook source needs beside the rest.
#[derive(Debug)]
pub struct Webhook {
    /// The path it listens on.
    pub path: String,
    /// The URL the sender knows it by, for schemes that sign the URL.
    pub public_url: Option<String>,
    /// How its sender signs and labels requests.
    pub preset: Arc<Preset>,
    /// Checks them.
    pub verifier: Verifier,
    /// Keys that its sender publishes; none where no key is ever fetched.
    pub keys: Option<Arc<KeyCache>>,
    /// How their bodies are read.
    pub payload: PayloadRule,
    /// Whether a body may hold a secret that must not be kept ([`Preset::has_secret_in_body`]).
    pub secret_in_body: bool,
    /// Which headers are kept with an event.
    pub kept_headers: KeptHeaders,
    /// Sender addresses let in; empty: all.
    pub allowed: Vec<IpNet>,
    /// How many requests it takes.
    pub rate: Option<RateLimit>,
    /// The longest body it reads, in bytes.
    pub max_body: usize,
    /// What the sender is answered.
    pub respond: Respond,
}

/// What the sender of an accepted event is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Respond {
    /// 202 at once.
    Accepted,
    /// The run's result if it ends within this time, else 202.
    Result(Duration),
}

/// How a redelivery is known. See `docs/semantics.md`, rule 5.
#[derive(Debug, Default)]
pub enum DedupRule {
    /// By what the preset tells, the safest that is there.
    #[default]
    Auto,
    /// By the sender's id alone.
    Id,
    /// By type and body, for as long as dedup keys are kept.
    Body,
    /// Not at all.
    Off,
    /// By what this expression gives as text.
    Expression(Box<Filter>),
}

/// So many requests in a span, spread evenly with a burst of the whole amount (GCRA).
pub struct RateLimit {
    limiter: governor::DefaultDirectRateLimiter,
    text: String,
}

impl RateLimit {
    /// `count` requests in each `per`. None if either is zero.
    pub fn new(count: u32, per: Duration, text: String) -> Option<Self> {
        let burst = NonZeroU32::new(count)?;
        let quota = governor::Quota::with_period(per / count)?.allow_burst(burst);
        Some(Self { limiter: governor::RateLimiter::direct(quota), text })
    }

    /// Takes one place; else how long until there is one.
    pub fn take(&self) -> Result<(), Duration> {
        let clock = governor::clock::DefaultClock::default();
        self.limiter.check().map_err(|until| until.wait_time_from(clock.now()))
    }

    /// As the configuration wrote it: `100/min`.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl std::fmt::Debug for RateLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_limit_lets_its_whole_amount_in_at_once_and_then_tells_how_long_to_wait() {
        let limit = RateLimit::new(3, Duration::from_secs(3600), "3/h".into()).unwrap();
        for _ in 0..3 {
            assert!(limit.take().is_ok());
        }
        let wait = limit.take().unwrap_err();
        assert!(wait > Duration::from_secs(1000) && wait <= Duration::from_secs(1200), "{wait:?}");
        assert!(RateLimit::new(0, Duration::from_secs(1), String::new()).is_none());
    }
}
