//! The door's decision on one request: verify, read, label, filter, and hand the event with its runs to the store in one
//! transaction; or say no, with the reason recorded. Every way in ends here.
//!
//! The order is that of `docs/semantics.md`, rule 3. The caller (the HTTP ingress, a wire contract) has found the source
//! and read the body within its cap; nothing here opens a socket.

mod answer;
mod checks;
mod cloudevents;
mod dedup;
mod direct;
mod pairing;
mod pass;
mod read;
mod route;
mod sender;

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

pub use answer::{Answer, No, Refused, Taken};
use checks::{check_address, check_hops, check_open, check_rate, limit_failure};
use dedup::Vouched;
pub use direct::{DirectError, DirectEvent, admit_direct};
pub use pass::{Passed, answered, let_by, note_agent, passed_on, refuse_by_head, turn_away};
pub(crate) use route::{run as run_of, title as title_of};

use crate::decision::{Check, Kind, NewDecision};
use crate::event::{Admission, Facts, NewEvent, Receipt};
use crate::house::House;
use crate::ids::Name;
use crate::lane::LaneId;
use crate::limits::{Meter, Quota};
use crate::ports::StoreError;
use crate::provider::{self, Labels, Proof, Verified};
use crate::source::{Source, Webhook};
use crate::trigger::Trigger;

/// A request at the door, its body read whole.
#[derive(Clone, Copy, Debug)]
pub struct Ring<'r> {
    /// As the provider engine sees it.
    pub request: provider::Request<'r>,
    /// The real peer: the socket's, or what a trusted proxy says.
    pub remote: Option<IpAddr>,
    /// Checks this request in the place of the source's own verifier: for a wire that takes several proofs of one secret.
    pub verifier: Option<&'r provider::Verifier>,
}

/// How long a sender is asked to wait when the store cannot write or a queue is full.
const UNAVAILABLE_RETRY: Duration = Duration::from_secs(5);

/// Decides on one request to `source`, and commits what it decided.
///
/// Refusals of unverified requests are written behind; everything else is on disk when this returns.
pub async fn admit(house: &House, source: &Arc<Source>, ring: Ring<'_>) -> Answer {
    let mut checks = Vec::with_capacity(4);
    match decide(house, source, ring, &mut checks).await {
        Ok(answer) => answer,
        Err(no) => Answer::Refused(refuse(house, Some(&source.name), ring.remote, *no, checks).await),
    }
}

/// Whether a request is refused whatever its body holds: the source is switched off, or the sender's address is not let
/// in. Then the caller need not read the body before it asks [`admit`], which comes to the same no and records it.
pub fn is_refused_unread(house: &House, source: &Source, remote: Option<IpAddr>) -> bool {
    let Some(webhook) = source.webhook() else { return true };
    check_open(house, source).is_err() || check_address(webhook, remote, &mut Vec::new()).is_err()
}

/// Decides on a request whose method carries no events: the sender's handshake, or a no. Its body was not read.
///
/// What strangers can cause is written behind, like every other refusal of theirs.
pub async fn greet(house: &House, source: &Arc<Source>, ring: Ring<'_>) -> Answer {
    let mut checks = Vec::new();
    let refused = match source.webhook() {
        None => Early::new(No::NotFound, "not_a_webhook", "this source takes no webhooks"),
        Some(webhook) => {
            let asked = check_open(house, source).and_then(|()| check_address(webhook, ring.remote, &mut checks));
            let present = webhook.verifier.now(house.vault(), house.clock.now()).await;
            match (asked, present.verifier().map(|v| v.greeting(&ring.request))) {
                (Err(no), _) => no,
                (Ok(()), Err(why)) => sender::not_ready(why),
                (Ok(()), Ok(Some(answer))) => {
                    house.store.note(handshake_decision(house, source, ring.remote, checks));
                    return Answer::Handshake(answer);
                }
                (Ok(()), Ok(None)) if sender::shows_a_token(webhook, &ring) => {
                    checks.push(Check::failed("handshake", "the source's `verify_token`", "another one"));
                    let reason =
                        "the sender asked whether this address is ours, with another token than `verify_token`";
                    Early::new(No::NotVerified, "not_a_handshake", reason)
                }
                (Ok(()), Ok(None)) => {
                    let reason = format!("a {} came that is not this sender's handshake", ring.request.method);
                    Early::new(No::NotVerified, "not_a_handshake", reason)
                }
            }
        }
    };
    Answer::Refused(refuse(house, Some(&source.name), ring.remote, *refused, checks).await)
}

