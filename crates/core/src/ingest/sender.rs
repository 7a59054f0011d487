//! The check of the sender at the door: with the source's secrets, or with a key that is fetched first. Called by `decide`.

use super::{Early, No, Ring, UNAVAILABLE_RETRY};
use crate::decision::Check;
use crate::house::House;
use crate::provider::{Answer, KeyUnavailable, KeyUrl, Verified};
use crate::source::Webhook;

/// Checks the sender. While its key cannot be had it is neither let in nor turned away: 503, and it may try again.
pub(super) async fn check(
    webhook: &Webhook,
    ring: Ring<'_>,
    house: &House,
    checks: &mut Vec<Check>,
) -> Result<Verified, Box<Early>> {
    let now = house.clock.now();
    let verifier = ring.verifier.unwrap_or(&webhook.verifier);
    let verdict = match verifier.key_url(&ring.request) {
        Ok(None) => verifier.verify(&ring.request, now),
        Ok(Some(url)) => {
            let key = match &webhook.keys {
                Some(keys) => keys.get(&url, now).await,
                None => Err(KeyUnavailable::without_client()),
            };
            let key = key.map_err(|fault| {
                checks.push(Check::failed("signature", "the sender's key", fault.to_string()));
                unavailable(&fault)
            })?;
            verifier.verify_with(&ring.request, &key)
        }
        Err(refusal) => Err(refusal),
    };
    match verdict {
        Ok(verified) => {
            checks.push(Check::passed("signature").seeing(describe(webhook, &verified)));
            Ok(verified)
        }
        Err(refusal) => {
            checks.push(Check::failed("signature", refusal.wanted(), refusal.seen()));
            Err(Early::new(No::NotVerified, refusal.code(), refusal.to_string()))
        }
    }
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

/// How the sender was verified, in words: `github hmac-sha256, secret 1`.
pub(super) fn describe(webhook: &Webhook, verified: &Verified) -> String {
    let (id, scheme) = (&webhook.preset.id, verified.scheme());
    match verified.secret_index() {
        Some(index) => format!("{id} {scheme}, secret {}", index + 1),
        None => format!("{id} {scheme}"),
    }
}
