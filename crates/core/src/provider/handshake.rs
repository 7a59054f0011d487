//! Handshakes: requests by which a sender asks whether this address is ours, and what it wants to hear. Data in the
//! preset; called at the door.
//!
//! Two promises. [`Verifier::handshake`] answers inside a request that passed the check. [`Verifier::greeting`] answers
//! what a sender asks before it has anything to sign with: a `GET` with a challenge, or an unsigned `POST` whose shape
//! the preset knows. A greeting makes no event and says nothing but what was asked, so the worst that a stranger gets is
//! his own words back, as plain text; where the sender shows a token that the owner chose, that is compared first.

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde_json::Value;

use super::preset::Preset;
use super::select::Place;
use super::signed::{Piece, Template};
use super::{Request, Verified, Verifier};

/// The longest answer. Challenges are some dozen characters; more would make us a mirror for somebody's text.
const ANSWER_BYTES_MAX: usize = 4096;

/// The longest body of a request that is not signed and yet looked into.
const GREETING_BYTES_MAX: usize = 4096;

/// The longest value that is answered with its HMAC. Senders ask with 20 to 60 characters.
pub(super) const MAC_BYTES_MAX: usize = 128;

/// One handshake of a preset.
#[derive(Clone, PartialEq, Debug)]
pub struct Handshake {
    /// The method it comes with.
    pub method: Method,
    /// Whether it has to pass the check first.
    pub order: Order,
    /// All of these places must hold this.
    pub when: Vec<(Place, Wanted)>,
    /// The answer's body; none is an empty one.
    pub answer: Option<Template>,
    /// Further headers of the answer.
    pub headers: Vec<(HeaderName, Template)>,
    /// The answer's media type. If it is JSON, values are written as JSON texts.
    pub content_type: HeaderValue,
    /// The answer's status.
    pub status: StatusCode,
}

/// When a handshake is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// After the check of the sender.
    Verified,
    /// Without one, because the sender cannot sign it.
    Unsigned,
}

/// What a place has to hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// Just this text.
    Text(String),
    /// Anything at all, written `*`.
    Anything,
    /// Up to 64 hex digits, written `{hex}`.
    Hex,
    /// What the source's `verify_token` is, written `{verify_token}`. Never met while none is set.
    VerifyToken,
}

/// What a handshake is answered.
#[derive(Clone, PartialEq, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// All headers, the media type among them.
    pub headers: HeaderMap,
    /// The body.
    pub body: String,
}

impl Verifier {
    /// The answer, if this request is a handshake that comes after the check. `view` is the parsed body as in
    /// [`Preset::labels`](super::Preset::labels). Asks for the [`Verified`] so that nobody is answered before it.
    pub fn handshake(&self, request: &Request<'_>, view: &Value, _checked: &Verified) -> Option<Answer> {
        self.first(Order::Verified, request, view)
    }

    /// The answer, if this request is a handshake that its sender cannot sign. Ask only when the check has failed, or for
    /// a method that carries no events.
    pub fn greeting(&self, request: &Request<'_>) -> Option<Answer> {
        if request.body.len() > GREETING_BYTES_MAX {
            return None;
        }
        let view = serde_json::from_slice(request.body).unwrap_or_default();
        self.first(Order::Unsigned, request, &view)
    }

    fn first(&self, order: Order, request: &Request<'_>, view: &Value) -> Option<Answer> {
        let handshakes = self.preset().handshakes.iter();
        let mut mine = handshakes.filter(|h| h.order == order && h.method == *request.method);
        mine.find_map(|h| self.answer(h, request, view))
    }

    fn answer(&self, handshake: &Handshake, request: &Request<'_>, view: &Value) -> Option<Answer> {
        let is_met = |(place, wanted): &(Place, Wanted)| {
            let text = place.text(request, view);
            match (text, wanted) {
                (None, _) => false,
                (Some(_), Wanted::Anything) => true,
                (Some(text), Wanted::Hex) => text.len() <= 64 && text.bytes().all(|b| b.is_ascii_hexdigit()),
                (Some(text), Wanted::Text(wanted)) => text == *wanted,
                (Some(text), Wanted::VerifyToken) => {
                    self.options.verify_token.as_ref().is_some_and(|token| token.matches(text.as_bytes()))
                }
            }
        };
        if !handshake.when.iter().all(is_met) {
            return None;
        }
        let is_json = handshake.content_type.as_bytes().starts_with(b"application/json");
        let body = match &handshake.answer {
            Some(template) => self.render(template, request, view, if is_json { as_json } else { as_it_is })?,
            None => String::new(),
        };
        let mut headers = HeaderMap::new();
        for (name, template) in &handshake.headers {
            let value = self.render(template, request, view, as_it_is)?;
            headers.insert(name, HeaderValue::from_str(&value).ok()?);
        }
        if handshake.answer.is_some() {
            headers.insert(header::CONTENT_TYPE, handshake.content_type.clone());
        }
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        Some(Answer { status: handshake.status, headers, body })
    }

