//! A preset: everything that Doorbell knows about one sender, as data. Read from `presets/providers/*.toml` (built in) or
//! from a source's own table in the configuration, by [`Preset::parse`] in `parse`.
//!
//! A preset is facts only. Whoever wants to add a sender writes one file; the engine in `verify`, `labels`, `handshake`
//! and `sign` reads all of them alike.

use std::time::Duration;

use http::HeaderName;

use super::encoding::ENCODINGS;
use super::handshake::{Handshake, Wanted};
use super::pairing::Pairing;
use super::scheme::{Algorithm, HASHES, Scheme};
use super::select::Place;
use super::signed::{Piece, Template};

/// One sender's rules.
#[derive(Clone, PartialEq, Debug)]
pub struct Preset {
    /// What configuration calls it; the file's name without its ending.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// How sure the rule of the signature is.
    pub confidence: Confidence,
    /// Where the facts come from.
    pub source: Vec<String>,
    /// How it proves itself.
    pub scheme: Scheme,
    /// The list in the body whose elements each carry the proof, if it is not the request that does. Places of the
    /// scheme then start at an element.
    pub each: Option<Vec<String>>,
    /// How it labels its events.
    pub event: EventRules,
    /// How its bodies are read.
    pub payload: PayloadRules,
    /// What it asks before it sends.
    pub handshakes: Vec<Handshake>,
    /// How it hands over its secret, if it does that over the wire.
    pub pairing: Option<Pairing>,
    /// The text that it takes for a yes, answered with 200 to whatever was taken; none: our own answer will do.
    pub reply: Option<String>,
    /// The headers worth keeping with an event.
    pub keep_headers: Vec<HeaderName>,
    /// The places that hold a secret beside the scheme's own, to be taken out before anybody reads the event.
    pub secrets: Vec<Place>,
    /// What a source that uses this preset may set for itself.
    pub settable: Vec<Setting>,
    /// For people.
    pub docs: Docs,
    /// Requests with their verdicts; the conformance test holds the engine to them.
    pub vectors: Vec<Vector>,
}

/// How sure the rule of a signature is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Confidence {
    /// Read in, or tried against, the sender's own code.
    Sdk,
    /// Read in the sender's documentation.
    Docs,
    /// From third parties only.
    Secondary,
    /// Not a sender but a general method, or somebody's own rule.
    Own,
}

/// Where the labels of an event stand. Of several, the first that yields something wins.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct EventRules {
    /// The delivery's or the event's id, for telling duplicates.
    pub id: Vec<Template>,
    /// What happened.
    pub event_type: Vec<Template>,
    /// What it happened to.
    pub subject: Vec<Template>,
    /// Who did it.
    pub actor: Vec<Template>,
    /// When it happened: RFC 3339, or seconds or milliseconds since 1970.
    pub time: Vec<Template>,
}

/// How a body is read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PayloadRules {
    /// The form of the body.
    pub format: Format,
    /// The field that holds JSON, when the body is a form (GitHub and Slack: `payload`) or in parts.
    pub form_json: Option<String>,
    /// The path of the list of events, when one request may hold several; an empty path is the body itself.
    pub batch: Option<Vec<String>>,
    /// The largest body the sender makes, in bytes.
    pub max_body: Option<u64>,
    /// Whether requests may be, or have to be, `CloudEvents`.
    pub cloudevents: CloudEvents,
}

/// Whether a sender's requests are `CloudEvents` 1.0 in one of the three forms of HTTP.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum CloudEvents {
    /// Their headers and media types mean nothing here.
    #[default]
    No,
    /// Those that say so are; others are bodies as ever.
    Accepted,
    /// All are, and others are refused.
    Required,
}

/// The form of a body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// JSON, whatever the media type says.
    Json,
    /// `application/x-www-form-urlencoded`.
    Form,
    /// By the media type: a form if it says so, else JSON.
    Auto,
    /// `multipart/form-data` with JSON in the field [`PayloadRules::form_json`]; anything else is JSON as it is.
    Multipart,
}

/// What a source may set for itself on a preset that allows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Setting {
    /// The header of the signature or token.
    Header,
    /// The hash.
    Hash,
    /// How the signature is written.
    Encoding,
    /// What stands before it.
    Prefix,
    /// The header that holds the delivery's id.
    IdHeader,
    /// The header that holds the event's type.
    TypeHeader,
}

/// The words of a preset's `settable`, which are also the keys of a source's settings.
pub(super) const SETTINGS: [(&str, Setting); 6] = [
    ("header", Setting::Header),
    ("hash", Setting::Hash),
    ("encoding", Setting::Encoding),
    ("prefix", Setting::Prefix),
    ("id_header", Setting::IdHeader),
    ("type_header", Setting::TypeHeader),
];

