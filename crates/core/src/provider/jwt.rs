//! Signed tokens (RFC 7515, RFC 7519) that prove a request: their signature by the source's key, their times, and the
//! claims that bind them to this body and this URL. Called by `verify`.
//!
//! The preset fixes the one algorithm. A token that names another, `none` among them, is refused before its signature is
//! looked at, and so is one with critical extensions that nobody here knows.

use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use subtle::ConstantTimeEq as _;

use super::encoding::{Encoding, Tag};
use super::jwks;
use super::keys::Keys;
use super::refusal::Refusal;
use super::scheme::JwtRule;
use super::{Request, canonical};
use crate::Timestamp;

/// The longest token. Senders' are under 2 KiB, and a request's head holds 16.
const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// What a token is held to, beside its rule.
pub(super) struct Holding<'h> {
    /// Who may have signed it.
    pub(super) keys: Trusted<'h>,
    /// The time, and how far our clock may be off.
    pub(super) now: Timestamp,
    pub(super) tolerance: Duration,
    /// What the URL's claim has to say instead of the public URL.
    pub(super) audience: Option<&'h str>,
}

/// Keys that a token may be signed with.
pub(super) enum Trusted<'h> {
    /// The source's.
    Own(&'h Keys),
    /// The set that the sender publishes, as it was fetched, and the source's secrets, one of which the owner's claim has to be.
    Published(&'h [u8], &'h Keys),
}

/// Checks the token `text` against `rule`; gives the place of the secret that signed it.
pub(super) fn check(
    rule: &JwtRule,
    holding: &Holding<'_>,
    text: &[u8],
    request: &Request<'_>,
) -> Result<usize, Refusal> {
    let (now, tolerance) = (holding.now, holding.tolerance);
    let (mut signer, claims) = signed_claims(rule, &holding.keys, text)?;
    times(rule, &claims, now, tolerance)?;
    if let Some(issuer) = &rule.issuer {
        is_text(&claims, "iss", issuer, "the sender's own name")?;
    }
    if let Some(claim) = &rule.url {
        match holding.audience {
            Some(audience) => is_text(&claims, claim, audience, "this source's `audience`")?,
            None => is_text(&claims, claim, request.url.ok_or(Refusal::UrlUnknown)?, "this source's public URL")?,
        }
    }
    if let Some(claim) = &rule.query_hash {
        is_text(&claims, claim, &canonical::query_hash(request), "the hash of this request's method, path and query")?;
    }
    if let (Some(claim), Trusted::Published(_, secrets)) = (&rule.owner, &holding.keys) {
        signer = owner(&claims, claim, secrets)?;
    }
    if let Some((claim, encoding)) = &rule.body {
        let said = claims.get(claim).and_then(Value::as_str).ok_or_else(|| Refusal::ClaimMissing(claim.clone()))?;
        let mut room: Tag = [0; 72];
        let length = encoding.decode(said.as_bytes(), &mut room).unwrap_or_default();
        let made = digest::digest(&digest::SHA256, request.body);
        if !bool::from(made.as_ref().ct_eq(&room[..length])) {
            return Err(Refusal::DigestMismatch(format!("the claim `{claim}`").into()));
        }
    }
    Ok(signer)
}

/// Whose token it is. An address that nobody has verified is nobody's (OpenID Connect Core 1.0, section 5.1).
fn owner(claims: &Map<String, Value>, claim: &str, secrets: &Keys) -> Result<usize, Refusal> {
    let said = claims.get(claim).and_then(Value::as_str).ok_or_else(|| Refusal::ClaimMissing(claim.to_owned()))?;
    if claim == "email" && claims.get("email_verified") != Some(&Value::Bool(true)) {
        return Err(Refusal::ClaimMismatch { claim: "email_verified".to_owned(), wanted: "true" });
    }
    let Keys::Plain(secrets) = secrets else { return Err(Refusal::CredentialMismatch { secrets: 0 }) };
    let wanted = "what is this source's secret";
    let found = secrets.iter().position(|s| s.matches(said.as_bytes()));
    found.ok_or_else(|| Refusal::ClaimMismatch { claim: claim.to_owned(), wanted })
}

/// A token in its parts, with the algorithm of its rule.
struct Parts<'t> {
    header: Map<String, Value>,
    message: &'t str,
    payload: &'t str,
    signature: &'t str,
}

impl<'t> Parts<'t> {
    fn of(rule: &JwtRule, text: &'t [u8]) -> Result<Self, Refusal> {
        let malformed = |seen| malformed(rule, seen);
        if text.len() > TOKEN_BYTES_MAX {
            return Err(malformed("something longer than 8 KiB"));
        }
        let text = std::str::from_utf8(text).map_err(|_| malformed("something that is no token"))?;
        let (message, signature) = text.rsplit_once('.').ok_or_else(|| malformed("something that is no token"))?;
        let (header, payload) = message.split_once('.').ok_or_else(|| malformed("something that is no token"))?;
        let header = object(header).ok_or_else(|| malformed("a token without a readable header"))?;
        if header.get("alg").and_then(Value::as_str) != Some(rule.algorithm.name()) {
            return Err(malformed("a token that names another algorithm"));
        }
        if header.contains_key("crit") {
            return Err(malformed("a token with extensions that are not known here"));
        }
        Ok(Self { header, message, payload, signature })
    }

