//! Texts with places in them. The same small language says what a sender signs (`v0:{ts}:{body}`), how a subject is put
//! together (`{body:repository.full_name}#{body:number}`) and what a handshake is answered (`{body:challenge}`).
//!
//! A `{` before a lower-case letter opens a placeholder that must be known; any other brace stands for itself, so that
//! JSON can be written plainly.

use serde_json::Value;

use http::{HeaderName, header};

use super::encoding::Encoding;
use super::select::{NotExact, Place};
use super::{Request, canonical};

/// One piece of a template.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Piece {
    /// Text that stands for itself.
    Literal(String),
    /// `{body}`: the raw body.
    Body,
    /// `{ts}`: the timestamp as it came.
    Timestamp,
    /// `{method}`, in capitals.
    Method,
    /// `{url}`: the public URL as the sender knows it, query included.
    Url,
    /// `{url_with_port}`: the same, with the port that `https` or `http` implies if it has none.
    UrlWithPort,
    /// `{url_without_port}`: the same, without a port.
    UrlWithoutPort,
    /// `{plivo_url}`: the URL with its query and the form's fields sorted, as Plivo signs them.
    PlivoUrl,
    /// `{payload}`: the raw body, or of a form the JSON in its field `payload`.
    Payload,
    /// The CRC-32 of the body in decimal. Not a hash: whoever has one body makes another with the same.
    BodyCrc32,
    /// `{escaped_body}`: the raw body with `/` and what is not ASCII escaped as JSON allows (Box).
    EscapedBody,
    /// `{sorted_form}`: names and values of the form's fields, sorted by name.
    SortedForm,
    /// `{php_form:x}`: the form's fields but x, sorted by name, as PHP's `serialize` writes them.
    PhpForm(String),
    /// `{json_body}`: the raw body as a JSON string.
    JsonBody,
    /// `{item:x:y}`: what stands behind `y` in header x, a list with commas.
    Item(HeaderName, String),
    /// `{canonical:x}`: method, path, the headers that header `x` lists, and the body, line by line.
    Canonical(HeaderName),
    /// `{path}`: the path, without the query.
    Path,
    /// `{secret}`: the secret itself, for senders that hash instead of signing.
    Secret,
    /// `{header:x}` and its kin.
    At(Place),
    /// `{body:x?}` and its kin: nothing where the place holds nothing.
    Optional(Place),
    /// `{lower:query:x}` and its kin: in lower case.
    Lower(Place),
    /// `{mac:hex:body:x}`: our own HMAC, with the source's newest secret, of a value. In the answer to a handshake only.
    Mac(Encoding, Place),
    /// `{key_name}`: what the sender calls the secret. In the answer to a handshake only.
    KeyName,
}

/// A text with places in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Template {
    pieces: Vec<Piece>,
}

/// What the pieces of a signed text are taken from.
pub(super) struct Material<'m> {
    pub(super) request: &'m Request<'m>,
    /// The parsed body, if the preset looks into it.
    pub(super) body: Option<&'m Value>,
    /// The timestamp as it came.
    pub(super) timestamp: &'m [u8],
    /// Where the timestamp stands, if at a place of its own.
    pub(super) timestamp_at: Option<&'m Place>,
    pub(super) secret: &'m [u8],
    /// Whether the body has been bound by a digest, so that its fields are not part of the text.
    pub(super) is_digested: IsDigested,
}

/// Whether a digest in a signed place has been found to be the body's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum IsDigested {
    Yes,
    No,
}

/// Why a signed text could not be put together.
#[derive(Debug)]
pub(super) enum Unsignable {
    Missing(Place),
    Repeated(Place),
    NoUrl,
}