impl Preset {
    /// Whether no delivery can be checked without knowing our own URL as the sender does: it is part of what is signed.
    pub fn signs_public_url(&self) -> bool {
        let is_url =
            |piece: &Piece| matches!(piece, Piece::Url | Piece::UrlWithPort | Piece::UrlWithoutPort | Piece::PlivoUrl);
        match &self.scheme {
            Scheme::Signed(signed) => signed.templates.iter().all(|t| t.pieces().iter().any(is_url)),
            // Published keys sign for everybody: there an `audience` may stand in for the URL.
            Scheme::Jwt(rule) => rule.url.is_some() && rule.key_set.is_none(),
            _ => false,
        }
    }

    /// Whether a signature of this sender may fit several bodies: it is made of other parts of the request.
    pub fn leaves_body_unsigned(&self) -> bool {
        match &self.scheme {
            Scheme::Signed(signed) => signed.digest.is_none() && !signed.templates.iter().all(Template::covers_body),
            _ => false,
        }
    }

    /// Where the sender shows what is set as `verify_token`, when it asks whether this address is ours.
    pub fn verify_token(&self) -> Option<&Place> {
        let mut asked = self.handshakes.iter().flat_map(|h| &h.when);
        asked.find_map(|(place, wanted)| (*wanted == Wanted::VerifyToken).then_some(place))
    }
}

/// What people want to know about a sender.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Docs {
    /// Where to click to set the webhook up.
    pub setup: Option<String>,
    /// What the sender calls the secret.
    pub secret_name: Option<String>,
    /// The sender's own page.
    pub url: Option<String>,
    /// How it retries, in words.
    pub retry: Option<String>,
    /// How long after an event it may still be sent again; `check` compares it with the retention of dedup keys.
    pub retry_span: Option<Duration>,
    /// How long it waits for an answer.
    pub answer_within: Option<Duration>,
    /// What else is worth knowing.
    pub notes: Option<String>,
}

/// A request and what should become of it.
#[derive(Clone, PartialEq, Debug)]
pub struct Vector {
    /// What it shows.
    pub note: String,
    /// The method.
    pub method: http::Method,
    /// The public URL; its path and query are the request's.
    pub url: Option<String>,
    /// The headers, in order; a name may come twice.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// The secrets of the source. Test values.
    pub secrets: Vec<String>,
    /// What stands at the address that the request names for the sender's key.
    pub key: Option<String>,
    /// What the clock says, in seconds since 1970.
    pub now_s: i64,
    /// The code of the refusal, or none if it is accepted.
    pub refused: Option<String>,
    /// The labels it should get (`id`, `type`, `subject`, `actor`), for accepted ones.
    pub labels: Vec<(String, String)>,
}

impl PayloadRules {
    /// As the payload reader takes it.
    pub fn rule(&self) -> crate::payload::PayloadRule {
        let kind = match self.format {
            Format::Json => crate::payload::PayloadKind::Json,
            Format::Form => crate::payload::PayloadKind::Form,
            Format::Auto => crate::payload::PayloadKind::Auto,
            Format::Multipart => crate::payload::PayloadKind::Multipart,
        };
        crate::payload::PayloadRule { kind, form_json: self.form_json.clone() }
    }

    /// The part of a multipart body that is read, where bodies come so.
    pub(super) fn part(&self) -> Option<&str> {
        self.form_json.as_deref().filter(|_| self.format == Format::Multipart)
    }

    /// Whether `id` may tell the events of one request apart. What stands outside a batch's elements is one text for all
    /// of them, and all but the first would be taken for redeliveries and dropped.
    pub(super) fn suits_id(&self, id: &Template) -> Result<(), String> {
        let Some(batch) = &self.batch else { return Ok(()) };
        if id.looks_into_body() {
            return Ok(());
        }
        let list = if batch.is_empty() { String::new() } else { format!("{}.", batch.join(".")) };
        Err(format!(
            "with `batch`, `id` must stand in each element: this one is the same for the whole request, so all events \
             of a request but the first would be duplicates. Write for example `body:id` for `{list}0.id`, or leave `id` \
             out: where the body is signed, each event is then known by its own text"
        ))
    }
}

