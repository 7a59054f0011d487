//! The check: does this request carry a signature or credential that one of the source's secrets makes?
//!
//! A [`Verifier`] is made once per source when the configuration is read; keys are decoded and prepared there. Checking
//! a request then copies no body and allocates nothing in the usual case (a header, an HMAC): the signed text is fed to
//! the HMAC piece by piece and signatures are decoded on the stack. Comparison takes the same time wherever the first
//! wrong byte stands.
//!
//! Only this module makes a [`Verified`], and only a `Verified` becomes an event.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_PAD_INDIFFERENT;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use serde_json::Value;
use zeroize::Zeroizing;

use super::Request;
use super::credential::{after_word, bad_credential, credential, is_path_token};
use super::evidence::{
    digested, is_askable, named_url, presented_token, public_key, read_several, several, signed_json,
};
use super::handshake::Handshake;
use super::jwt;
use super::keys::{BadSecret, Keys};
use super::presented::Presented;
use super::preset::Preset;
use super::published::KeyUrl;
use super::refusal::Refusal;
use super::scheme::{Algorithm, JwtRule, Published, PublishedKey, Scheme, Signed, TimestampPlace};
use super::select::{NotExact, Place, walk};
use super::signed::{IsDigested, Material};
use super::sns::SnsMessage;
use crate::payload::multipart;
use crate::{Secret, Timestamp};

/// The most elements of a list that are each checked. Senders write up to some hundred.
const EACH_MAX: usize = 1000;

/// What a source may say about the check.
#[derive(Clone, Debug, Default)]
pub struct VerifyOptions {
    /// How old a signature may be, instead of the preset's.
    pub tolerance: Option<Duration>,
    /// What a handshake that nobody signs has to present, such as Meta's verify token.
    pub verify_token: Option<Secret>,
    /// Whom a token has to be meant for, instead of the source's public URL.
    pub audience: Option<String>,
}

/// What a check has proved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Proof {
    /// Nothing: no check was asked for.
    Nothing,
    /// The sender knows the secret; anybody who read the request knows it too.
    Credential,
    /// The sender signed some of the request, and not the whole body.
    Part,
    /// The sender signed the whole body.
    Body,
}

/// A request that passed its source's check. Made by [`Verifier::verify`] alone, or by the name of what it lacks. Cannot be
/// copied: one check lets one request in.
#[derive(PartialEq, Eq, Debug)]
pub struct Verified {
    scheme: &'static str,
    secret: Option<usize>,
    proof: Proof,
}

impl Verified {
    /// For ways in where nothing is checked because the owner said `auth = "none"`, and for our own schedules, files
    /// and agents. [`Verified::proof`] says `Nothing` for ever.
    pub fn unauthenticated() -> Self {
        Self { scheme: "none", secret: None, proof: Proof::Nothing }
    }

    /// The scheme, as in `hmac-sha256`, `token`, `none`.
    pub fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// Which of the source's secrets matched, counted from 0.
    pub fn secret_index(&self) -> Option<usize> {
        self.secret
    }

    /// What was proved.
    pub fn proof(&self) -> Proof {
        self.proof
    }

    /// Whether anything was checked at all.
    pub fn is_authenticated(&self) -> bool {
        self.proof != Proof::Nothing
    }
}

/// A preset with a source's secrets, ready to check requests.
pub struct Verifier {
    preset: Arc<Preset>,
    pub(super) keys: Keys,
    pub(super) options: VerifyOptions,
    /// What the sender calls the newest secret, where the secret says it.
    pub(super) key_name: Option<String>,
    /// Whether the check has to parse the body as JSON.
    looks_into_body: bool,
    /// Whether strangers get our HMAC of a challenge for the asking.
    answers_macs: bool,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("provider", &self.preset.id).finish_non_exhaustive()
    }
}