impl Template {
    /// Reads the text form.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            let (before, from) = rest.split_at(open);
            literal.push_str(before);
            if !from[1..].starts_with(|c: char| c.is_ascii_lowercase()) {
                literal.push('{');
                rest = &from[1..];
                continue;
            }
            let close = from.find('}').ok_or_else(|| format!("`{from}` opens a placeholder and never closes it"))?;
            if !literal.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut literal)));
            }
            pieces.push(Piece::parse(&from[1..close])?);
            rest = &from[close + 1..];
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        if pieces.is_empty() {
            return Err("an empty template signs nothing: write for example \"{body}\"".to_owned());
        }
        Ok(Self { pieces })
    }

    /// A template that is one place and nothing else.
    pub fn at(place: Place) -> Self {
        Self { pieces: vec![Piece::At(place)] }
    }

    /// The pieces in their order.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Whether a change of the value at `place` changes this text.
    pub fn covers(&self, place: &Place) -> bool {
        self.pieces.iter().any(|piece| match (piece, place) {
            (
                Piece::Body
                | Piece::JsonBody
                | Piece::EscapedBody
                | Piece::Canonical(_)
                | Piece::SortedForm
                | Piece::PhpForm(_),
                Place::Body(_) | Place::Form(_),
            ) => true,
            (Piece::Payload, Place::Body(_)) => true,
            (Piece::PlivoUrl, Place::Form(_)) => true,
            (
                Piece::Url | Piece::UrlWithPort | Piece::UrlWithoutPort | Piece::PlivoUrl | Piece::Canonical(_),
                Place::Query(_),
            ) => true,
            (Piece::At(signed) | Piece::Optional(signed) | Piece::Lower(signed), asked) => signed == asked,
            _ => false,
        })
    }

    /// Whether a change of the body changes this text, wherever in what an agent gets of it.
    pub(super) fn covers_body(&self) -> bool {
        use Piece::{Body, Canonical, EscapedBody, JsonBody, Payload, PhpForm, PlivoUrl, SortedForm};
        let is_whole = |p: &Piece| {
            matches!(p, Body | JsonBody | EscapedBody | Payload | SortedForm | PlivoUrl | PhpForm(_) | Canonical(_))
        };
        self.pieces.iter().any(is_whole)
    }

    /// Whether the piece occurs.
    pub fn has(&self, piece: &Piece) -> bool {
        self.pieces.contains(piece)
    }

    /// Whether the JSON body has to be parsed to put this text together.
    pub(super) fn looks_into_body(&self) -> bool {
        self.places().any(|place| matches!(place, Place::Body(_)))
    }

    /// Hands the text to `sink` piece by piece; the body is never copied.
    pub(super) fn feed(&self, from: &Material<'_>, mut sink: impl FnMut(&[u8])) -> Result<(), Unsignable> {
        let url = || from.request.url.ok_or(Unsignable::NoUrl);
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => sink(text.as_bytes()),
                Piece::Body => sink(from.request.body),
                Piece::Payload => feed_payload(from.request, &mut sink)?,
                Piece::EscapedBody => canonical::escaped(from.request.body, &mut sink),
                Piece::SortedForm if from.is_digested == IsDigested::Yes => {}
                Piece::SortedForm => canonical::sorted_form(from.request.body, &mut sink),
                Piece::PhpForm(without) => sink(&canonical::php_form(from.request.body, without)?),
                Piece::JsonBody => sink(&canonical::json_text(from.request.body)),
                Piece::Item(list, start) => sink(canonical::item(from.request, list, start)?),
                Piece::Canonical(list) => canonical::request(from.request, list, from.timestamp_at, &mut sink)?,
                Piece::BodyCrc32 => sink(canonical::crc32(from.request.body).to_string().as_bytes()),
                Piece::Timestamp => sink(from.timestamp),
                Piece::Method => sink(from.request.method.as_str().as_bytes()),
                Piece::Url => sink(url()?.as_bytes()),
                Piece::UrlWithPort => sink(canonical::with_port(url()?).as_bytes()),
                Piece::UrlWithoutPort => sink(canonical::without_port(url()?).as_bytes()),
                Piece::PlivoUrl => sink(canonical::plivo_url(url()?, from.request.body).as_bytes()),
                Piece::Path => sink(from.request.path.as_bytes()),
                Piece::Secret => sink(from.secret),
                Piece::At(place) => sink(&one(place, from)?),
                Piece::Lower(place) => sink(&one(place, from)?.to_ascii_lowercase()),
                Piece::Optional(place) => match one(place, from) {
                    Ok(bytes) => sink(&bytes),
                    Err(Unsignable::Missing(_)) => {}
                    Err(other) => return Err(other),
                },
                // Not in a signed text: the parser refuses them there.
                Piece::Mac(..) | Piece::KeyName => {}
            }
        }
        Ok(())
    }

    /// The text for labels and answers: none unless every place yields something. `write` says how a value is written.
    pub(super) fn text(
        &self,
        request: &Request<'_>,
        view: &Value,
        write: impl Fn(&str, &mut String),
    ) -> Option<String> {
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Literal(literal) => text.push_str(literal),
                Piece::At(place) => write(&place.text(request, view)?, &mut text),
                Piece::Optional(place) => write(&place.text(request, view).unwrap_or_default(), &mut text),
                Piece::Lower(place) => write(&place.text(request, view)?.to_ascii_lowercase(), &mut text),
                Piece::Method => write(request.method.as_str(), &mut text),
                Piece::Path => write(request.path, &mut text),
                _ => return None,
            }
        }
        Some(text)
    }

    /// The first piece that only a signed text may hold, if there is one.
    pub(super) fn only_for_signing(&self) -> Option<&'static str> {
        self.pieces.iter().find_map(|piece| match piece {
            Piece::Body => Some("{body}"),
            Piece::Payload => Some("{payload}"),
            Piece::BodyCrc32 => Some("{body_crc32}"),
            Piece::EscapedBody => Some("{escaped_body}"),
            Piece::SortedForm => Some("{sorted_form}"),
            Piece::PhpForm(_) => Some("{php_form:…}"),
            Piece::JsonBody => Some("{json_body}"),
            Piece::Item(..) => Some("{item:…}"),
            Piece::Canonical(_) => Some("{canonical:…}"),
            Piece::Timestamp => Some("{ts}"),
            Piece::Url | Piece::UrlWithPort | Piece::UrlWithoutPort | Piece::PlivoUrl => Some("{url}"),
            Piece::Secret => Some("{secret}"),
            _ => None,
        })
    }

    /// The first piece that only the answer to a handshake may hold, if there is one.
    pub(super) fn only_for_answers(&self) -> Option<&'static str> {
        self.pieces.iter().find_map(|piece| match piece {
            Piece::Mac(..) => Some("{mac:…}"),
            Piece::KeyName => Some("{key_name}"),
            _ => None,
        })
    }

    /// The form's field that is signed, if one is: its JSON is then the body that counts.
    pub(super) fn signed_field(&self) -> Option<&Place> {
        self.places().find(|place| matches!(place, Place::Form(_)))
    }

    /// The places that this text is made from.
    pub(super) fn places(&self) -> impl Iterator<Item = &Place> {
        self.pieces.iter().filter_map(|p| match p {
            Piece::At(place) | Piece::Optional(place) | Piece::Lower(place) | Piece::Mac(_, place) => Some(place),
            _ => None,
        })
    }

    /// The paths into the body that this text needs.
    pub(super) fn body_paths(&self) -> impl Iterator<Item = &[String]> {
        self.places().filter_map(Place::body_path)
    }
}

