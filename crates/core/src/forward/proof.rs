//! The proof that we checked a request before we passed it on: an HTTP message signature (RFC 9421) with HMAC-SHA256 over
//! method, path, query, the body's digest (RFC 9530), the agent and what was checked. `docs/contracts.md` says how an agent
//! verifies it.

use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use crate::{Clock, Secret};

/// What is covered, in this order (RFC 9421, sections 2.1 and 2.2).
const COVERED: &str = r#"("@method" "@path" "@query" "content-digest" "doorbell-agent" "doorbell-checked")"#;

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
const AGENT: HeaderName = HeaderName::from_static("doorbell-agent");
const CHECKED: HeaderName = HeaderName::from_static("doorbell-checked");
const SIGNATURE_INPUT: HeaderName = HeaderName::from_static("signature-input");
const SIGNATURE: HeaderName = HeaderName::from_static("signature");

/// What the proof speaks of.
#[derive(Clone, Copy, Debug)]
pub struct Checked<'a> {
    /// The method that is sent on.
    pub method: &'a Method,
    /// The URL that it is sent to.
    pub target: &'a Uri,
    /// The body.
    pub body: &'a [u8],
    /// The agent that it is meant for.
    pub agent: &'a str,
    /// What was checked: the kind of key and its id, such as `github key_…`.
    pub by: &'a str,
}

/// Adds who it is for and what was checked; signed with each secret (the newest first, labelled `doorbell`, the next
/// `doorbell2`), or not signed without one.
pub fn prove(headers: &mut HeaderMap, checked: &Checked<'_>, secrets: &[Secret], clock: &Clock) {
    let digest = digest::digest(&digest::SHA256, checked.body);
    let content_digest = format!("sha-256=:{}:", STANDARD.encode(digest.as_ref()));
    let path = checked.target.path();
    let query = checked.target.query().unwrap_or_default();
    let covered = format!(
        "\"@method\": {}\n\"@path\": {path}\n\"@query\": ?{query}\n\"content-digest\": {content_digest}\n\
         \"doorbell-agent\": {}\n\"doorbell-checked\": {}\n",
        checked.method, checked.agent, checked.by
    );
    let (created, nonce) = (clock.now().secs(), clock.random());
    let (mut inputs, mut signatures) = (Vec::new(), Vec::new());
    for (at, secret) in secrets.iter().enumerate() {
        let label = if at == 0 { "doorbell".to_owned() } else { format!("doorbell{}", at + 1) };
        let parameters = format!(
            "{COVERED};created={created};nonce=\"{nonce:016x}\";keyid=\"{}\";alg=\"hmac-sha256\";tag=\"doorbell\"",
            checked.agent
        );
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
        let base = format!("{covered}\"@signature-params\": {parameters}");
        let tag = hmac::sign(&key, base.as_bytes());
        inputs.push(format!("{label}={parameters}"));
        signatures.push(format!("{label}=:{}:", STANDARD.encode(tag.as_ref())));
    }
    let mut insert = |name: HeaderName, text: &str| {
        // Names of agents and ids of keys are plain letters, so this is always one.
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(name, value);
        }
    };
    insert(AGENT, checked.agent);
    insert(CHECKED, checked.by);
    if !signatures.is_empty() {
        insert(CONTENT_DIGEST, &content_digest);
        insert(SIGNATURE_INPUT, &inputs.join(", "));
        insert(SIGNATURE, &signatures.join(", "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Timestamp;

    fn headers(secrets: &[&str], url: &str, body: &[u8]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let target = url.parse().unwrap();
        let checked = Checked { method: &Method::POST, target: &target, body, agent: "reviewer", by: "github key_a" };
        let secrets: Vec<Secret> = secrets.iter().map(|s| Secret::new(*s)).collect();
        prove(&mut headers, &checked, &secrets, &Clock::by_hand(Timestamp::from_secs(1_760_000_000)));
        headers
    }

    fn text(headers: &HeaderMap, name: &str) -> String {
        headers[name].to_str().unwrap().to_owned()
    }

    #[test]
    fn the_signature_is_that_of_rfc_9421_over_what_is_sent() {
        let sent = headers(&["s3cret"], "http://a:8000/code_changes?x=1", b"{}");
        assert_eq!(text(&sent, "content-digest"), "sha-256=:RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o=:");
        let input = text(&sent, "signature-input");
        let parameters = input.strip_prefix("doorbell=").unwrap();
        assert!(parameters.contains(";created=1760000000;"), "{input}");
        let base = format!(
            "\"@method\": POST\n\"@path\": /code_changes\n\"@query\": ?x=1\n\"content-digest\": {}\n\
             \"doorbell-agent\": reviewer\n\"doorbell-checked\": github key_a\n\"@signature-params\": {parameters}",
            text(&sent, "content-digest")
        );
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"s3cret");
        let tag = STANDARD.encode(hmac::sign(&key, base.as_bytes()).as_ref());
        assert_eq!(text(&sent, "signature"), format!("doorbell=:{tag}:"));
    }

    #[test]
    fn every_part_changes_it_and_a_rotation_has_one_for_each_secret() {
        let of = |url: &str, body: &[u8]| text(&headers(&["s3cret"], url, body), "signature");
        let one = of("http://a/x", b"1");
        for other in [of("http://a/y", b"1"), of("http://a/x?", b"2"), of("http://a/x?q", b"1")] {
            assert_ne!(one, other);
        }
        let two = headers(&["new", "old"], "http://a/x", b"");
        assert!(text(&two, "signature").contains(", doorbell2=:"));
        assert!(text(&two, "signature-input").contains(", doorbell2=("));
        assert!(!headers(&[], "http://a/x", b"").contains_key("signature"));
    }
}