impl Verifier {
    /// Prepares the secrets, newest first; several stand for a rotation, and any match passes.
    pub fn new(preset: Arc<Preset>, secrets: &[Secret], options: VerifyOptions) -> Result<Self, BadSecret> {
        let provider = || preset.id.clone();
        match (&preset.scheme, secrets.is_empty()) {
            (Scheme::None | Scheme::ClientCert(_), false) => return Err(BadSecret::Unused { provider: provider() }),
            (Scheme::None | Scheme::ClientCert(_), true) => {}
            (_, true) => return Err(BadSecret::Missing { provider: provider() }),
            (_, false) => {}
        }
        if let Some(empty) = secrets.iter().position(|s| s.expose().trim().is_empty()) {
            return Err(BadSecret::Empty { index: empty + 1, provider: provider() });
        }
        if let Scheme::Jwt(rule) = &preset.scheme
            && let Some(by_name) = &rule.keys_by_name
        {
            for (i, secret) in secrets.iter().enumerate() {
                let Some(wanted) = by_name.fault(secret) else { continue };
                return Err(BadSecret::Unreadable { index: i + 1, provider: provider(), wanted });
            }
        }
        let keys = match &preset.scheme {
            scheme if scheme.fetches_keys() => Keys::Plain(secrets.to_vec()),
            Scheme::Signed(signed) => Keys::of(signed.algorithm, signed.key, &preset.id, secrets)?,
            Scheme::Jwt(rule) => Keys::of(rule.algorithm.algorithm(), rule.key, &preset.id, secrets)?,
            Scheme::Basic => {
                let bad = secrets.iter().position(|s| !s.expose().contains(':'));
                if let Some(at) = bad {
                    let wanted = "it should be `user:password`";
                    return Err(BadSecret::Unreadable { index: at + 1, provider: provider(), wanted });
                }
                Keys::Plain(secrets.to_vec())
            }
            Scheme::Token { place: Place::Path, .. } if !secrets.iter().all(is_path_token) => {
                let index = secrets.iter().position(|s| !is_path_token(s)).unwrap_or_default() + 1;
                let wanted = "it should be 16 to 200 letters, digits, `-`, `_`, `.` or `~`, since it stands in a URL";
                return Err(BadSecret::Unreadable { index, provider: provider(), wanted });
            }
            Scheme::Token { .. } | Scheme::Sns | Scheme::ClientCert(_) | Scheme::None => Keys::Plain(secrets.to_vec()),
        };
        let in_body = |place: &Place| matches!(place, Place::Body(_));
        let looks_into_body = preset.each.is_some()
            || preset.credentials().iter().any(in_body)
            || preset.scheme.signed().is_some_and(|s| {
                let time_in_body = |t: &TimestampPlace| matches!(t, TimestampPlace::At(at) if in_body(at));
                s.templates.iter().any(|t| t.looks_into_body())
                    || s.timestamp.as_ref().is_some_and(|t| time_in_body(&t.place))
            });
        let newest = secrets.first();
        let key_name = preset.scheme.signed().and_then(|s| s.key.key_name(newest?.expose()).map(str::to_owned));
        let answers_macs = preset.handshakes.iter().any(Handshake::gives_mac_unsigned);
        Ok(Self { preset, keys, options, key_name, looks_into_body, answers_macs })
    }

    /// The preset.
    pub fn preset(&self) -> &Arc<Preset> {
        &self.preset
    }

    /// Checks one request at the time `now`.
    pub fn verify(&self, request: &Request<'_>, now: Timestamp) -> Result<Verified, Refusal> {
        // A body that is no JSON has none of the fields that are asked for, and is refused for that.
        let body: Option<Value> = if self.looks_into_body { self.json(request) } else { None };
        let (secret, proof) = match &self.preset.each {
            None => self.one(request, body.as_ref(), now)?,
            Some(path) => self.each(path, request, body.as_ref(), now)?,
        };
        Ok(Verified { scheme: self.preset.scheme.name(), secret, proof })
    }

    /// The JSON of a body, by the same rule as the payload is read: where it stands in a part, that part.
    fn json(&self, request: &Request<'_>) -> Option<Value> {
        let Some(field) = self.preset.payload.part() else { return serde_json::from_slice(request.body).ok() };
        let media = request.headers.get(CONTENT_TYPE).map(|v| String::from_utf8_lossy(v.as_bytes()));
        let part = multipart::part(request.body, media.as_deref(), field).ok()?;
        serde_json::from_slice(part.as_ref().unwrap_or(request.body)).ok()
    }