/// Records a refusal that the caller made itself: unknown path, body too large, stopping.
pub async fn refuse_early(
    house: &House,
    source: Option<&Name>,
    remote: Option<IpAddr>,
    no: No,
    reason: impl Into<Cow<'static, str>>,
) -> Refused {
    refuse(house, source, remote, *Early::new(no, no.code(), reason), Vec::new()).await
}

/// The same for a call that rings no source, with a code and a reason of its own.
pub async fn refuse_call(
    house: &House,
    remote: Option<IpAddr>,
    no: No,
    (code, reason): (&'static str, Cow<'static, str>),
) -> Refused {
    refuse(house, None, remote, *Early::new(no, code, reason), Vec::new()).await
}

/// A no on its way to the record.
struct Early {
    no: No,
    code: Cow<'static, str>,
    reason: Cow<'static, str>,
    keep: Keep,
}

/// How a no is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    /// On disk before the answer.
    First,
    /// Written behind, in the source's ring: a flood of them must not become a flood of commits.
    Behind,
    /// Not at all: it is one of a series whose first is kept.
    Counted,
}

impl Early {
    fn new(no: No, code: impl Into<Cow<'static, str>>, reason: impl Into<Cow<'static, str>>) -> Box<Self> {
        Box::new(Self { no, code: code.into(), reason: reason.into(), keep: Keep::Behind })
    }

    /// Of a request that was verified: the number of those is bounded by people who hold a secret, and by the limits.
    fn verified(no: No, code: impl Into<Cow<'static, str>>, reason: impl Into<Cow<'static, str>>) -> Box<Self> {
        let keep = match no.kind() {
            Kind::Unavailable | Kind::Limited => Keep::Behind,
            _ => Keep::First,
        };
        Box::new(Self { no, code: code.into(), reason: reason.into(), keep })
    }

    fn only_counted(mut self: Box<Self>) -> Box<Self> {
        self.keep = Keep::Counted;
        self
    }
}

async fn refuse(
    house: &House,
    source: Option<&Name>,
    remote: Option<IpAddr>,
    early: Early,
    checks: Vec<Check>,
) -> Refused {
    let decision = NewDecision {
        at: house.clock.now(),
        source: source.cloned(),
        kind: early.no.kind(),
        code: early.code.clone(),
        reason: early.reason.clone(),
        checks: checks.clone(),
        event: None,
        remote,
    };
    count(&decision, source);
    match early.keep {
        Keep::Counted => {}
        Keep::Behind => {
            tell(&decision, house);
            house.store.note(decision);
        }
        Keep::First => {
            tell(&decision, house);
            if let Err(error) = house.store.record(decision).await {
                tracing::warn!(%error, "a decision could not be recorded");
            }
        }
    }
    Refused { no: early.no, code: early.code, reason: early.reason, checks }
}

/// One line a refusal, so that whoever sets a sender up sees it come in; a flood of them is told a few times a second.
fn tell(decision: &NewDecision, house: &House) {
    static LINES: LazyLock<Option<Meter>> =
        LazyLock::new(|| Quota::new(5, Duration::from_secs(1), "5/s").map(Meter::new));
    let Some(source) = &decision.source else { return };
    if LINES.as_ref().is_some_and(|lines| lines.take(house.clock.uptime()).is_ok()) {
        tracing::info!(%source, kind = %decision.kind, reason = %decision.reason, "refused a request; `doorbell decisions` has all of them");
    }
}

fn count(decision: &NewDecision, source: Option<&Name>) {
    let source = source.map_or_else(|| "-".to_owned(), ToString::to_string);
    let code = decision.code.clone();
    metrics::counter!("doorbell_rejects_total", "source" => source, "kind" => decision.kind.as_str(), "reason" => code)
        .increment(1);
}

