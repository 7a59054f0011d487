//! Keys that a sender hands out one by one, for a name and the customer's own credentials (Plaid): what is asked, and what the
//! answer means. Called by `verify`; fetching and keeping is [`KeyCache`](super::KeyCache)'s.
//!
//! A stranger chooses the name. One that no key of the sender's can have is refused unasked; for the others holds what holds for
//! all keys: each is asked for once a minute, and few are. The credentials go into the request's body and nowhere else.

use bytes::Bytes;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::Deserialize;

use super::published::KeyUrl;
use super::refusal::Refusal;
use crate::Secret;

/// The longest name of a key. Plaid's are UUIDs.
const NAME_BYTES_MAX: usize = 64;
/// What stands before the credentials of the sender's environment for tests.
const SANDBOX: &str = "sandbox";
/// What Plaid says of a name that no key has (`error_code`, with 400).
const NO_SUCH_KEY: &str = "INVALID_WEBHOOK_VERIFICATION_KEY_ID";
/// A set of no keys.
const NO_KEYS: &[u8] = br#"{"keys": []}"#;

/// Where keys are handed out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeysByName {
    /// For real customers.
    pub live: KeyUrl,
    /// For tests, if the sender keeps them apart.
    pub sandbox: Option<KeyUrl>,
}

/// One key, and as whom it is asked for.
#[derive(Clone, Debug)]
pub(super) struct NamedKey {
    name: String,
    credentials: Secret,
}

/// A source's secret in its parts.
struct Credentials<'s> {
    is_sandbox: bool,
    client_id: &'s str,
    secret: &'s str,
}

impl<'s> Credentials<'s> {
    fn read(secret: &'s Secret) -> Option<Self> {
        let parts: Vec<&str> = secret.expose().split(':').collect();
        let is_plain = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_graphic());
        match parts.as_slice() {
            parts if !parts.iter().all(is_plain) => None,
            [client_id, secret] => Some(Self { is_sandbox: false, client_id, secret }),
            [SANDBOX, client_id, secret] => Some(Self { is_sandbox: true, client_id, secret }),
            _ => None,
        }
    }
}

impl KeysByName {
    /// What is wrong with a source's secret.
    pub(super) fn fault(&self, secret: &Secret) -> Option<&'static str> {
        match (Credentials::read(secret), &self.sandbox) {
            (None, Some(_)) => Some("it should be `client_id:secret`, or `sandbox:client_id:secret`"),
            (None, None) => Some("it should be `client_id:secret`"),
            (Some(credentials), None) if credentials.is_sandbox => Some("the sender has no sandbox"),
            _ => None,
        }
    }

    /// The key of this name, asked for with `secret`: the newest, which the sender takes as soon as it has made it.
    pub(super) fn key(&self, name: &str, secret: &Secret) -> Result<KeyUrl, Refusal> {
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(is_plain) {
            return Err(Refusal::KeyUnknown);
        }
        let is_sandbox = Credentials::read(secret).is_some_and(|c| c.is_sandbox);
        let place = if is_sandbox { self.sandbox.as_ref() } else { Some(&self.live) };
        let key = NamedKey { name: name.to_owned(), credentials: secret.clone() };
        place.map(|url| url.naming(key)).ok_or(Refusal::KeyUnknown)
    }
}