    fn key_name(&self) -> Result<&str, Refusal> {
        self.header.get("kid").and_then(Value::as_str).ok_or(Refusal::KeyUnknown)
    }
}

fn malformed(rule: &JwtRule, seen: &'static str) -> Refusal {
    let wanted = format!("a token signed with {}", rule.algorithm.name()).into();
    Refusal::SignatureMalformed { place: rule.place.clone(), wanted, seen }
}

fn object(part: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

/// What the token `text` calls the key that it is signed with; nothing of it is proved yet.
pub(super) fn key_name(rule: &JwtRule, text: &[u8]) -> Result<String, Refusal> {
    Parts::of(rule, text)?.key_name().map(str::to_owned)
}

fn signed_claims(rule: &JwtRule, keys: &Trusted<'_>, text: &[u8]) -> Result<(usize, Map<String, Value>), Refusal> {
    let parts = Parts::of(rule, text)?;
    let message = parts.message.as_bytes();
    let signature = URL_SAFE_NO_PAD.decode(parts.signature).ok();
    let signature = signature.ok_or_else(|| malformed(rule, "a signature that is no base64url"))?;
    let signer = match keys {
        Trusted::Own(keys) => {
            let signer = keys.signer(message, &signature);
            signer.ok_or_else(|| Refusal::SignatureMismatch { secrets: keys.len() })?
        }
        Trusted::Published(document, _) => {
            jwks::check(document, rule.algorithm, parts.key_name()?, message, &signature)?;
            0
        }
    };
    let claims = object(parts.payload).ok_or_else(|| malformed(rule, "a token without readable claims"))?;
    Ok((signer, claims))
}

/// `exp`, `nbf` and `iat` wherever they are; those that the rule requires have to be there. An `iat` that is required is
/// a time of signing: it may be as old as the tolerance.
fn times(rule: &JwtRule, claims: &Map<String, Value>, now: Timestamp, tolerance: Duration) -> Result<(), Refusal> {
    if let Some(missing) = rule.required.iter().find(|claim| !claims.contains_key(*claim)) {
        return Err(Refusal::ClaimMissing(missing.clone()));
    }
    let at = |claim: &str| match claims.get(claim) {
        None => Ok(None),
        Some(value) => match value.as_f64() {
            // A numeric date may have a fraction (RFC 7519, section 2). Out of range it saturates, and is refused below.
            Some(secs) if secs.is_finite() => Ok(Some(Timestamp::from_millis((secs * 1000.0) as i64))),
            _ => Err(Refusal::ClaimMismatch { claim: claim.to_owned(), wanted: "a number of seconds since 1970" }),
        },
    };
    if let Some(expires) = at("exp")? {
        let age = now.since(expires);
        if age > tolerance {
            return Err(Refusal::TimestampStale { age, tolerance });
        }
    }
    for claim in ["nbf", "iat"] {
        if let Some(from) = at(claim)? {
            let ahead = from.since(now);
            if ahead > tolerance {
                return Err(Refusal::TimestampFuture { ahead, tolerance });
            }
            let age = now.since(from);
            if claim == "iat" && age > tolerance && rule.required.iter().any(|r| r == "iat") {
                return Err(Refusal::TimestampStale { age, tolerance });
            }
        }
    }
    Ok(())
}

/// The claim is this text, or a list that holds it (`aud` may be one).
fn is_text(claims: &Map<String, Value>, claim: &str, text: &str, wanted: &'static str) -> Result<(), Refusal> {
    let fits = match claims.get(claim) {
        None => return Err(Refusal::ClaimMissing(claim.to_owned())),
        Some(Value::Array(several)) => several.iter().any(|v| v == text),
        Some(one) => one == text,
    };
    if fits { Ok(()) } else { Err(Refusal::ClaimMismatch { claim: claim.to_owned(), wanted }) }
}

/// A token over `claims`, for tests and `doorbell send`.
pub(super) fn write<E>(
    algorithm: &str,
    claims: &Value,
    sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
) -> Result<String, E> {
    let header = serde_json::json!({"alg": algorithm, "typ": "JWT"});
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(&header), part(claims));
    let signature = URL_SAFE_NO_PAD.encode(sign(message.as_bytes())?);
    Ok(format!("{message}.{signature}"))
}

/// The SHA-256 of a body, as a claim writes it.
pub(super) fn body_claim(body: &[u8], encoding: Encoding) -> String {
    encoding.encode(digest::digest(&digest::SHA256, body).as_ref())
}