    /// Whether the head of a request alone says if it passes: a credential in it, and nothing that the sender may ask or hand
    /// over in a body without one. Then a large body of a stranger need not be read.
    pub fn reads_head_alone(&self) -> bool {
        let preset = &self.preset;
        let in_head = |place: &Place| matches!(place, Place::Header(_) | Place::Query(_) | Place::Path);
        let is_credential = match &preset.scheme {
            Scheme::Token { place, .. } => in_head(place),
            Scheme::Basic | Scheme::ClientCert(_) => true,
            Scheme::Sns | Scheme::Jwt(_) | Scheme::Signed(_) | Scheme::None => false,
        };
        is_credential && !self.looks_into_body && preset.handshakes.is_empty() && preset.pairing.is_none()
    }

    /// Where the key of this request stands, if it has to be fetched; then [`Verifier::verify_with`] is asked, and else
    /// [`Verifier::verify`]. An address that is not the sender's is a refusal.
    pub fn key_url(&self, request: &Request<'_>) -> Result<Option<KeyUrl>, Refusal> {
        match &self.preset.scheme {
            Scheme::Sns => {
                let message = SnsMessage::read(request.body)?;
                // Before anything is fetched: who does not know the topic must not fill the cache of keys.
                self.compare(message.topic().as_bytes())?;
                Ok(Some(message.certificate().clone()))
            }
            Scheme::Jwt(rule) => match (&rule.keys_by_name, &self.keys) {
                (Some(by_name), Keys::Plain(secrets)) => {
                    let value = presented_token(rule, request, None)?;
                    let name = jwt::key_name(rule, after_word(&rule.place, &value, &rule.prefix)?)?;
                    secrets.first().map(|newest| by_name.key(&name, newest)).transpose()
                }
                _ => Ok(rule.key_set.clone()),
            },
            Scheme::Signed(signed) => match signed.published.as_ref().map(|key| &key.at) {
                Some(Published::At(url)) => Ok(Some(url.clone())),
                Some(Published::Named { place, hosts, path }) => named_url(request, place, hosts, path).map(Some),
                None => Ok(None),
            },
            _ => Ok(None),
        }
    }

    /// Whether what a key says may be the fault of the key: the sender may have changed it since it was fetched.
    pub fn may_be_stale(&self, refusal: &Refusal) -> bool {
        match (&self.preset.scheme, refusal) {
            (Scheme::Sns, _) => false,
            (_, Refusal::KeyUnknown | Refusal::KeyUnreadable) => true,
            // One address, so another key may stand there by now. A key that the request names is another address.
            (Scheme::Signed(signed), Refusal::SignatureMismatch { .. }) => {
                matches!(signed.published, Some(PublishedKey { at: Published::At(_), .. }))
            }
            _ => false,
        }
    }

    /// Checks one request at the time `now` with what was found at [`Verifier::key_url`].
    pub fn verify_with(&self, request: &Request<'_>, key: &[u8], now: Timestamp) -> Result<Verified, Refusal> {
        let (secret, proof) = match &self.preset.scheme {
            Scheme::Sns => {
                let message = SnsMessage::read(request.body)?;
                message.verify(key)?;
                // Anybody may own a topic: the signature is Amazon's for all of them.
                (self.compare(message.topic().as_bytes())?, Proof::Part)
            }
            Scheme::Jwt(rule) => self.token(rule, jwt::Trusted::Published(key, &self.keys), request, None, now)?,
            Scheme::Signed(signed) => self.published(signed, request, key, now)?,
            Scheme::Token { .. } | Scheme::Basic | Scheme::ClientCert(_) | Scheme::None => {
                return Err(Refusal::SignatureMismatch { secrets: 0 });
            }
        };
        Ok(Verified { scheme: self.preset.scheme.name(), secret: Some(secret), proof })
    }