impl NamedKey {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The question (POST `/webhook_verification_key/get` of Plaid's API).
    pub(super) fn request(&self, url: &str) -> http::Result<http::Request<Bytes>> {
        let credentials = Credentials::read(&self.credentials);
        let (client_id, secret) = credentials.map(|c| (c.client_id, c.secret)).unwrap_or_default();
        let body = serde_json::json!({"client_id": client_id, "secret": secret, "key_id": self.name});
        http::Request::post(url).header(CONTENT_TYPE, "application/json").body(body.to_string().into())
    }

    /// What is kept of the answer: the key, or that there is none of this name. Anything else says nothing of the key.
    pub(super) fn answer(answer: http::Response<Bytes>) -> Result<Bytes, String> {
        #[derive(Deserialize)]
        struct Fault {
            error_code: String,
        }
        let status = answer.status();
        if status == StatusCode::OK {
            return Ok(answer.into_body());
        }
        // It comes from outside and is told to the owner (`INVALID_API_KEYS`): a word, or nothing.
        let is_word = |code: &String| code.len() <= 64 && code.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
        let fault = serde_json::from_slice(answer.body()).ok().map(|f: Fault| f.error_code).filter(is_word);
        match fault {
            Some(code) if status == StatusCode::BAD_REQUEST && code == NO_SUCH_KEY => Ok(Bytes::from_static(NO_KEYS)),
            Some(code) => Err(format!("its address answered {} {code}", status.as_u16())),
            None => Err(format!("its address answered {}", status.as_u16())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(sandbox: Option<&str>) -> KeysByName {
        KeysByName { live: KeyUrl::checked("https://live.example/key"), sandbox: sandbox.map(KeyUrl::checked) }
    }

    #[test]
    fn the_secret_says_as_whom_and_where_and_nothing_else_is_one() {
        let both = keys(Some("https://sandbox.example/key"));
        for (secret, url) in
            [("id:s3cret", "https://live.example/key"), ("sandbox:id:s3cret", "https://sandbox.example/key")]
        {
            let secret = Secret::new(secret);
            assert_eq!(both.fault(&secret), None);
            let key = both.key("k-1", &secret).unwrap();
            assert_eq!(key.as_str(), url);
            let request = NamedKey { name: "k-1".to_owned(), credentials: secret }.request(url).unwrap();
            let body: serde_json::Value = serde_json::from_slice(request.body()).unwrap();
            assert_eq!(body, serde_json::json!({"client_id": "id", "secret": "s3cret", "key_id": "k-1"}));
        }
        for bad in
            ["", "id", ":s3cret", "id:", "live:id:s3cret", "sandbox::s3cret", "id:s3cret\n", "id: s3cret", "a:b:c:d"]
        {
            assert!(both.fault(&Secret::new(bad)).is_some(), "{bad}");
        }
        assert!(keys(None).fault(&Secret::new("sandbox:id:s3cret")).is_some());
        assert!(keys(None).key("k-1", &Secret::new("sandbox:id:s3cret")).is_err(), "never the other environment");
    }

    #[test]
    fn a_key_does_not_show_whose_credentials_ask_for_it_and_is_the_same_for_all() {
        let one = keys(None).key("k-1", &Secret::new("id:s3cret")).unwrap();
        assert!(!format!("{one:?}").contains("s3cret"), "{one:?}");
        assert_eq!(one, keys(None).key("k-1", &Secret::new("id:newer")).unwrap());
        assert_ne!(one, keys(None).key("k-2", &Secret::new("id:s3cret")).unwrap());
    }

    #[test]
    fn what_the_sender_says_beside_its_code_is_not_told() {
        let answer = |status: u16, body: &'static str| {
            NamedKey::answer(http::Response::builder().status(status).body(Bytes::from(body)).unwrap())
        };
        assert_eq!(answer(400, r#"{"error_code": "INVALID_WEBHOOK_VERIFICATION_KEY_ID"}"#).unwrap(), NO_KEYS);
        for (status, body, told) in [
            (
                500,
                r#"{"error_code": "INVALID_WEBHOOK_VERIFICATION_KEY_ID"}"#,
                "500 INVALID_WEBHOOK_VERIFICATION_KEY_ID",
            ),
            (400, r#"{"error_code": "INVALID_API_KEYS", "error_message": "id:s3cret"}"#, "400 INVALID_API_KEYS"),
            (400, r#"{"error_code": "id:s3cret"}"#, "400"),
            (302, "", "302"),
        ] {
            assert_eq!(answer(status, body).unwrap_err(), format!("its address answered {told}"));
        }
    }
}
