//! What a check looks at: the values at the places of a scheme, the text that was signed, the key that is named. Reads
//! requests and decides nothing; `verify` does.

use std::borrow::Cow;

use aws_lc_rs::digest;
use aws_lc_rs::signature::ParsedPublicKey;
use serde_json::Value;
use subtle::ConstantTimeEq as _;

use super::Request;
use super::handshake::{MAC_BYTES_MAX, is_plain_challenge};
use super::presented::Presented;
use super::published::KeyUrl;
use super::refusal::Refusal;
use super::scheme::{JwtRule, PublicAlgorithm, Signed};
use super::select::{NotExact, Place, walk};
use super::signed::{IsDigested, Material, Template};
use super::sns;

/// The address of the key that a request names, if it is one of the sender's own.
pub(super) fn named_url(request: &Request<'_>, place: &Place, hosts: &[String], path: &str) -> Result<KeyUrl, Refusal> {
    let url = place.exact(request, None).map_err(|e| match e {
        NotExact::Missing => Refusal::PartMissing(place.clone()),
        NotExact::Repeated => Refusal::PartRepeated(place.clone()),
    })?;
    let is_below = |url: &str| {
        let host = url.strip_prefix("https://").and_then(|rest| rest.split_once('/'));
        host.is_some_and(|(_, rest)| path.strip_prefix('/').is_some_and(|path| rest.starts_with(path)))
    };
    let url = std::str::from_utf8(&url).ok().filter(|url| is_below(url));
    let url = url.and_then(|url| KeyUrl::pinned(url, |host| hosts.iter().any(|h| h == host), ""));
    url.ok_or_else(|| Refusal::SignatureMalformed {
        place: place.clone(),
        wanted: format!("an address below https://{}{path}", hosts.join(" or ")).into(),
        seen: "another address",
    })
}

/// The value at a token's place.
pub(super) fn presented_token<'r>(
    rule: &JwtRule,
    request: &Request<'r>,
    body: Option<&'r Value>,
) -> Result<Cow<'r, [u8]>, Refusal> {
    rule.place.exact(request, body).map_err(|e| match e {
        NotExact::Missing => Refusal::SignatureMissing(rule.place.clone()),
        NotExact::Repeated => Refusal::PartRepeated(rule.place.clone()),
    })
}

/// The JSON that the signature covers: that of the form's field where a field is signed. Never another reading of the same
/// bytes: the owner is read from it, and a stranger's signed text may hold whatever a stranger writes.
pub(super) fn signed_json(signed: &Signed, request: &Request<'_>) -> Option<Value> {
    match signed.templates.iter().find_map(|t| t.signed_field()) {
        Some(field) => serde_json::from_slice(&field.exact(request, None).ok()?).ok(),
        None => serde_json::from_slice(request.body).ok(),
    }
}

/// The key in a document that was fetched.
pub(super) fn public_key(
    document: &[u8],
    field: Option<&[String]>,
    algorithm: PublicAlgorithm,
) -> Option<ParsedPublicKey> {
    let json: Value;
    let pem = match field {
        None => std::str::from_utf8(document).ok()?,
        Some(path) => {
            json = serde_json::from_slice(document).ok()?;
            walk(&json, path)?.as_str()?
        }
    };
    ParsedPublicKey::new(algorithm.verification(), sns::public_key(pem)?).ok()
}

/// Values and where they stand.
pub(super) type Found<'r> = Vec<(&'r Place, Cow<'r, [u8]>)>;

/// The values at several places, those that are there.
pub(super) fn several<'r>(
    signed: &'r Signed,
    request: &Request<'r>,
    body: Option<&'r Value>,
    presented: &Presented<'_>,
) -> Result<Found<'r>, Refusal> {
    let mut values = Vec::new();
    for place in &signed.places {
        match place.exact(request, body) {
            Ok(value) => values.push((place, value)),
            Err(NotExact::Missing) => {}
            Err(NotExact::Repeated) => return Err(presented.malformed(place, "several of them")),
        }
    }
    Ok(values)
}

/// Where a sender writes one signature for each of its keys, one of them may be in a form that is not known here: it is
/// passed over as long as another is right.
pub(super) fn read_several<'r>(
    presented: &mut Presented<'r>,
    values: &'r [(&'r Place, Cow<'r, [u8]>)],
) -> Result<(), Refusal> {
    let mut odd = None;
    for (place, value) in values {
        if let Err(refusal) = presented.read(place, value) {
            odd = Some(refusal);
        }
    }
    presented.check().map_err(|missing| odd.unwrap_or(missing))
}

/// Whether the text that would be signed is one that anybody may have had signed by us, as a handshake's challenge: then its
/// signature proves nothing. What senders sign is never so short and plain.
pub(super) fn is_askable(template: &Template, from: &Material<'_>) -> bool {
    let (mut text, mut length) = (Vec::new(), 0);
    let fed = template.feed(from, |bytes| {
        length += bytes.len();
        if length <= MAC_BYTES_MAX {
            text.extend_from_slice(bytes);
        }
    });
    fed.is_ok() && length <= MAC_BYTES_MAX && std::str::from_utf8(&text).is_ok_and(is_plain_challenge)
}

/// Whether the place of the body's digest holds the right one; a wrong one is refused.
pub(super) fn digested(signed: &Signed, request: &Request<'_>, body: Option<&Value>) -> Result<IsDigested, Refusal> {
    let Some(place) = &signed.digest else { return Ok(IsDigested::No) };
    let said = match place.exact(request, body) {
        Ok(said) => said,
        Err(NotExact::Missing) => return Ok(IsDigested::No),
        Err(NotExact::Repeated) => return Err(Refusal::PartRepeated(place.clone())),
    };
    let made = digest::digest(&digest::SHA256, request.body);
    let fits = hex::decode(&*said).is_ok_and(|said| bool::from(made.as_ref().ct_eq(&said)));
    if fits { Ok(IsDigested::Yes) } else { Err(Refusal::DigestMismatch(place.to_string().into())) }
}