    fn published(
        &self,
        signed: &Signed,
        request: &Request<'_>,
        document: &[u8],
        now: Timestamp,
    ) -> Result<(usize, Proof), Refusal> {
        let (Some(published), Keys::Plain(secrets), Algorithm::Public(algorithm)) =
            (&signed.published, &self.keys, signed.algorithm)
        else {
            return Err(Refusal::SignatureMismatch { secrets: 0 });
        };
        let key = public_key(document, published.field.as_deref(), algorithm).ok_or(Refusal::KeyUnreadable)?;
        let keys = Keys::Published(Box::new(key), secrets.clone());
        let body = signed_json(signed, request);
        let (secret, proof) = self.signature(signed, &keys, request, body.as_ref(), now)?;
        let Some(owner) = &published.owner else { return Ok((secret, proof)) };
        let owner = owner.text(request, body.as_ref().unwrap_or(&Value::Null), |value, text| text.push_str(value));
        let owner = owner.ok_or(Refusal::CredentialMismatch { secrets: secrets.len() })?;
        Ok((self.compare(owner.as_bytes())?, proof))
    }

    fn token(
        &self,
        rule: &JwtRule,
        keys: jwt::Trusted<'_>,
        request: &Request<'_>,
        body: Option<&Value>,
        now: Timestamp,
    ) -> Result<(usize, Proof), Refusal> {
        let value = presented_token(rule, request, body)?;
        let token = after_word(&rule.place, &value, &rule.prefix)?;
        let tolerance = self.options.tolerance.unwrap_or(rule.tolerance);
        let holding = jwt::Holding { keys, now, tolerance, audience: self.options.audience.as_deref() };
        let secret = jwt::check(rule, &holding, token, request)?;
        Ok((secret, if rule.body.is_some() { Proof::Body } else { Proof::Credential }))
    }

    /// The address that confirms what a verified request asks to have confirmed.
    pub fn confirmation(&self, request: &Request<'_>, _checked: &Verified) -> Option<KeyUrl> {
        match self.preset.scheme {
            Scheme::Sns => SnsMessage::read(request.body).ok()?.subscribe().cloned(),
            _ => None,
        }
    }

    /// Every element of the list carries its own proof, and all have to be right: one good element must not let in others.
    fn each(
        &self,
        path: &[String],
        request: &Request<'_>,
        body: Option<&Value>,
        now: Timestamp,
    ) -> Result<(Option<usize>, Proof), Refusal> {
        let list = body.and_then(|b| walk(b, path)).and_then(Value::as_array);
        let list = list.filter(|list| (1..=EACH_MAX).contains(&list.len()));
        let list = list.ok_or_else(|| Refusal::NothingToCheck(Place::Body(path.to_vec())))?;
        let mut last = (None, Proof::Nothing);
        for element in list {
            last = self.one(request, Some(element), now)?;
        }
        Ok(last)
    }

    fn one(
        &self,
        request: &Request<'_>,
        body: Option<&Value>,
        now: Timestamp,
    ) -> Result<(Option<usize>, Proof), Refusal> {
        let (secret, proof) = match &self.preset.scheme {
            Scheme::None => return Ok((None, Proof::Nothing)),
            Scheme::ClientCert(rule) => return rule.check(request).map(|()| (None, Proof::Credential)),
            // Never without its key, which `verify_with` is given.
            scheme if scheme.fetches_keys() => return Err(Refusal::SignatureMismatch { secrets: 0 }),
            Scheme::Signed(signed) => self.signature(signed, &self.keys, request, body, now)?,
            Scheme::Jwt(rule) => self.token(rule, jwt::Trusted::Own(&self.keys), request, body, now)?,
            Scheme::Token { place, prefix } => {
                let value = credential(place, request, body)?;
                let token = after_word(place, &value, prefix)?;
                (self.compare(token)?, Proof::Credential)
            }
            Scheme::Sns => return Err(Refusal::SignatureMismatch { secrets: 0 }),
            Scheme::Basic => {
                let place = Place::Header(AUTHORIZATION);
                let value = credential(&place, request, None)?;
                let encoded = after_word(&place, &value, "Basic ")?;
                let pair = STANDARD_PAD_INDIFFERENT.decode(encoded).map(Zeroizing::new);
                let pair =
                    pair.map_err(|_| bad_credential(&place, "`Basic ` and base64", "something that is no base64"))?;
                (self.compare(&pair)?, Proof::Credential)
            }
        };
        Ok((Some(secret), proof))
    }

