//! The `[verify]` table of a preset: from its keys to a sound [`Scheme`]. Called by `parse`.

use super::by_name::KeysByName;
use super::encoding::{ENCODINGS, Encoding, TIME_UNITS, TimeUnit};
use super::key_form::{KEY_FORMS, KeyForm};
use super::parse::{list_path, place, told};
use super::published::KeyUrl;
use super::read::{At, Section};
use super::scheme::{
    Algorithm, HASHES, Hash, JWT_ALGORITHMS, JwtAlgorithm, JwtRule, PublicAlgorithm, Published, PublishedKey, Scheme,
    Signed, TimestampPlace, TimestampRule,
};
use super::select::Place;
use super::signed::{Piece, Template};

#[derive(Clone, Copy)]
enum SchemeWord {
    Hmac,
    Digest,
    Public(PublicAlgorithm),
    Jwt,
    Token,
    Basic,
    Sns,
    None,
}

const SCHEMES: [(&str, SchemeWord); 12] = [
    ("hmac", SchemeWord::Hmac),
    ("digest", SchemeWord::Digest),
    ("ed25519", SchemeWord::Public(PublicAlgorithm::Ed25519)),
    ("ecdsa-p256", SchemeWord::Public(PublicAlgorithm::Ecdsa)),
    ("ecdsa-p256-fixed", SchemeWord::Public(PublicAlgorithm::EcdsaFixed)),
    ("rsa-sha256", SchemeWord::Public(PublicAlgorithm::RsaSha256)),
    ("rsa-sha1", SchemeWord::Public(PublicAlgorithm::RsaSha1)),
    ("jwt", SchemeWord::Jwt),
    ("token", SchemeWord::Token),
    ("basic", SchemeWord::Basic),
    ("sns", SchemeWord::Sns),
    ("none", SchemeWord::None),
];

/// Reads the table; the faults are told to the section's report. Beside the scheme the list whose elements carry it.
pub(super) fn verify(section: Section<'_, '_>) -> Option<(Scheme, Option<Vec<String>>)> {
    if section.is_misspelt("scheme") {
        return None;
    }
    section.required("scheme", "\"hmac\"")?;
    let word = section.word("scheme", &SCHEMES)?;
    let each = section.text("each").and_then(|t| told(&section, t.offset, list_path("each", &t.value)));
    let scheme = match word {
        SchemeWord::Hmac => signed(&section, hash(&section).map(Algorithm::Hmac)),
        SchemeWord::Digest => signed(&section, hash(&section).map(Algorithm::Digest)),
        SchemeWord::Public(public) => signed(&section, Some(Algorithm::Public(public))),
        SchemeWord::Jwt => jwt(&section),
        SchemeWord::Token => {
            let prefix = section.text("prefix").map(|t| t.value).unwrap_or_default();
            let at = section.required("token", "\"header:x-api-key\"").and_then(|t| match t.value.as_str() {
                "path" => Some(Place::Path),
                _ => place(&section, t),
            });
            at.map(|place| Scheme::Token { place, prefix })
        }
        SchemeWord::Basic => Some(Scheme::Basic),
        SchemeWord::Sns => Some(Scheme::Sns),
        SchemeWord::None => Some(Scheme::None),
    };
    section.finish();
    scheme.map(|scheme| (scheme, each))
}

fn hash(section: &Section<'_, '_>) -> Option<Hash> {
    section.required("hash", "\"sha256\"")?;
    section.word("hash", &HASHES)
}

fn key(section: &Section<'_, '_>) -> Option<KeyForm> {
    section.required("secret", "\"raw\"").and_then(|_| section.word("secret", &KEY_FORMS))
}