impl Preset {
    /// This preset with a source's own settings, given as `(key, value)`. Every fault is told, with what to do.
    pub fn with_settings(&self, settings: &[(&str, &str)]) -> Result<Self, Vec<String>> {
        let mut preset = self.clone();
        let mut faults = Vec::new();
        for (key, value) in settings {
            if let Err(fault) = preset.set(key, value) {
                faults.push(fault);
            }
        }
        if faults.is_empty() { Ok(preset) } else { Err(faults) }
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let setting = SETTINGS.iter().find(|(word, s)| *word == key && self.settable.contains(s)).map(|(_, s)| *s);
        let Some(setting) = setting else {
            let own: Vec<&str> = SETTINGS.iter().filter(|(_, s)| self.settable.contains(s)).map(|(w, _)| *w).collect();
            let hint =
                if own.is_empty() { "nothing can be set on it".into() } else { format!("use {}", own.join(", ")) };
            return Err(format!("`{key}` cannot be set on provider `{}`: {hint}", self.id));
        };
        let header = || Place::parse(&format!("header:{value}"));
        match (setting, &mut self.scheme) {
            (Setting::IdHeader, _) => {
                let id = Template::at(header()?);
                self.payload.suits_id(&id)?;
                self.event.id.insert(0, id);
            }
            (Setting::TypeHeader, _) => self.event.event_type.insert(0, Template::at(header()?)),
            (Setting::Header, Scheme::Signed(signed)) => signed.places = vec![header()?],
            (Setting::Header, Scheme::Jwt(rule)) => rule.place = header()?,
            (Setting::Header, Scheme::Token { place, .. }) => *place = header()?,
            (Setting::Prefix, Scheme::Signed(signed)) => value.clone_into(&mut signed.prefix),
            (Setting::Prefix, Scheme::Jwt(rule)) => value.clone_into(&mut rule.prefix),
            (Setting::Prefix, Scheme::Token { prefix, .. }) => value.clone_into(prefix),
            (Setting::Encoding, Scheme::Signed(signed)) => signed.encoding = one_of(key, value, &ENCODINGS)?,
            (Setting::Hash, Scheme::Signed(signed)) => {
                let hash = one_of(key, value, &HASHES)?;
                signed.algorithm = match signed.algorithm {
                    Algorithm::Hmac(_) => Algorithm::Hmac(hash),
                    Algorithm::Digest(_) => Algorithm::Digest(hash),
                    Algorithm::Public(_) => {
                        return Err("a signature with a public key has its own hash: leave `hash` out".to_owned());
                    }
                };
            }
            (_, scheme) => {
                return Err(format!("`{key}` means nothing to the scheme `{}`: leave it out", scheme.name()));
            }
        }
        Ok(())
    }

    /// Where the scheme's own signature or credential stands; several where there may be several.
    pub fn credentials(&self) -> Vec<Place> {
        match &self.scheme {
            Scheme::Signed(signed) => signed.places.clone(),
            Scheme::Jwt(rule) => vec![rule.place.clone()],
            Scheme::Token { place, .. } => vec![place.clone()],
            Scheme::Basic => vec![Place::Header(http::header::AUTHORIZATION)],
            Scheme::Sns => vec![Place::Body(vec!["Signature".to_owned()])],
            Scheme::ClientCert(rule) => rule.headers().into_iter().map(Place::Header).collect(),
            Scheme::None => Vec::new(),
        }
    }

    /// Whether the sender's token is a part of the path: then the path is a secret from there on.
    pub fn has_token_in_path(&self) -> bool {
        matches!(self.scheme, Scheme::Token { place: Place::Path, .. })
    }

    /// The paths into the JSON body that labels, handshakes and the taking out of secrets look at, so that a caller need
    /// parse only those. With a batch, the labels' paths start at one event of it. A step made of digits may be a place
    /// in a list.
    pub fn body_paths(&self) -> Vec<Vec<String>> {
        let mut paths: Vec<Vec<String>> = Vec::new();
        let mut add = |path: &[String]| {
            if !paths.iter().any(|p| p == path) {
                paths.push(path.to_vec());
            }
        };
        self.event.templates().flat_map(Template::body_paths).for_each(&mut add);
        for handshake in &self.handshakes {
            handshake.when.iter().filter_map(|(place, _)| place.body_path()).for_each(&mut add);
            handshake.templates().flat_map(Template::body_paths).for_each(&mut add);
        }
        for place in self.secret_places() {
            match &place {
                Place::Body(path) => add(path),
                Place::Form(name) => add(std::slice::from_ref(name)),
                Place::Header(_) | Place::Query(_) | Place::Path => {}
            }
        }
        paths
    }
}

impl EventRules {
    /// Every selector of every label.
    pub fn templates(&self) -> impl Iterator<Item = &Template> {
        [&self.id, &self.event_type, &self.subject, &self.actor, &self.time].into_iter().flatten()
    }
}

fn one_of<T: Copy>(key: &str, value: &str, words: &[(&str, T)]) -> Result<T, String> {
    words.iter().find(|(word, _)| *word == value).map(|(_, v)| *v).ok_or_else(|| {
        let all: Vec<&str> = words.iter().map(|(w, _)| *w).collect();
        format!("`{key}` cannot be `{value}`: use one of {}", all.join(", "))
    })
}