    fn render(
        &self,
        template: &Template,
        request: &Request<'_>,
        view: &Value,
        write: fn(&str, &mut String),
    ) -> Option<String> {
        let mut text = String::new();
        for piece in template.pieces() {
            match piece {
                Piece::Literal(literal) => text.push_str(literal),
                Piece::At(place) => write(&place.text(request, view)?, &mut text),
                Piece::Lower(place) => write(&place.text(request, view)?.to_ascii_lowercase(), &mut text),
                // Hex and base64 need no quoting in JSON, and may stand behind a prefix inside its quotes.
                Piece::Mac(encoding, place) => {
                    let value = place.text(request, view)?;
                    if !is_plain_challenge(&value) {
                        return None;
                    }
                    let key = self.keys.newest_hmac()?;
                    let mac = aws_lc_rs::hmac::sign(key, value.as_bytes());
                    text.push_str(&encoding.encode(mac.as_ref()));
                }
                Piece::KeyName => text.push_str(self.key_name.as_deref()?),
                _ => return None,
            }
        }
        (text.len() <= ANSWER_BYTES_MAX).then_some(text)
    }
}

/// Whether a value may be answered with its HMAC. Some senders sign their deliveries with the same key and over the bare
/// body (X), so whoever may choose the value freely gets any body signed by us. A challenge is letters, digits and the
/// marks of base64; no JSON object can be written with them. What can (a number; Braintree's base64, with any fields
/// beside it) is refused as a signed text by `verify`.
pub(super) fn is_plain_challenge(value: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_+/=.".contains(&b);
    (1..=MAC_BYTES_MAX).contains(&value.len()) && value.bytes().all(plain)
}

impl Preset {
    /// Whether a request of this method may be a handshake at all.
    pub fn greets(&self, method: &Method) -> bool {
        self.handshakes.iter().any(|h| h.order == Order::Unsigned && h.method == *method)
    }
}

fn as_it_is(value: &str, text: &mut String) {
    text.push_str(value);
}

fn as_json(value: &str, text: &mut String) {
    text.push_str(&Value::from(value).to_string());
}

impl Handshake {
    /// Whether whoever asks is answered with an HMAC of what he asks.
    pub(super) fn gives_mac_unsigned(&self) -> bool {
        let has_mac = |template: &Template| template.pieces().iter().any(|piece| matches!(piece, Piece::Mac(..)));
        self.order == Order::Unsigned && self.templates().any(has_mac)
    }

    /// Every text of the answer.
    pub(super) fn templates(&self) -> impl Iterator<Item = &Template> {
        self.answer.iter().chain(self.headers.iter().map(|(_, template)| template))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Secret;
    use crate::provider::VerifyOptions;
    use bytes::Bytes;
    use serde_json::json;
    use std::sync::Arc;

    const HEAD: &str = "id = \"x\"\nname = \"X\"\n[verify]\n";
    const NONE: &str = "scheme = \"none\"\n";
    const HMAC: &str = "scheme = \"hmac\"\nhash = \"sha256\"\nsecret = \"raw\"\nsignature = \"header:x-s\"\n\
        encoding = \"base64\"\nsigned = \"{body}\"\n";
    const ECHO: &str = "[[handshakes]]\nwhen = { \"body:type\" = 1 }\nanswer = '{\"challenge\":{body:challenge}}'\n\
        content_type = \"application/json\"\n";

    fn verifier(verify: &str, handshake: &str, secrets: &[&str], verify_token: Option<&str>) -> Verifier {
        let preset = Preset::parse(&format!("{HEAD}{verify}{handshake}"), "x.toml").unwrap();
        let secrets: Vec<Secret> = secrets.iter().map(|s| Secret::new(*s)).collect();
        let options = VerifyOptions { verify_token: verify_token.map(Secret::new), ..VerifyOptions::default() };
        Verifier::new(Arc::new(preset), &secrets, options).unwrap()
    }

    fn ask<T>(method: &Method, query: &str, body: &str, use_it: impl FnOnce(&Request<'_>) -> T) -> T {
        let (headers, body) = (HeaderMap::new(), Bytes::copy_from_slice(body.as_bytes()));
        use_it(&Request {
            method,
            url: None,
            path: "/",
            query,
            headers: &headers,
            body: &body,
            via: crate::provider::Via::Anybody,
        })
    }

    fn answer(view: &Value) -> Option<Answer> {
        let verifier = verifier(NONE, ECHO, &[], None);
        ask(&Method::POST, "", "", |r| verifier.handshake(r, view, &Verified::unauthenticated()))
    }

    #[test]
    fn a_value_in_a_json_answer_cannot_leave_its_quotes() {
        let body = answer(&json!({"type": 1, "challenge": "a\",\"x\":\"\u{0}"})).unwrap().body;
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), json!({"challenge": "a\",\"x\":\"\u{0}"}));
    }