async fn decide(
    house: &House,
    source: &Arc<Source>,
    ring: Ring<'_>,
    checks: &mut Vec<Check>,
) -> Result<Answer, Box<Early>> {
    let Some(webhook) = source.webhook() else {
        return Err(Early::new(No::NotFound, "not_a_webhook", "this source takes no webhooks"));
    };
    check_open(house, source)?;
    check_address(webhook, ring.remote, checks)?;
    let present = webhook.verifier.now(house.vault(), house.clock.now()).await;
    let own = present.verifier();
    let verified = match sender::check(webhook, ring.verifier.map_or(own, Ok), ring, house, checks).await {
        Ok(verified) => verified,
        Err(no) => return unverified(house, source, (webhook, own.ok()), ring, checks, no).await,
    };
    // A wire that brings a check of its own has its own handshakes.
    let Some(verifier) = own.ok().or(ring.verifier) else {
        return Err(Early::new(No::NotVerified, "not_verified", "nothing checks this request"));
    };
    let checked_by = ring.verifier.unwrap_or(verifier);
    if let Some(asked) = verifier.confirmation(&ring.request, &verified) {
        let answer = sender::confirm(webhook, &asked).await?;
        record_handshake(house, source, ring.remote, std::mem::take(checks)).await;
        return Ok(Answer::Handshake(answer));
    }
    let whole = read::whole(source, webhook, ring, checks)?;
    if let Some(view) = whole.view()
        && let Some(answer) = verifier.handshake(&ring.request, view, &verified)
    {
        record_handshake(house, source, ring.remote, std::mem::take(checks)).await;
        return Ok(Answer::Handshake(answer));
    }
    let hops = check_hops(source, ring.request.headers, checks)?;
    check_rate(webhook, ring.remote, house, checks)?;
    // Held until the events are stored.
    let _turn = route::check_full(house, source).await?;
    let idempotency_key = ring.request.headers.get("idempotency-key").and_then(|v| v.to_str().ok());
    let is_batch = whole.is_batch(webhook);
    let mut events = Vec::with_capacity(1);
    for (at, letter) in whole.letters(source, (webhook, checked_by), ring)?.into_iter().enumerate() {
        // One key for the whole request: with its place it is a key of the element.
        let of_element = idempotency_key.filter(|_| is_batch).map(|k| format!("{k} {at}"));
        let read::Letter { labels, headers, body, view, as_sent, whole } = letter;
        let facts = Facts { hops, headers, ..facts(webhook, ring, (checked_by, &verified), &labels, checks) };
        let vouched = vouch(&verified, &labels);
        let arrival = route::Arrival { labels, facts, as_sent, whole, body, view, vouched, remote: ring.remote };
        events.push(route::event(house, source, arrival, of_element.as_deref().or(idempotency_key)));
    }
    if events.is_empty() {
        nothing_in_it(house, source, ring.remote, std::mem::take(checks)).await;
        return Ok(Answer::Taken(Vec::new()));
    }
    let taken = commit(house, source, events).await;
    taken.map(Answer::Taken).inspect_err(|early| checks.push(not_stored(early)))
}

/// The check that a good request failed in the store, beside those that it passed.
fn not_stored(early: &Early) -> Check {
    let wanted = match &*early.code {
        "queue_full" => "room in the queue",
        _ => "a store that can write",
    };
    Check::failed("store", wanted, early.reason.clone())
}

/// A batch of nothing makes no event that would be its decision.
async fn nothing_in_it(house: &House, source: &Source, remote: Option<IpAddr>, checks: Vec<Check>) {
    let kind = Kind::Ignored;
    metrics::counter!("doorbell_acks_total", "source" => source.name.to_string(), "kind" => kind.as_str()).increment(1);
    let decision = NewDecision {
        at: house.clock.now(),
        source: Some(source.name.clone()),
        kind,
        code: "empty_batch".into(),
        reason: "the request was a batch, and there was no event in it".into(),
        checks,
        event: None,
        remote,
    };
    if let Err(error) = house.store.record(decision).await {
        tracing::warn!(%error, "a decision could not be recorded");
    }
}

/// What becomes of a request that did not pass the check. Some senders ask, or hand over their secret, before they have
/// anything to sign with. Looked at last, so that what is signed is never mistaken for it.
async fn unverified(
    house: &House,
    source: &Source,
    (webhook, verifier): (&Webhook, Option<&provider::Verifier>),
    ring: Ring<'_>,
    checks: &mut Vec<Check>,
    no: Box<Early>,
) -> Result<Answer, Box<Early>> {
    if let Some(answer) = verifier.and_then(|v| v.greeting(&ring.request)) {
        house.store.note(handshake_decision(house, source, ring.remote, std::mem::take(checks)));
        return Ok(Answer::Handshake(answer));
    }
    match pairing::take(house, source, webhook, ring, checks).await {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err(limit_failure(webhook, ring.remote, house, checks, no)),
        Err(no) => Err(limit_failure(webhook, ring.remote, house, checks, no)),
    }
}

async fn record_handshake(house: &House, source: &Source, remote: Option<IpAddr>, checks: Vec<Check>) {
    if let Err(error) = house.store.record(handshake_decision(house, source, remote, checks)).await {
        tracing::warn!(%error, "a handshake could not be recorded");
    }
}