fn signed(section: &Section<'_, '_>, algorithm: Option<Algorithm>) -> Option<Scheme> {
    // Every key is asked for before the first `?`, so that all faults are found.
    let places = places(section);
    let encoding: Option<Encoding> =
        section.required("encoding", "\"hex\"").and_then(|_| section.word("encoding", &ENCODINGS));
    let published = published(section);
    let key = if section.has("published") { Some(KeyForm::Public) } else { key(section) };
    let prefix = section.text("prefix").map(|t| t.value).unwrap_or_default();
    let after = section.text("after").map(|t| t.value).filter(|t| !t.is_empty());
    let skip: Vec<String> = section.texts("skip").into_iter().map(|t| t.value).filter(|t| !t.is_empty()).collect();
    let separator = section.text("separator").and_then(|t| {
        if t.value.is_empty() {
            section.fault(t.offset, "an empty `separator` separates nothing: write \",\" or \" \", or leave it out");
        }
        (!t.value.is_empty()).then_some(t.value)
    });
    let templates = templates(section);
    let timestamp = timestamp(section, &templates, separator.is_some());
    let digest = section.text("digest").and_then(|t| place(section, t));
    let requires = requires(section);
    let algorithm = algorithm?;
    if templates.is_empty() {
        return None;
    }
    // One that is there and wrong has been told.
    sound(section, algorithm, key, &templates, section.has("timestamp"));
    own_events(section, algorithm, &templates, published.as_ref());
    if let Some(place) = digest.as_ref().filter(|place| !templates.iter().all(|t| t.covers(place))) {
        section.fault(section.offset, format!("`digest` in {place} is not signed, so anybody can renew it"));
    }
    Some(Scheme::Signed(Box::new(Signed {
        algorithm,
        key: key?,
        places: places?,
        separator,
        prefix,
        after,
        skip,
        encoding: encoding?,
        templates,
        digest,
        timestamp,
        requires,
        published,
    })))
}

fn key_url(section: &Section<'_, '_>, text: &At<String>) -> Option<KeyUrl> {
    let url = KeyUrl::pinned(&text.value, |_| true, "");
    let fault = || "a key is fetched from a plain https URL: no port, no query".to_owned();
    told(section, text.offset, url.ok_or_else(fault))
}

/// `published`: an https URL, or a place that names one on `published_hosts`.
fn published(section: &Section<'_, '_>) -> Option<PublishedKey> {
    let text = section.text("published");
    let hosts: Vec<String> = section.texts("published_hosts").into_iter().map(|t| t.value).collect();
    let path = section.text("published_path").map(|t| t.value).unwrap_or_default();
    let field = section.text("published_field").map(|t| t.value.split('.').map(str::to_owned).collect());
    let owner = section.text("owner").and_then(|t| told(section, t.offset, Template::parse(&t.value)));
    let text = text?;
    let at = if text.value.starts_with("https:") {
        Published::At(key_url(section, &text)?)
    } else {
        if hosts.is_empty() || !path.starts_with('/') {
            let problem = "an address that a request names has to be the sender's own: add `published_hosts` and `published_path`";
            section.fault(text.offset, problem);
        }
        Published::Named { place: place(section, text)?, hosts, path }
    };
    Some(PublishedKey { at, field, owner })
}

/// A published key signs for all customers of the sender: something signed has to tell ours from theirs.
fn own_events(
    section: &Section<'_, '_>,
    algorithm: Algorithm,
    templates: &[Template],
    published: Option<&PublishedKey>,
) {
    let Some(published) = published else { return };
    let covers = |t: &Template, place: &Place| {
        t.covers(place) || (matches!(place, Place::Body(_)) && t.signed_field().is_some())
    };
    let is_signed = |owner: &Template| owner.places().all(|place| templates.iter().all(|t| covers(t, place)));
    let is_told = match &published.owner {
        Some(owner) => is_signed(owner),
        None => templates.iter().all(|t| t.has(&Piece::Secret)),
    };
    if !is_told {
        let problem =
            "anybody who is a customer of this sender could ring: sign `{secret}`, or let a signed place be `owner`";
        section.fault(section.offset, problem);
    }
    if !matches!(algorithm, Algorithm::Public(PublicAlgorithm::RsaSha1 | PublicAlgorithm::RsaSha256)) {
        section.fault(section.offset, "of published keys only RSA's are built");
    }
}

