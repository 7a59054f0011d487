//! Taking a sender's secret while its owner has opened the source for that (`provider::pairing` decides). Called by `decide`
//! for a request that did not pass the check: a stranger's offer at another time is refused, and recorded like every no.

use super::{Answer, Early, No, Ring, UNAVAILABLE_RETRY, handshake_decision};
use crate::decision::Check;
use crate::house::House;
use crate::provider::{Offer, PairingState};
use crate::source::{Source, Webhook};

/// The longest body that is looked into for a secret. Senders send some hundred bytes.
const OFFER_BYTES_MAX: usize = 4096;

/// The answer to a request that hands over the sender's secret; none if it does not. A secret that was taken is on disk when
/// this returns, and the source is closed for pairing again.
pub(super) async fn take(
    house: &House,
    source: &Source,
    webhook: &Webhook,
    ring: Ring<'_>,
    checks: &mut Vec<Check>,
) -> Result<Option<Answer>, Box<Early>> {
    if webhook.preset.pairing.is_none() {
        return Ok(None);
    }
    let view = match ring.request.body.len() {
        0..=OFFER_BYTES_MAX => serde_json::from_slice(ring.request.body).unwrap_or_default(),
        _ => serde_json::Value::Null,
    };
    let now = house.clock.now();
    let open = house.open_for_pairing(&source.name);
    let state = open.map_or(PairingState::Closed, |pairing| PairingState::OpenUntil(pairing.until));
    let (secret, answer) = match webhook.preset.offer(&ring.request, &view, state, now) {
        Offer::None => return Ok(None),
        Offer::Refused(why) => return Err(refused(why, checks)),
        Offer::Taken { secret, answer } => (secret, answer),
    };
    match house.take_paired(&source.name, &secret).await {
        Ok(true) => {}
        Ok(false) => return Err(refused("the source is not open for pairing", checks)),
        Err(error) => {
            return Err(Early::new(No::Unavailable(UNAVAILABLE_RETRY), "store_unavailable", error.to_string()));
        }
    }
    checks.push(Check::passed("pairing"));
    let mut decision = handshake_decision(house, source, ring.remote, std::mem::take(checks));
    decision.code = "paired".into();
    decision.reason =
        "the sender handed over its secret, which is kept sealed; the source is closed for pairing".into();
    if let Err(error) = house.store.record(decision).await {
        tracing::warn!(%error, "A handshake could not be recorded");
    }
    tracing::info!(source = %source.name, "A sender handed over its secret");
    Ok(Some(Answer::Handshake(answer)))
}

fn refused(why: &'static str, checks: &mut Vec<Check>) -> Box<Early> {
    checks.push(Check::failed("pairing", "a source that its owner has opened for pairing", why));
    Early::new(No::NotVerified, "pairing_refused", format!("the request offers a secret: {why}"))
}
