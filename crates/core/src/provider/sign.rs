//! The sender's side: makes the request that a real sender would, from the same preset the check is made from. Called by
//! `doorbell send`, `demo`, the benches and the tests.
//!
//! What the sender writes into its own body (a signature, a time, a passcode) is written there by `own_body`, before
//! anything is signed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, InvalidHeaderValue};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::Value;

use super::own_body::OwnBody;
use super::preset::{CloudEvents, Format, Preset};
use super::scheme::{Algorithm, JwtRule, Scheme, Signed, TimestampPlace};
use super::select::Place;
use super::signed::{IsDigested, Material, Piece, Template, Unsignable};
use super::signer::{self, Signer};
use super::{Request, Via, canonical, jwt};
use crate::payload::multipart;
use crate::{Secret, Timestamp};

/// What we write for an item of a list that is signed beside body and time, such as Hygraph's name of the environment.
const ITEM: &str = "master";

/// A request about to be signed.
#[derive(Clone, Debug)]
pub struct Draft<'d> {
    /// The method.
    pub method: &'d Method,
    /// The public URL that the receiver believes it has, query included.
    pub url: Option<&'d str>,
    /// The path as the receiver gets it.
    pub path: &'d str,
    /// The query as the receiver gets it, without its `?`; empty if there is none.
    pub query: &'d str,
    /// The delivery's id, put where the preset looks for it if that is a header.
    pub id: &'d str,
    /// The event's type, likewise.
    pub event_type: &'d str,
    /// Headers that are there already; they win over what would be set here, a signature included.
    pub headers: HeaderMap,
    /// The body.
    pub body: &'d Bytes,
}

