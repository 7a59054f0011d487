//! Senders that hand over their secret inside the first request (Asana's `X-Hook-Secret`, Notion's `verification_token`).
//!
//! Whoever sends first would choose the key of a source that takes such a secret at any time. So it is taken only while the
//! owner has opened the source for pairing, for minutes, and a source that has a secret keeps it until then. This module
//! decides; keeping the secret is the caller's.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::Value;

use super::Request;
use super::handshake::Answer;
use super::preset::Preset;
use super::select::Place;
use crate::{Secret, Timestamp};

/// The longest that a source may stand open: the time to click through a sender's settings.
pub const PAIRING_MAX: Duration = Duration::from_secs(600);

/// What a secret may be long. Shorter ones can be guessed, longer ones are somebody's text.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 16..=512;

/// How a sender hands over its secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pairing {
    /// Where it stands.
    pub secret: Place,
    /// The header that gives it back, if the sender wants that.
    pub echo: Option<HeaderName>,
}

/// Whether the owner has opened a source for pairing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PairingState {
    /// No: an offered secret is refused.
    Closed,
    /// Until this time.
    OpenUntil(Timestamp),
}

/// What to do with a request that may offer a secret.
#[derive(Clone, Debug)]
pub enum Offer {
    /// It offers none.
    None,
    /// It offers one and must not: nobody opened the source, or the secret is no secret.
    Refused(&'static str),
    /// Keep the secret, close the source for pairing, and answer this.
    Taken {
        /// The secret.
        secret: Secret,
        /// The answer.
        answer: Answer,
    },
}

impl Preset {
    /// Decides on a request that did not pass the check. `view` is the parsed body.
    pub fn offer(&self, request: &Request<'_>, view: &Value, state: PairingState, now: Timestamp) -> Offer {
        let Some(pairing) = &self.pairing else { return Offer::None };
        // One secret, as it came: what is there twice is not taken.
        let Ok(secret) = pairing.secret.exact(request, Some(view)) else { return Offer::None };
        // A delivery that is signed and carries the field too is a delivery.
        let has_proof = self.credentials().iter().any(|place| place.exact(request, Some(view)).is_ok());
        if has_proof {
            return Offer::None;
        }
        match state {
            PairingState::OpenUntil(until) if until >= now && until.since(now) <= PAIRING_MAX => {}
            _ => return Offer::Refused("the source is not open for pairing"),
        }
        let secret = std::str::from_utf8(&secret).ok();
        let secret = secret.filter(|s| SECRET_BYTES.contains(&s.len()) && s.bytes().all(|b| b.is_ascii_graphic()));
        let Some(secret) = secret else { return Offer::Refused("what is offered is no secret") };
        let mut headers = HeaderMap::new();
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let (Some(name), Ok(mut value)) = (&pairing.echo, HeaderValue::from_str(secret)) {
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let answer = Answer { status: StatusCode::OK, headers, body: String::new() };
        Offer::Taken { secret: Secret::new(secret), answer }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http::Method;

    const NOW: Timestamp = Timestamp::from_secs(1_760_000_000);
    const SECRET: &str = "b537207f20cbfa02357cf448134da559";

    fn offer(pairs: &[(&str, &str)], state: PairingState) -> Offer {
        let asana = super::super::get("asana").unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        let body = Bytes::new();
        let request = Request {
            method: &Method::POST,
            url: None,
            path: "/",
            query: "",
            headers: &headers,
            body: &body,
            via: crate::provider::Via::Anybody,
        };
        asana.offer(&request, &Value::Null, state, NOW)
    }

    fn open(secs: i64) -> PairingState {
        PairingState::OpenUntil(Timestamp::from_secs(NOW.secs() + secs))
    }

    #[test]
    fn a_secret_is_taken_while_the_owner_has_opened_the_source_and_given_back() {
        let Offer::Taken { secret, answer } = offer(&[("x-hook-secret", SECRET)], open(60)) else { panic!() };
        assert_eq!(secret.expose(), SECRET);
        assert_eq!(answer.headers["x-hook-secret"], SECRET);
        assert_eq!(answer.status, 200);
    }

    #[test]
    fn nothing_is_taken_from_a_stranger_at_another_time() {
        for state in [PairingState::Closed, open(-1), open(601)] {
            assert!(matches!(offer(&[("x-hook-secret", SECRET)], state), Offer::Refused(_)), "{state:?}");
        }
        assert!(matches!(offer(&[], open(60)), Offer::None));
        assert!(matches!(offer(&[("x-hook-secret", SECRET), ("x-hook-secret", SECRET)], open(60)), Offer::None));
        let signed = [("x-hook-secret", SECRET), ("x-hook-signature", "00")];
        assert!(matches!(offer(&signed, open(60)), Offer::None));
        for odd in ["short", "has a blank in it, which no secret has"] {
            assert!(matches!(offer(&[("x-hook-secret", odd)], open(60)), Offer::Refused(_)), "{odd}");
        }
    }
}
