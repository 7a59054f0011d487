//! The check of the sender at the door: with the source's secrets, or with a key that is fetched first. Called by `decide`.

use super::{Early, No, Ring, UNAVAILABLE_RETRY};
use crate::Timestamp;
use crate::decision::Check;
use crate::house::House;
use crate::provider::{Answer, KeyUnavailable, KeyUrl, Refusal, Verified, Verifier};
use crate::source::{NotReady, Webhook};

/// Checks the sender. While its key cannot be had it is neither let in nor turned away: 503, and it may try again.
pub(super) async fn check(
    webhook: &Webhook,
    verifier: Result<&Verifier, &NotReady>,
    ring: Ring<'_>,
    house: &House,
    checks: &mut Vec<Check>,
) -> Result<Verified, Box<Early>> {
    let now = house.clock.now();
    let verifier = verifier.map_err(not_ready)?;
    let verdict = match verifier.key_url(&ring.request) {
        Ok(None) => verifier.verify(&ring.request, now),
        Ok(Some(url)) => {
            let verdict = with_key(webhook, verifier, ring, &url, now).await;
            verdict.map_err(|fault| {
                checks.push(Check::failed("signature", "the sender's key", fault.to_string()));
                unavailable(&fault)
            })?
        }
        Err(refusal) => Err(refusal),
    };
    match verdict {
        Ok(verified) => {
            checks.push(Check::passed("signature").seeing(describe(verifier, &verified)));
            Ok(verified)
        }
        Err(refusal) => {
            checks.push(Check::failed("signature", refusal.wanted(), refusal.seen()));
            let reason = match (&refusal, signed_url(verifier, &ring)) {
                (Refusal::SignatureMismatch { .. }, Some(url)) => {
                    format!(
                        "{refusal}, or the sender knows this address by another URL than `{url}` (server.public_url)"
                    )
                }
                _ => refusal.to_string(),
            };
            Err(Early::new(No::NotVerified, refusal.code(), reason))
        }
    }
}

/// Whether the request shows a token as this sender does when it asks if an address is ours.
pub(super) fn shows_a_token(webhook: &Webhook, ring: &Ring<'_>) -> bool {
    let place = webhook.preset.verify_token();
    place.is_some_and(|place| place.text(&ring.request, &serde_json::Value::Null).is_some())
}

/// The URL that it was checked against, where the sender signs it; without the query, which may hold secrets.
fn signed_url<'r>(verifier: &Verifier, ring: &Ring<'r>) -> Option<&'r str> {
    let url = ring.request.url.filter(|_| verifier.preset().signs_public_url())?;
    Some(url.split('?').next().unwrap_or(url))
}

/// Checks a request whose key is fetched. Where the key may be what is wrong, with the one that stands there now.
async fn with_key(
    webhook: &Webhook,
    verifier: &Verifier,
    ring: Ring<'_>,
    url: &KeyUrl,
    now: Timestamp,
) -> Result<Result<Verified, Refusal>, KeyUnavailable> {
    // What no key could make good needs none: it is turned away as it is, and nobody is asked for a key on its account.
    if let Err(refusal) = verifier.verify_with(&ring.request, b"", now)
        && is_of_its_shape(&refusal)
    {
        return Ok(Err(refusal));
    }
    let Some(keys) = &webhook.keys else { return Err(KeyUnavailable::without_client()) };
    let key = keys.get(url, now).await?;
    let mut verdict = verifier.verify_with(&ring.request, &key, now);
    if let Err(refusal) = &verdict
        && verifier.may_be_stale(refusal)
    {
        match keys.renew(url, &key, now).await {
            Ok(newer) if newer != key => verdict = verifier.verify_with(&ring.request, &newer, now),
            Ok(_) => {}
            // A key that is there says no: that is an answer. One that is not known here says nothing.
            Err(_) if matches!(refusal, Refusal::SignatureMismatch { .. }) => {}
            Err(fault) => return Err(fault),
        }
    }
    match verdict {
        Err(Refusal::KeyUnreadable) => Err(KeyUnavailable::unreadable()),
        Err(refusal) => Ok(Err(refusal)),
        Ok(verified) => {
            keys.prove(url);
            Ok(Ok(verified))
        }
    }
}

/// Whether a refusal speaks of what is not there or is in no form, so that it is the same whatever the key is.
fn is_of_its_shape(refusal: &Refusal) -> bool {
    matches!(
        refusal,
        Refusal::SignatureMissing(_)
            | Refusal::SignatureMalformed { .. }
            | Refusal::CredentialMissing(_)
            | Refusal::CredentialMalformed { .. }
            | Refusal::PartMissing(_)
            | Refusal::PartRepeated(_)
    )
}

/// Confirms what a verified request asks to have confirmed, by asking the sender's own address.
pub(super) async fn confirm(webhook: &Webhook, asked: &KeyUrl) -> Result<Answer, Box<Early>> {
    let outcome = match &webhook.keys {
        Some(keys) => keys.ask(asked).await,
        None => Err(KeyUnavailable::without_client()),
    };
    outcome.map_err(|fault| unavailable(&fault))?;
    Ok(Answer { status: http::StatusCode::OK, headers: http::HeaderMap::new(), body: String::new() })
}

fn unavailable(fault: &KeyUnavailable) -> Box<Early> {
    Early::new(No::Unavailable(UNAVAILABLE_RETRY), "key_unavailable", fault.to_string())
}

/// Without its secrets a source lets nobody in: neither the good nor the bad can be told.
pub(super) fn not_ready(why: &NotReady) -> Box<Early> {
    Early::new(No::Unavailable(UNAVAILABLE_RETRY), why.code, why.reason.clone())
}

/// How the sender was verified, in words: `github hmac-sha256, secret 1`.
pub(super) fn describe(verifier: &Verifier, verified: &Verified) -> String {
    let (id, scheme) = (&verifier.preset().id, verified.scheme());
    match verified.secret_index() {
        Some(index) => format!("{id} {scheme}, secret {}", index + 1),
        None if !verified.is_authenticated() => "nothing: the source takes events from anybody".to_owned(),
        None => format!("{id} {scheme}"),
    }
}