    fn compare(&self, offered: &[u8]) -> Result<usize, Refusal> {
        let Keys::Plain(secrets) = &self.keys else { return Err(Refusal::CredentialMismatch { secrets: 0 }) };
        let matching = secrets.iter().position(|s| s.matches(offered));
        matching.ok_or(Refusal::CredentialMismatch { secrets: secrets.len() })
    }

    fn signature(
        &self,
        signed: &Signed,
        keys: &Keys,
        request: &Request<'_>,
        body: Option<&Value>,
        now: Timestamp,
    ) -> Result<(usize, Proof), Refusal> {
        for places in &signed.requires {
            if !places.iter().any(|place| place.exact(request, body).is_ok()) {
                return Err(Refusal::RequiredMissing(places.clone()));
            }
        }
        let mut presented = Presented::new(signed);
        let (lone, values);
        if let [place] = signed.places.as_slice() {
            if let (Some(_), Place::Header(name)) = (&signed.separator, place) {
                // A list may be spread over several headers of one name (RFC 9110, section 5.3).
                for value in request.headers.get_all(name) {
                    presented.read(place, value.as_bytes())?;
                }
            } else {
                lone = place.exact(request, body).map_err(|e| match e {
                    NotExact::Missing => Refusal::SignatureMissing(place.clone()),
                    NotExact::Repeated => presented.malformed(place, "several of them"),
                })?;
                presented.read(place, &lone)?;
            }
            presented.check()?;
        } else {
            values = several(signed, request, body, &presented)?;
            read_several(&mut presented, &values)?;
        }
        let timestamp_at = match signed.timestamp.as_ref().map(|t| &t.place) {
            Some(TimestampPlace::At(place)) => Some(place),
            _ => None,
        };
        let timestamp = match (signed.timestamp.is_some(), timestamp_at) {
            (false, _) => Some(Cow::Borrowed([].as_slice())),
            (true, None) => Some(Cow::Borrowed(presented.timestamp.ok_or(Refusal::TimestampMissing)?)),
            (true, Some(place)) => match place.exact(request, body) {
                Ok(value) => Some(value),
                // A body that was changed may have lost its time with its form: the signature is what is wrong with it.
                Err(NotExact::Missing) if matches!(place, Place::Body(_)) => None,
                Err(NotExact::Missing) => return Err(Refusal::TimestampMissing),
                Err(NotExact::Repeated) => return Err(Refusal::PartRepeated(place.clone())),
            },
        };
        let is_digested = digested(signed, request, body)?;
        let at = timestamp.as_deref().unwrap_or_default();
        let material = Material { request, body, timestamp: at, timestamp_at, secret: &[], is_digested };
        if self.answers_macs && signed.templates.iter().any(|t| is_askable(t, &material)) {
            return Err(Refusal::SignatureMismatch { secrets: keys.len() });
        }
        let secret = keys.matching(signed, &material, &presented)?;
        // The time is looked at last: a right signature that is old is worth telling from a forgery.
        if let Some(rule) = &signed.timestamp {
            let timestamp = timestamp.as_deref().ok_or(Refusal::TimestampMissing)?;
            let at = rule.unit.parse(timestamp).ok_or(Refusal::TimestampMalformed(rule.unit))?;
            let tolerance = self.options.tolerance.unwrap_or(rule.tolerance);
            Refusal::of_time(at, now, tolerance, rule.ahead.unwrap_or(tolerance))?;
        }
        let covers = is_digested == IsDigested::Yes || signed.templates.iter().all(|t| t.covers_body());
        Ok((secret, if covers { Proof::Body } else { Proof::Part }))
    }
}