fn places(section: &Section<'_, '_>) -> Option<Vec<Place>> {
    let written = section.texts("signature");
    if written.is_empty() {
        section.required("signature", "\"header:x-signature\"");
        return None;
    }
    let count = written.len();
    let places: Vec<Place> = written.into_iter().filter_map(|t| place(section, t)).collect();
    (places.len() == count).then_some(places)
}

/// `header:a | header:b`: one or the other.
fn requires(section: &Section<'_, '_>) -> Vec<Vec<Place>> {
    let several = |t: At<String>| {
        let one = |name: &str| place(section, At { offset: t.offset, value: name.trim().to_owned() });
        t.value.split('|').filter_map(one).collect()
    };
    section.texts("requires").into_iter().map(several).collect()
}

fn templates(section: &Section<'_, '_>) -> Vec<Template> {
    let written = section.texts("signed");
    if written.is_empty() {
        section.required("signed", "\"{body}\"");
    }
    let mut templates = Vec::new();
    for text in written {
        let Some(template) = told(section, text.offset, Template::parse(&text.value)) else { continue };
        if let Some(piece) = template.only_for_answers() {
            section.fault(text.offset, format!("`{piece}` belongs into the answer to a handshake: take it out"));
        }
        templates.push(template);
    }
    templates
}

/// What would let anybody sign, or sign for ever.
fn sound(
    section: &Section<'_, '_>,
    algorithm: Algorithm,
    key: Option<KeyForm>,
    templates: &[Template],
    has_timestamp: bool,
) {
    let offset = section.texts("signed").first().map_or(section.offset, |t| t.offset);
    if templates.iter().any(|t| t.has(&Piece::Timestamp)) && !has_timestamp {
        section.fault(offset, "`{ts}` is signed but `timestamp` does not say where it stands: add it");
    }
    let is_secret_in = |t: &Template| t.has(&Piece::Secret);
    match algorithm {
        Algorithm::Digest(_) if !templates.iter().all(is_secret_in) => {
            section.fault(offset, "a digest without `{secret}` proves nothing: add it to `signed`");
        }
        Algorithm::Hmac(_) | Algorithm::Public(_)
            if templates.iter().any(is_secret_in) && !section.has("published") =>
        {
            section.fault(offset, "`{secret}` belongs to the scheme \"digest\" only: take it out of `signed`");
        }
        _ => {}
    }
    let is_public = matches!(algorithm, Algorithm::Public(_));
    let fits = match key {
        Some(KeyForm::Public) => is_public,
        Some(KeyForm::Base64 | KeyForm::Hex | KeyForm::Whsec) | None => true,
        Some(_) => !is_public,
    };
    if !fits {
        section.fault(
            section.offset,
            "`secret` does not fit the scheme: \"public\" is for public keys, and only for them",
        );
    }
}