fn one<'m>(place: &Place, from: &Material<'m>) -> Result<std::borrow::Cow<'m, [u8]>, Unsignable> {
    place.exact(from.request, from.body).map_err(|e| match e {
        NotExact::Missing => Unsignable::Missing(place.clone()),
        NotExact::Repeated => Unsignable::Repeated(place.clone()),
    })
}

/// Gitea signs the JSON; sent as a form it stands in the field `payload`, and the raw body is not what was signed.
pub(super) fn feed_payload(request: &Request<'_>, mut sink: impl FnMut(&[u8])) -> Result<(), Unsignable> {
    let media = request.headers.get(header::CONTENT_TYPE).map_or(&[][..], |v| v.as_bytes());
    let is_form = media.len() >= FORM.len() && media[..FORM.len()].eq_ignore_ascii_case(FORM);
    if !is_form {
        sink(request.body);
        return Ok(());
    }
    let field = Place::Form("payload".to_owned());
    match field.exact(request, None) {
        Ok(json) => sink(&json),
        Err(NotExact::Missing) => return Err(Unsignable::Missing(field)),
        Err(NotExact::Repeated) => return Err(Unsignable::Repeated(field)),
    }
    Ok(())
}

const FORM: &[u8] = b"application/x-www-form-urlencoded";