fn handshake_decision(house: &House, source: &Source, remote: Option<IpAddr>, checks: Vec<Check>) -> NewDecision {
    metrics::counter!("doorbell_handshakes_total", "source" => source.name.to_string()).increment(1);
    NewDecision {
        at: house.clock.now(),
        source: Some(source.name.clone()),
        kind: Kind::Handshake,
        code: "handshake".into(),
        reason: "the provider asked whether this endpoint is ours, and was answered".into(),
        checks,
        event: None,
        remote,
    }
}

fn facts(
    webhook: &Webhook,
    ring: Ring<'_>,
    (verifier, verified): (&provider::Verifier, &Verified),
    labels: &Labels,
    checks: &[Check],
) -> Facts {
    Facts {
        sender_id: labels.id.clone(),
        actor: labels.actor.clone(),
        time: labels.time,
        verified_by: verified.is_authenticated().then(|| sender::describe(verifier, verified)),
        query: webhook.preset.kept_query(ring.request.query),
        checks: checks.to_vec(),
        ..Facts::default()
    }
}

/// What the check of the sender vouches for, for telling redeliveries.
fn vouch(verified: &Verified, labels: &Labels) -> Vouched {
    match verified.proof() {
        Proof::Nothing | Proof::Credential => Vouched::Nothing,
        Proof::Body | Proof::Part if labels.id_signed => Vouched::Id,
        Proof::Body | Proof::Part => Vouched::Body,
    }
}

/// What is remembered of an event while the store has it.
struct Offered {
    kind: Kind,
    /// Trigger and lane of each run.
    runs: Vec<(Name, Option<LaneId>)>,
    reason: Option<&'static str>,
}

async fn commit(house: &House, source: &Source, events: Vec<NewEvent>) -> Result<Vec<Taken>, Box<Early>> {
    let offered: Vec<Offered> = events
        .iter()
        .map(|e| Offered {
            kind: e.verdict,
            runs: e.runs.iter().map(|r| (r.trigger.clone(), r.lane)).collect(),
            reason: route::ignored_word(e),
        })
        .collect();
    let receipts = match house.store.accept(Admission { at: house.clock.now(), events }).await {
        Ok(receipts) => receipts,
        Err(error) => {
            offered.iter().for_each(|o| not_started(house, source, &o.runs));
            return Err(unavailable(&error));
        }
    };
    let mut taken = Vec::with_capacity(receipts.len());
    for (receipt, Offered { kind, runs: triggers, reason }) in receipts.into_iter().zip(offered) {
        let (kind, entry) = match receipt {
            Receipt::Duplicate { event, runs, .. } => {
                not_started(house, source, &triggers);
                (Kind::Duplicate, Taken::Duplicate { event, runs })
            }
            Receipt::Stored { event, runs } if kind == Kind::Accepted => {
                (kind, Taken::Accepted { event, runs: triggers.into_iter().map(|(name, _)| name).zip(runs).collect() })
            }
            Receipt::Stored { event, .. } => (kind, Taken::Ignored { event, reason: reason.unwrap_or("filter") }),
        };
        metrics::counter!("doorbell_acks_total", "source" => source.name.to_string(), "kind" => kind.as_str())
            .increment(1);
        tell_taken(source, kind, &entry);
        taken.push(entry);
    }
    Ok(taken)
}

/// Gives the storm caps back what was taken for runs that did not start after all.
fn not_started(house: &House, source: &Source, runs: &[(Name, Option<LaneId>)]) {
    for (name, lane) in runs {
        if let Some(cap) = source.triggers.iter().find(|t| t.name == *name).and_then(|t| t.storm_cap.as_ref()) {
            cap.give_back(Trigger::storm_key(*lane), house.clock.uptime());
        }
    }
}

/// For whoever looks for it with `DOORBELL_LOG`: a line for each event by default would cost more than much of the rest of
/// the way to its answer. What was accepted is in the store, and what becomes of it is told by the worker.
fn tell_taken(source: &Source, kind: Kind, taken: &Taken) {
    let (Taken::Accepted { event, .. } | Taken::Ignored { event, .. } | Taken::Duplicate { event, .. }) = taken;
    tracing::debug!(source = %source.name, %kind, event.id = %event, "took an event");
}

fn unavailable(error: &StoreError) -> Box<Early> {
    match error {
        StoreError::QueueFull { .. } => {
            let code = "queue_full";
            Early::verified(No::Unavailable(UNAVAILABLE_RETRY), code, error.to_string())
        }
        StoreError::Closed => Early::verified(No::Unavailable(UNAVAILABLE_RETRY), "stopping", error.to_string()),
        _ => Early::verified(No::Unavailable(UNAVAILABLE_RETRY), "store_unavailable", error.to_string()),
    }
}