/// What signing makes of a request.
#[derive(Clone, Debug)]
pub struct SignedParts {
    /// All headers of the request.
    pub headers: HeaderMap,
    /// Parameters to add to the query: what is signed there and was not given, and proofs that stand there.
    pub query: Vec<(String, String)>,
    /// What to add to the path as its last part, likewise.
    pub path: Option<String>,
    /// The body, with what this sender writes into it.
    pub body: Bytes,
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
    /// The body has no room for what this sender writes into it.
    #[error("this sender writes into {0}, and the body has no such place: give it the shape of a real one")]
    NoPlace(String),
    /// Only the sender has what signs.
    #[error("only the sender can sign: {0}")]
    NotOurs(&'static str),
    /// A value cannot stand in a header.
    #[error("a value cannot stand in a header: leave out control characters")]
    BadValue,
}

impl From<InvalidHeaderValue> for SignError {
    fn from(_: InvalidHeaderValue) -> Self {
        Self::BadValue
    }
}

/// Signs `draft` as the preset's sender would at the time `now`. Where the sender has a key pair the secret is the private
/// half: PKCS#8 in PEM, or for Ed25519 its seed of 32 bytes, or seed and public key in 64, written like the public key.
///
/// # Errors
/// [`SignError`]; nothing was sent.
pub fn sign(preset: &Preset, secret: &Secret, draft: Draft<'_>, now: Timestamp) -> Result<SignedParts, SignError> {
    let mut parts =
        SignedParts { headers: draft.headers.clone(), query: Vec::new(), path: None, body: draft.body.clone() };
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
    let has_own_type = parts.headers.contains_key(CONTENT_TYPE);
    if !has_own_type {
        let begins_as_json =
            draft.body.trim_ascii_start().starts_with(b"{") || draft.body.trim_ascii_start().starts_with(b"[");
        let is_form = preset.payload.format == Format::Form && !begins_as_json;
        let media = if is_form { "application/x-www-form-urlencoded" } else { "application/json" };
        parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    }
    // A proof that is given stands: of a delivery that was captured, or one that is meant to be refused.
    let is_given = |place: &Place| match place {
        Place::Header(name) => draft.headers.contains_key(name),
        Place::Query(name) => has_parameter(draft.query, name),
        Place::Body(_) | Place::Form(_) | Place::Path => false,
    };
    if !credentials.iter().any(is_given) {
        prove(preset, secret, &draft, now, &mut parts)?;
    }
    if let Some(field) = preset.payload.part().filter(|_| !has_own_type) {
        let (media, body) = multipart::write(field, &parts.body);
        parts.headers.insert(CONTENT_TYPE, HeaderValue::from_str(&media)?);
        parts.body = body;
    }
    Ok(parts)
}

/// Puts signature or credential where the sender puts it.
fn prove(
    preset: &Preset,
    secret: &Secret,
    draft: &Draft<'_>,
    now: Timestamp,
    parts: &mut SignedParts,
) -> Result<(), SignError> {
    if let Signer::SenderAlone(why) = preset.signer() {
        return Err(SignError::NotOurs(why));
    }
    let mut body = OwnBody::new(preset, draft.body);
    match &preset.scheme {
        Scheme::None | Scheme::Sns | Scheme::ClientCert(_) => {}
        Scheme::Basic => {
            let value = format!("Basic {}", STANDARD.encode(secret.expose()));
            parts.headers.insert(AUTHORIZATION, sensitive(&value)?);
        }
        Scheme::Token { place, prefix } => {
            let token = format!("{prefix}{}", secret.expose());
            match place {
                Place::Header(name) => {
                    parts.headers.insert(name, sensitive(&token)?);
                }
                Place::Query(name) => parts.query.push((name.clone(), token)),
                Place::Path => parts.path = Some(token),
                Place::Body(_) | Place::Form(_) => {
                    for at in 0..body.elements()? {
                        body.put(at, place, &token)?;
                    }
                }
            }
        }
        Scheme::Signed(signed) => add_signature(signed, secret, draft, now, (parts, &mut body))?,
        Scheme::Jwt(rule) => {
            let token = format!("{}{}", rule.prefix, token(rule, secret, draft, now)?);
            let Place::Header(name) = &rule.place else { return Err(SignError::NoPlace(rule.place.to_string())) };
            parts.headers.insert(name, sensitive(&token)?);
        }
    }
    parts.body = body.finish();
    Ok(())
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
    let mut claims = serde_json::json!({"iat": now.secs(), "exp": now.secs() + 300});
    if let Some(issuer) = &rule.issuer {
        claims["iss"] = Value::from(issuer.as_str());
    }
    if let Some(claim) = &rule.url {
        let url = draft.url.ok_or_else(|| SignError::Missing("the public URL".to_owned()))?;
        claims[claim.as_str()] = Value::from(url);
    }
    if let Some(claim) = &rule.query_hash {
        let Draft { method, url, path, query, headers, body, .. } = draft;
        let request = Request { method, url: *url, path, query, headers, body, via: Via::Anybody };
        claims[claim.as_str()] = Value::from(canonical::query_hash(&request));
    }
    if let Some((claim, encoding)) = &rule.body {
        claims[claim.as_str()] = Value::from(jwt::body_claim(draft.body, *encoding));
    }
    let sign = |message: &[u8]| signer::sign(rule.algorithm.algorithm(), rule.key, secret, message);
    jwt::write(rule.algorithm.name(), &claims, sign)
}

fn add_signature(
    signed: &Signed,
    secret: &Secret,
    draft: &Draft<'_>,
    now: Timestamp,
    (parts, own): (&mut SignedParts, &mut OwnBody<'_>),
) -> Result<(), SignError> {
    let timestamp_at = signed.timestamp.as_ref().and_then(|t| match &t.place {
        TimestampPlace::At(place) => Some(place),
        TimestampPlace::InSignature(_) => None,
    });
    let mut timestamp = signed.timestamp.as_ref().map(|rule| rule.unit.write(now)).unwrap_or_default();
    match timestamp_at {
        // A time that is given is signed as it is, so that a stale delivery can be tried.
        Some(Place::Header(name)) => match parts.headers.get(name).and_then(|given| given.to_str().ok()) {
            Some(given) => given.clone_into(&mut timestamp),
            None => {
                parts.headers.insert(name, HeaderValue::from_str(&timestamp)?);
            }
        },
        Some(place @ (Place::Body(_) | Place::Form(_))) => {
            for at in 0..own.elements()? {
                own.put(at, place, &timestamp)?;
            }
        }
        Some(Place::Query(_) | Place::Path) | None => {}
    }
    let template = signed.templates.first().ok_or_else(|| SignError::Missing("a text to sign".to_owned()))?;
    fill_signed(signed, template, timestamp_at, draft.id, &mut parts.headers)?;
    fill_query(template, draft, own, parts);
    let query = with_parameters(draft.query, &parts.query);
    for at in 0..own.elements()? {
        let body = own.written();
        let request = Request {
            method: draft.method,
            url: draft.url,
            path: draft.path,
            query: &query,
            headers: &parts.headers,
            body: &body,
            via: Via::Anybody,
        };
        let key = match signed.algorithm {
            Algorithm::Digest(_) => signed.key.decode(secret.expose()).map_err(SignError::BadSecret)?,
            _ => Vec::new().into(),
        };
        let material = Material {
            request: &request,
            body: own.element(at),
            timestamp: timestamp.as_bytes(),
            timestamp_at,
            secret: &key,
            is_digested: IsDigested::No,
        };
        let signature = signed.encoding.encode(&compute(signed, template, &material, secret)?);
        // Braintree's stands behind the name of its key.
        let name = signed.key.key_name(secret.expose()).zip(signed.after.as_deref());
        let name = name.map(|(name, after)| format!("{name}{after}")).unwrap_or_default();
        let mut value = format!("{}{name}{signature}", signed.prefix);
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
            Place::Query(name) => parts.query.push((name.clone(), value)),
            place @ (Place::Body(_) | Place::Form(_)) => own.put(at, place, &value)?,
            Place::Path => return Err(SignError::NoPlace("the path".to_owned())),
        }
    }
    Ok(())
}

/// Parameters that are signed and that nobody gave: what stands at the same path in the body, else the delivery's id.
fn fill_query(template: &Template, draft: &Draft<'_>, own: &OwnBody<'_>, parts: &mut SignedParts) {
    for piece in template.pieces() {
        let (Piece::At(Place::Query(name)) | Piece::Lower(Place::Query(name))) = piece else { continue };
        if has_parameter(draft.query, name) {
            continue;
        }
        let told = own.text(&name.split('.').map(str::to_owned).collect::<Vec<_>>());
        parts.query.push((name.clone(), told.unwrap_or_else(|| draft.id.to_owned())));
    }
}

fn has_parameter(query: &str, name: &str) -> bool {
    form_urlencoded::parse(query.as_bytes()).any(|(given, _)| given == name)
}

fn with_parameters(query: &str, more: &[(String, String)]) -> String {
    let mut whole = form_urlencoded::Serializer::new(query.to_owned());
    whole.extend_pairs(more).finish()
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
            names.extend(timestamp_at.and_then(header).map(ToString::to_string));
            headers.insert(list, HeaderValue::from_str(&names.join(","))?);
        }
    }
    Ok(())
}

fn header(place: &Place) -> Option<&HeaderName> {
    match place {
        Place::Header(name) => Some(name),
        _ => None,
    }
}

fn compute(
    signed: &Signed,
    template: &Template,
    material: &Material<'_>,
    secret: &Secret,
) -> Result<Vec<u8>, SignError> {
    let lacking = |e: Unsignable| match e {
        Unsignable::Missing(place) | Unsignable::Repeated(place) => SignError::Missing(place.to_string()),
        Unsignable::NoUrl => SignError::Missing("the public URL".to_owned()),
    };
    let mut message = Vec::new();
    template.feed(material, |bytes| message.extend_from_slice(bytes)).map_err(lacking)?;
    signer::sign(signed.algorithm, signed.key, secret, &message)
}
