//! The sender's side: makes the headers that a real sender would, from the same preset the check is made from. Called by
//! `doorbell send`, `demo`, the benches and the tests.

use aws_lc_rs::signature::Ed25519KeyPair;
use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, InvalidHeaderValue};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::Value;

use super::preset::{CloudEvents, Preset};
use super::scheme::{Algorithm, JwtAlgorithm, JwtRule, PublicAlgorithm, Scheme, Signed, TimestampPlace};
use super::select::Place;
use super::signed::{IsDigested, Material, Piece, Template, Unsignable};
use super::{Request, Via, canonical, jwt};
use crate::{Secret, Timestamp};

/// What we write for an item of a list that is signed beside body and time, such as Hygraph's name of the environment.
const ITEM: &str = "master";

/// A request about to be signed.
#[derive(Clone, Debug)]
pub struct Draft<'d> {
    /// The method.
    pub method: &'d Method,
    /// The public URL that the receiver believes it has.
    pub url: Option<&'d str>,
    /// The delivery's id, put where the preset looks for it if that is a header.
    pub id: &'d str,
    /// The event's type, likewise.
    pub event_type: &'d str,
    /// Headers that are there already; they win over what would be set here.
    pub headers: HeaderMap,
    /// The body.
    pub body: &'d Bytes,
}

/// What signing adds to a request.
#[derive(Clone, Debug)]
pub struct SignedParts {
    /// All headers of the request.
    pub headers: HeaderMap,
    /// A parameter to add to the query, for senders that put their token there.
    pub query: Option<(String, String)>,
    /// What to add to the path as its last part, likewise.
    pub path: Option<String>,
}

/// Why a request could not be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The secret is written otherwise than the preset says.
    #[error("the secret cannot be used to sign: {0}")]
    BadSecret(&'static str),
    /// The preset signs something that the draft does not have.
    #[error("{0} is signed and the request has none: give it one")]
    Missing(String),
    /// The signature or credential would go into the body, which is the caller's.
    #[error("this sender puts its proof into the {0}: write it there yourself")]
    NotAHeader(String),
    /// Only the sender has the key that signs.
    #[error("this sender signs with a private key that only it has: send a real delivery")]
    NotOurs,
    /// A value cannot stand in a header.
    #[error("a value cannot stand in a header: leave out control characters")]
    BadValue,
}

impl From<InvalidHeaderValue> for SignError {
    fn from(_: InvalidHeaderValue) -> Self {
        Self::BadValue
    }
}