    #[test]
    fn what_is_no_handshake_or_too_long_is_not_echoed() {
        assert_eq!(answer(&json!({"type": 2, "challenge": "a"})), None);
        assert_eq!(answer(&json!({"type": 1})), None);
        assert_eq!(answer(&json!({"type": 1, "challenge": "a".repeat(5000)})), None);
    }

    #[test]
    fn a_handshake_of_the_check_is_not_answered_without_it() {
        let verifier = verifier(HMAC, ECHO, &["k"], None);
        let body = r#"{"type":1,"challenge":"a"}"#;
        assert_eq!(ask(&Method::POST, "", body, |r| verifier.greeting(r)), None);
        assert!(!verifier.preset().greets(&Method::GET));
    }

    #[test]
    fn a_verify_token_is_compared_and_while_none_is_set_nothing_passes() {
        let hub = "[[handshakes]]\nmethod = \"GET\"\nwhen = { \"query:hub.verify_token\" = \"{verify_token}\" }\n\
            answer = \"{query:hub.challenge}\"\n";
        let with = |token: Option<&str>, query: &str| {
            let verifier = verifier(HMAC, hub, &["k"], token);
            ask(&Method::GET, query, "", |r| verifier.greeting(r)).map(|a| a.body)
        };
        assert_eq!(with(Some("t1"), "hub.challenge=1158&hub.verify_token=t1").as_deref(), Some("1158"));
        for (token, query) in [
            (Some("t1"), "hub.challenge=1158&hub.verify_token=t2"),
            (Some("t1"), "hub.challenge=1158&hub.verify_token="),
            (Some("t1"), "hub.challenge=1158"),
            (None, "hub.challenge=1158&hub.verify_token="),
            (None, "hub.challenge=1158&hub.verify_token=t1"),
        ] {
            assert_eq!(with(token, query), None, "{token:?} {query}");
        }
    }

    #[test]
    fn nobody_gets_a_body_signed_by_asking_for_the_mac_of_a_challenge() {
        let crc = "[[handshakes]]\nmethod = \"GET\"\nwhen = { \"query:crc_token\" = \"*\" }\n\
            answer = '{\"response_token\":\"sha256={mac:base64:query:crc_token}\"}'\ncontent_type = \"application/json\"\n";
        let verifier = verifier(HMAC, crc, &["k"], None);
        let asked = |query: &str| ask(&Method::GET, query, "", |r| verifier.greeting(r)).map(|a| a.body);
        let right = aws_lc_rs::hmac::sign(&aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"k"), b"a1B2-_");
        let right = crate::provider::Encoding::Base64.encode(right.as_ref());
        assert_eq!(asked("crc_token=a1B2-_"), Some(format!("{{\"response_token\":\"sha256={right}\"}}")));
        for query in ["crc_token=%7B%7D", "crc_token=%7B%22a%22%3A1%7D", "crc_token=%5B1%5D", "crc_token=%221%22"] {
            assert_eq!(asked(query), None, "{query}");
        }
        assert_eq!(asked(&format!("crc_token={}", "a".repeat(129))), None);
    }

    #[test]
    fn the_mac_of_a_challenge_lets_no_request_in() {
        let said = |verifier: &Verifier, body: &str, headers: &HeaderMap| {
            let (method, body) = (Method::POST, Bytes::copy_from_slice(body.as_bytes()));
            let request = Request {
                method: &method,
                url: None,
                path: "/",
                query: "",
                headers,
                body: &body,
                via: crate::provider::Via::Anybody,
            };
            verifier.verify(&request, crate::Timestamp::from_secs(1_760_000_000)).is_ok()
        };
        let made = |id: &str, secret: &str| {
            let preset = Arc::clone(crate::provider::get(id).unwrap());
            Verifier::new(preset, &[Secret::new(secret)], VerifyOptions::default()).unwrap()
        };
        let asked =
            |verifier: &Verifier, query: &str| ask(&Method::GET, query, "", |r| verifier.greeting(r)).unwrap().body;

        // A number is JSON.
        let x = made("x-twitter", "k");
        let answer: Value = serde_json::from_str(&asked(&x, "crc_token=12345")).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("x-twitter-webhooks-signature", answer["response_token"].as_str().unwrap().parse().unwrap());
        assert!(!said(&x, "12345", &headers));

        // Hex is base64, and the other fields of the form are signed by nobody.
        let braintree = made("braintree", "public|private");
        let mac = asked(&braintree, "bt_challenge=abcdef0123456789").replace('|', "%7C");
        let body = format!("bt_payload=abcdef0123456789&bt_signature={mac}&text=do+as+I+say");
        assert!(!said(&braintree, &body, &HeaderMap::new()));
    }
}