impl Piece {
    fn parse(inside: &str) -> Result<Self, String> {
        Ok(match inside {
            "body" => Self::Body,
            "payload" => Self::Payload,
            "body_crc32" => Self::BodyCrc32,
            "escaped_body" => Self::EscapedBody,
            "sorted_form" => Self::SortedForm,
            "json_body" => Self::JsonBody,
            "ts" => Self::Timestamp,
            "method" => Self::Method,
            "url" => Self::Url,
            "url_with_port" => Self::UrlWithPort,
            "url_without_port" => Self::UrlWithoutPort,
            "plivo_url" => Self::PlivoUrl,
            "path" => Self::Path,
            "secret" => Self::Secret,
            "key_name" => Self::KeyName,
            _ => return Self::parse_place(inside),
        })
    }

    fn parse_place(inside: &str) -> Result<Self, String> {
        if let Some(name) = inside.strip_prefix("canonical:") {
            let header = HeaderName::from_bytes(name.as_bytes());
            return header.map(Self::Canonical).map_err(|_| format!("`{name}` cannot be the name of a header"));
        }
        if let Some(field) = inside.strip_prefix("php_form:") {
            return Ok(Self::PhpForm(field.to_owned()));
        }
        if let Some((name, start)) = inside.strip_prefix("item:").and_then(|rest| rest.split_once(':')) {
            let header = HeaderName::from_bytes(name.as_bytes());
            let wrong = |_| format!("`{name}` cannot be the name of a header");
            return header.map(|header| Self::Item(header, start.to_owned())).map_err(wrong);
        }
        if let Some((encoding, place)) = inside.strip_prefix("mac:").and_then(|rest| rest.split_once(':')) {
            let encoding = match encoding {
                "hex" => Encoding::Hex,
                "base64" => Encoding::Base64,
                other => return Err(format!("`mac:{other}` is not known: use mac:hex:… or mac:base64:…")),
            };
            return Ok(Self::Mac(encoding, Place::parse(place)?));
        }
        if let Some(place) = inside.strip_prefix("lower:") {
            return Ok(Self::Lower(Place::parse(place)?));
        }
        if !inside.contains(':') {
            let known = "body, payload, json_body, body_crc32, escaped_body, sorted_form, php_form:…, item:…, ts, method, url, url_with_port, url_without_port, plivo_url, path, \
                secret, header:…, query:…, form:…, body:…, lower:…, canonical:…";
            return Err(format!("`{{{inside}}}` is not a placeholder: use one of {known}"));
        }
        match inside.strip_suffix('?') {
            Some(place) => Ok(Self::Optional(Place::parse(place)?)),
            None => Ok(Self::At(Place::parse(inside)?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_brace_before_a_letter_opens_a_placeholder_and_any_other_stands_for_itself() {
        let t = Template::parse(r#"{"challenge":{body:challenge}}"#).unwrap();
        assert_eq!(t.pieces().len(), 3);
        assert_eq!(t.pieces()[0], Piece::Literal(r#"{"challenge":"#.into()));
        assert_eq!(t.pieces()[2], Piece::Literal("}".into()));
        assert!(Template::parse("{bdoy}").unwrap_err().contains("not a placeholder"));
        assert!(Template::parse("{body").unwrap_err().contains("never closes"));
        assert!(Template::parse("").is_err());
    }

    #[test]
    fn the_raw_body_covers_its_fields_and_no_header() {
        let t = Template::parse("{header:webhook-id}.{body}").unwrap();
        assert!(t.covers(&Place::parse("body:id").unwrap()));
        assert!(t.covers(&Place::parse("header:Webhook-Id").unwrap()));
        assert!(!t.covers(&Place::parse("header:x-github-delivery").unwrap()));
        assert!(!t.covers(&Place::parse("query:id").unwrap()));
    }
}