/// Signs `draft` as the preset's sender would at the time `now`. For Ed25519 the secret is the private key: its seed of
/// 32 bytes, or seed and public key in 64, written like the public key.
pub fn sign(preset: &Preset, secret: &Secret, draft: Draft<'_>, now: Timestamp) -> Result<SignedParts, SignError> {
    let mut parts = SignedParts { headers: draft.headers.clone(), query: None, path: None };
    let credentials = preset.credentials();
    let mut fill = |templates: &[Template], value: &str| -> Result<(), SignError> {
        let Some([Piece::At(Place::Header(name))]) = templates.first().map(Template::pieces) else { return Ok(()) };
        if value.is_empty() || parts.headers.contains_key(name) || credentials.contains(&Place::Header(name.clone())) {
            return Ok(());
        }
        parts.headers.insert(name, HeaderValue::from_str(value)?);
        Ok(())
    };
    fill(&preset.event.id, draft.id)?;
    fill(&preset.event.event_type, draft.event_type)?;
    if preset.payload.cloudevents == CloudEvents::Required {
        as_cloudevent(&draft, &mut parts.headers)?;
    }
    if !parts.headers.contains_key(CONTENT_TYPE) {
        parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    if preset.each.is_some() {
        return Err(SignError::NotAHeader("elements of the body".to_owned()));
    }
    match &preset.scheme {
        Scheme::None => {}
        scheme if scheme.fetches_keys() => return Err(SignError::NotOurs),
        Scheme::Sns | Scheme::ClientCert(_) => return Err(SignError::NotOurs),
        Scheme::Basic => {
            let value = format!("Basic {}", STANDARD.encode(secret.expose()));
            parts.headers.insert(AUTHORIZATION, sensitive(&value)?);
        }
        Scheme::Token { place: Place::Header(name), prefix } => {
            parts.headers.insert(name, sensitive(&format!("{prefix}{}", secret.expose()))?);
        }
        Scheme::Token { place: Place::Query(name), prefix } => {
            parts.query = Some((name.clone(), format!("{prefix}{}", secret.expose())));
        }
        Scheme::Token { place: Place::Path, prefix } => parts.path = Some(format!("{prefix}{}", secret.expose())),
        Scheme::Token { place, .. } => return Err(SignError::NotAHeader(place.to_string())),
        Scheme::Signed(signed) => add_signature(signed, secret, &draft, now, &mut parts)?,
        Scheme::Jwt(rule) => {
            let token = format!("{}{}", rule.prefix, token(rule, secret, &draft, now)?);
            parts.headers.insert(header(&rule.place)?, sensitive(&token)?);
        }
    }
    Ok(parts)
}

/// The binary form, unless the caller has chosen one.
fn as_cloudevent(draft: &Draft<'_>, headers: &mut HeaderMap) -> Result<(), SignError> {
    let media = headers.get(CONTENT_TYPE).map_or(&b""[..], |v| v.as_bytes());
    if media.starts_with(b"application/cloudevents") || headers.contains_key("ce-specversion") {
        return Ok(());
    }
    let event_type = if draft.event_type.is_empty() { "sample" } else { draft.event_type };
    let attributes = [("specversion", "1.0"), ("source", "/doorbell"), ("id", draft.id), ("type", event_type)];
    for (name, value) in attributes {
        let name = HeaderName::try_from(format!("ce-{name}")).map_err(|_| SignError::BadValue)?;
        headers.entry(name).or_insert(HeaderValue::from_str(value)?);
    }
    Ok(())
}

fn sensitive(value: &str) -> Result<HeaderValue, SignError> {
    let mut value = HeaderValue::from_str(value)?;
    value.set_sensitive(true);
    Ok(value)
}

/// A token as the sender would write it, with all that the rule asks for.
fn token(rule: &JwtRule, secret: &Secret, draft: &Draft<'_>, now: Timestamp) -> Result<String, SignError> {
    if rule.algorithm != JwtAlgorithm::Hs256 {
        return Err(SignError::NotOurs);
    }
    let key = rule.key.decode(secret.expose()).map_err(SignError::BadSecret)?;
    let mut claims = serde_json::json!({"iat": now.secs(), "exp": now.secs() + 300});
    if let Some(issuer) = &rule.issuer {
        claims["iss"] = Value::from(issuer.as_str());
    }
    if let Some(claim) = &rule.url {
        let url = draft.url.ok_or_else(|| SignError::Missing("the public URL".to_owned()))?;
        claims[claim.as_str()] = Value::from(url);
    }
    if let Some(claim) = &rule.query_hash {
        let (path, query) = target(draft.url);
        let (method, url, headers) = (draft.method, draft.url, &draft.headers);
        let request = Request { method, url, path, query, headers, body: draft.body, via: Via::Anybody };
        claims[claim.as_str()] = Value::from(canonical::query_hash(&request));
    }
    if let Some((claim, encoding)) = &rule.body {
        claims[claim.as_str()] = Value::from(jwt::body_claim(draft.body, *encoding));
    }
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    Ok(jwt::write(rule.algorithm.name(), &claims, |message| hmac::sign(&key, message).as_ref().to_vec()))
}

fn add_signature(
    signed: &Signed,
    secret: &Secret,
    draft: &Draft<'_>,
    now: Timestamp,
    parts: &mut SignedParts,
) -> Result<(), SignError> {
    let timestamp = signed.timestamp.as_ref().map(|rule| rule.unit.write(now)).unwrap_or_default();
    let timestamp_at = signed.timestamp.as_ref().and_then(|t| match &t.place {
        TimestampPlace::At(place) => Some(place),
        TimestampPlace::InSignature(_) => None,
    });
    // In the body it is the caller's, and signed with it.
    if let Some(Place::Header(name)) = timestamp_at {
        parts.headers.insert(name, HeaderValue::from_str(&timestamp)?);
    }
    let template = signed.templates.first().ok_or_else(|| SignError::Missing("a text to sign".to_owned()))?;
    fill_signed(signed, template, timestamp_at, draft.id, &mut parts.headers)?;

    let body: Option<Value> = serde_json::from_slice(draft.body).ok();
    let (path, query) = target(draft.url);
    let headers = &parts.headers;
    let request =
        Request { method: draft.method, url: draft.url, path, query, headers, body: draft.body, via: Via::Anybody };
    let key = signed.key.decode(secret.expose()).map_err(SignError::BadSecret)?;
    let material = Material {
        request: &request,
        body: body.as_ref(),
        timestamp: timestamp.as_bytes(),
        timestamp_at,
        secret: &key,
        is_digested: IsDigested::No,
    };
    let signature = signed.encoding.encode(&compute(signed.algorithm, template, &material, &key)?);
    let mut value = format!("{}{signature}", signed.prefix);
    if let Some(TimestampPlace::InSignature(prefix)) = signed.timestamp.as_ref().map(|t| &t.place) {
        value = format!("{prefix}{timestamp}{}{value}", signed.separator.as_deref().unwrap_or_default());
    }
    match signed.place() {
        Place::Header(name) => {
            if let (Some(items), Some(separator)) = (parts.headers.get(name), &signed.separator)
                && template.pieces().iter().any(|p| matches!(p, Piece::Item(list, _) if list == name))
            {
                value = format!("{value}{separator}{}", String::from_utf8_lossy(items.as_bytes()));
            }
            parts.headers.insert(name, HeaderValue::from_str(&value)?);
        }
        Place::Query(name) => parts.query = Some((name.clone(), value)),
        other => return Err(SignError::NotAHeader(other.to_string())),
    }
    Ok(())
}

/// Headers that are signed or always sent and that nobody gave: they stand for something of the sender's own, such as a
/// nonce or the list of signed headers.
fn fill_signed(
    signed: &Signed,
    template: &Template,
    timestamp_at: Option<&Place>,
    id: &str,
    headers: &mut HeaderMap,
) -> Result<(), SignError> {
    let required = signed.requires.iter().filter_map(|places| places.first());
    for place in template.places().chain(required) {
        let Place::Header(name) = place else { continue };
        if !headers.contains_key(name) {
            headers.insert(name, HeaderValue::from_str(id)?);
        }
    }
    for piece in template.pieces() {
        // An item of the signature's own list, which the signature joins below.
        if let Piece::Item(list, start) = piece {
            headers.insert(list, HeaderValue::from_str(&format!("{start}{ITEM}"))?);
        }
        if let Piece::Canonical(list) = piece {
            let mut names = vec![list.to_string()];
            names.extend(timestamp_at.and_then(|p| header(p).ok()).map(ToString::to_string));
            headers.insert(list, HeaderValue::from_str(&names.join(","))?);
        }
    }
    Ok(())
}

/// Path and query of a URL.
fn target(url: Option<&str>) -> (&str, &str) {
    let rest = url.and_then(|u| u.split_once("://")).map_or("/", |(_, rest)| rest);
    let target = rest.find('/').map_or("/", |i| &rest[i..]);
    target.split_once('?').unwrap_or((target, ""))
}

fn header(place: &Place) -> Result<&HeaderName, SignError> {
    match place {
        Place::Header(name) => Ok(name),
        other => Err(SignError::NotAHeader(other.to_string())),
    }
}

fn compute(
    algorithm: Algorithm,
    template: &Template,
    material: &Material<'_>,
    key: &[u8],
) -> Result<Vec<u8>, SignError> {
    let lacking = |e: Unsignable| match e {
        Unsignable::Missing(place) | Unsignable::Repeated(place) => SignError::Missing(place.to_string()),
        Unsignable::NoUrl => SignError::Missing("the public URL".to_owned()),
    };
    match algorithm {
        Algorithm::Hmac(hash) => {
            let mut context = hmac::Context::with_key(&hmac::Key::new(hash.hmac(), key));
            template.feed(material, |bytes| context.update(bytes)).map_err(lacking)?;
            Ok(context.sign().as_ref().to_vec())
        }
        Algorithm::Digest(hash) => {
            let mut context = digest::Context::new(hash.digest());
            template.feed(material, |bytes| context.update(bytes)).map_err(lacking)?;
            Ok(context.finish().as_ref().to_vec())
        }
        Algorithm::Public(PublicAlgorithm::Ed25519) => {
            let seed = key.get(..32).filter(|_| key.len() == 32 || key.len() == 64);
            let pair = seed.and_then(|s| Ed25519KeyPair::from_seed_unchecked(s).ok());
            let pair = pair.ok_or(SignError::BadSecret("it should be a private key of 32 or 64 bytes"))?;
            let mut message = Vec::new();
            template.feed(material, |bytes| message.extend_from_slice(bytes)).map_err(lacking)?;
            Ok(pair.sign(&message).as_ref().to_vec())
        }
        Algorithm::Public(_) => Err(SignError::NotOurs),
    }
}