fn jwt(section: &Section<'_, '_>) -> Option<Scheme> {
    let place = section.required("token", "\"header:authorization\"").and_then(|t| place(section, t));
    let prefix = section.text("prefix").map(|t| t.value).unwrap_or_default();
    let algorithm: Option<JwtAlgorithm> =
        section.required("algorithm", "\"HS256\"").and_then(|_| section.word("algorithm", &JWT_ALGORITHMS));
    let key_set = section.text("key_set").and_then(|t| key_url(section, &t));
    let keys_by_name = keys_by_name(section);
    let owner = section.text("owner").map(|t| t.value);
    let key = if section.has("key_set") || section.has("key_request") { Some(KeyForm::Public) } else { key(section) };
    if section.has("key_set") != owner.is_some() {
        let problem = "`key_set` and `owner` go together: everybody's tokens are signed with published keys, and the claim \
                       `owner` tells whose this one is";
        section.fault(section.offset, problem);
    }
    let claim = section.text("body_claim");
    let encoding: Option<Encoding> = section.word("body_claim_encoding", &ENCODINGS);
    if let (Some(claim), None) = (&claim, encoding) {
        section
            .fault(claim.offset, "`body_claim_encoding` is missing: add for example `body_claim_encoding = \"hex\"`");
    }
    if claim.is_none() && section.has("key_request") {
        let problem =
            "a token that binds no body lets one who read it ring with another: with `key_request` add `body_claim`";
        section.fault(section.offset, problem);
    }
    let url = section.text("url_claim").map(|t| t.value);
    let query_hash = section.text("query_hash_claim").map(|t| t.value);
    let issuer = section.text("issuer").map(|t| t.value);
    let required: Vec<String> = section.texts("required").into_iter().map(|t| t.value).collect();
    let tolerance = section.required("tolerance", "\"60s\"").and_then(|_| section.duration("tolerance"));
    if claim.is_none() && !required.iter().any(|r| r == "exp" || r == "iat") {
        section
            .fault(section.offset, "a token that binds no body and no time is good for ever: add `required = \"exp\"`");
    }
    let (algorithm, key) = (algorithm?, key?);
    if key_set.is_some() && algorithm != JwtAlgorithm::Rs256 {
        section.fault(section.offset, "of a published `key_set` only RS256 is built");
    }
    if keys_by_name.is_some() && algorithm != JwtAlgorithm::Es256 {
        section.fault(section.offset, "of keys that are handed out by name (`key_request`) only ES256's are built");
    }
    if (algorithm == JwtAlgorithm::Hs256) == (key == KeyForm::Public) {
        section.fault(section.offset, "`secret` does not fit `algorithm`: \"public\" is for RS256 and ES256");
    }
    Some(Scheme::Jwt(Box::new(JwtRule {
        place: place?,
        prefix,
        algorithm,
        key,
        body: claim.map(|c| c.value).zip(encoding),
        url,
        query_hash,
        issuer,
        key_set,
        keys_by_name,
        owner,
        required,
        tolerance: tolerance?.value,
    })))
}

/// `key_request`, and `key_request_sandbox` beside it.
fn keys_by_name(section: &Section<'_, '_>) -> Option<KeysByName> {
    let (live, sandbox) = (section.text("key_request"), section.text("key_request_sandbox"));
    if section.has("key_set") && live.is_some() {
        section.fault(section.offset, "keys are published or handed out: `key_set` or `key_request`, not both");
    }
    if let (None, Some(sandbox)) = (&live, &sandbox) {
        section.fault(sandbox.offset, "`key_request_sandbox` stands beside `key_request`: add it");
    }
    let sandbox = sandbox.and_then(|t| key_url(section, &t));
    Some(KeysByName { live: key_url(section, &live?)?, sandbox })
}

fn timestamp(section: &Section<'_, '_>, templates: &[Template], list: bool) -> Option<TimestampRule> {
    let text = section.text("timestamp");
    let unit: Option<TimeUnit> = section.word("timestamp_unit", &TIME_UNITS);
    let tolerance = section.duration("tolerance");
    let ahead = section.duration("tolerance_ahead").map(|t| t.value);
    let text = text?;
    let place = match text.value.strip_prefix("signature:") {
        Some(prefix) => {
            if !list {
                section.fault(text.offset, "a timestamp in the signature needs a `separator`, such as \",\"");
            }
            TimestampPlace::InSignature(prefix.to_owned())
        }
        None => TimestampPlace::At(place(section, At { offset: text.offset, value: text.value.clone() })?),
    };
    // A canonical request lists its headers itself; it is refused if the timestamp's is not among them.
    let is_signed = |t: &Template| {
        let is_canonical = t.pieces().iter().any(|p| matches!(p, Piece::Canonical(_)));
        t.has(&Piece::Timestamp) || is_canonical || matches!(&place, TimestampPlace::At(at) if t.covers(at))
    };
    if !templates.iter().all(is_signed) {
        section.fault(text.offset, "the timestamp is not signed, so anybody can renew it: add `{ts}` to `signed`");
    }
    if !section.has("timestamp_unit") {
        section.fault(text.offset, "`timestamp_unit` is missing: add `timestamp_unit = \"s\"`, \"ms\" or \"rfc3339\"");
    }
    if !section.has("tolerance") {
        section.fault(text.offset, "`tolerance` is missing: add for example `tolerance = \"300s\"`");
    }
    Some(TimestampRule { place, unit: unit?, tolerance: tolerance?.value, ahead })
}
