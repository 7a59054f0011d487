//! The door's checks of a request that a wire contract passes on to an agent's own server at once: nothing is stored but the
//! decision, so this is no way for an event to come in. Rule 16 of `docs/semantics.md`.

use std::borrow::Cow;
use std::net::IpAddr;

use super::checks::{check_address, check_hops, check_open, check_rate, limit_failure};
use super::{Early, No, Refused, Ring, record_handshake, refuse, sender};
use crate::decision::{Check, Kind, NewDecision};
use crate::house::House;
use crate::ids::Name;
use crate::source::Source;

/// A request that may be passed on.
#[derive(Debug)]
pub struct Passed {
    /// Every check made, in order.
    pub checks: Vec<Check>,
    /// How many runs it says it comes from.
    pub hops: u32,
    /// Which of the verifier's secrets it was, from 0.
    pub secret: Option<usize>,
}

/// Checks one request in the order of rule 3, and records a no.
///
/// # Errors
/// The no, with its reason.
pub async fn let_by(house: &House, source: &Source, ring: Ring<'_>) -> Result<Passed, Refused> {
    let mut checks = Vec::with_capacity(4);
    match check(house, source, ring, &mut checks).await {
        Ok((hops, secret)) => Ok(Passed { checks, hops, secret }),
        Err(no) => Err(refuse(house, Some(&source.name), ring.remote, *no, checks).await),
    }
}

async fn check(
    house: &House,
    source: &Source,
    ring: Ring<'_>,
    checks: &mut Vec<Check>,
) -> Result<(u32, Option<usize>), Box<Early>> {
    let Some(webhook) = source.webhook() else {
        return Err(Early::new(No::NotFound, "not_a_webhook", "this source takes no webhooks"));
    };
    check_open(house, source)?;
    check_address(webhook, ring.remote, checks)?;
    let present = webhook.verifier.now(house.vault(), house.clock.now()).await;
    let verifier = ring.verifier.map_or(present.verifier(), Ok);
    let verified = match sender::check(webhook, verifier, ring, house, checks).await {
        Ok(verified) => verified,
        Err(no) => return Err(limit_failure(webhook, ring.remote, house, checks, no)),
    };
    let hops = check_hops(source, ring.request.headers, checks)?;
    check_rate(webhook, ring.remote, house, checks)?;
    Ok((hops, verified.secret_index()))
}

/// Refuses a request by its head, whose body was not read, where the check of its sender needs no more; none: read on.
pub async fn refuse_by_head(house: &House, source: &Source, ring: Ring<'_>) -> Option<Refused> {
    let webhook = source.webhook()?;
    let present = webhook.verifier.now(house.vault(), house.clock.now()).await;
    let verifier = ring.verifier.map_or(present.verifier(), Ok).ok().filter(|verifier| verifier.reads_head_alone())?;
    let mut checks = Vec::with_capacity(4);
    let passed = match check_open(house, source).and_then(|()| check_address(webhook, ring.remote, &mut checks)) {
        Ok(()) => match sender::check(webhook, Ok(verifier), ring, house, &mut checks).await {
            Ok(_) => Ok(()),
            Err(no) => Err(limit_failure(webhook, ring.remote, house, &mut checks, no)),
        },
        Err(no) => Err(no),
    };
    let no = passed.err()?;
    Some(refuse(house, Some(&source.name), ring.remote, *no, checks).await)
}

/// Refuses a request that carries no proof that could be checked, with a code and a reason of the contract's own. Failures
/// are limited as those of every check are.
pub async fn turn_away(
    house: &House,
    source: &Source,
    remote: Option<IpAddr>,
    no: No,
    why: (&'static str, Cow<'static, str>),
) -> Refused {
    let (code, reason) = why;
    let mut checks = Vec::new();
    let mut early = Early::new(no, code, reason);
    if let Some(webhook) = source.webhook() {
        early = match check_open(house, source).and_then(|()| check_address(webhook, remote, &mut checks)) {
            Ok(()) => limit_failure(webhook, remote, house, &mut checks, early),
            Err(no) => no,
        };
    }
    refuse(house, Some(&source.name), remote, *early, checks).await
}

/// Records that a checked request was passed on, and what came of it; on disk when this returns, unless the store cannot
/// write: then it is logged, since the agent has done its work already.
pub async fn passed_on(
    house: &House,
    source: &Source,
    remote: Option<IpAddr>,
    checks: Vec<Check>,
    outcome: (&'static str, String),
) {
    let (code, reason) = outcome;
    let decision = NewDecision {
        at: house.clock.now(),
        source: Some(source.name.clone()),
        kind: Kind::Forwarded,
        code: code.into(),
        reason: reason.into(),
        checks,
        event: None,
        remote,
    };
    metrics::counter!("doorbell_forwards_total", "source" => source.name.to_string(), "outcome" => code).increment(1);
    if let Err(error) = house.store.record(decision).await {
        tracing::warn!(%error, source = %source.name, "a forwarded request could not be recorded");
    }
}

/// Records that a sender's question, which was checked like a request, was answered.
pub async fn answered(house: &House, source: &Source, remote: Option<IpAddr>, checks: Vec<Check>) {
    record_handshake(house, source, remote, checks).await;
}

/// Records that an agent of a wire contract came or went: `code` is `registered` or `unregistered`. A handshake, as `paired`
/// is: it opens a way and brings no event. On disk when this returns, unless the store cannot write: then it is logged.
pub async fn note_agent(house: &House, agent: &Name, remote: IpAddr, (code, reason): (&'static str, String)) {
    let decision = NewDecision {
        at: house.clock.now(),
        source: Some(agent.clone()),
        kind: Kind::Handshake,
        code: code.into(),
        reason: reason.into(),
        checks: Vec::new(),
        event: None,
        remote: Some(remote),
    };
    if let Err(error) = house.store.record(decision).await {
        tracing::warn!(%error, %agent, code, "what became of an agent could not be recorded");
    }
}
