//! A source: a named way in, and how its events are verified, labelled, deduplicated and limited.

mod live;

use std::sync::Arc;
use std::time::Duration;

use crate::allowed::Allowed;
use crate::event::OnDuplicateFailed;
use crate::filter::Filter;
use crate::ids::Name;
use crate::limits::Limits;
use crate::payload::{Paths, PayloadRule};
use crate::provider::{KeptHeaders, KeyCache, Preset};
use crate::trigger::Trigger;

pub use live::{LiveVerifier, NotReady, Present, Recipe, SecretPlace, Standing};

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
    /// Actors whose events start nothing: the agents' own, as the sender names them.
    pub ignore_actors: Vec<String>,
    /// How many runs an event may come from, one after the other.
    pub max_hops: u32,
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

    /// Goes on where the limits of the source before it stand, and with what it knew of its senders.
    pub fn adopt(&self, old: &Self) {
        if let (Some(new), Some(old)) = (self.webhook(), old.webhook()) {
            new.limits.adopt(&old.limits);
            new.allowed.adopt(&old.allowed);
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
    pub verifier: LiveVerifier,
    /// Keys that its sender publishes; none where no key is ever fetched.
    pub keys: Option<Arc<KeyCache>>,
    /// How their bodies are read.
    pub payload: PayloadRule,
    /// Whether a body may hold a secret that must not be kept ([`Preset::has_secret_in_body`]).
    pub secret_in_body: bool,
    /// Which headers are kept with an event.
    pub kept_headers: KeptHeaders,
    /// Sender addresses let in.
    pub allowed: Allowed,
    /// How many requests it takes.
    pub limits: Limits,
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
