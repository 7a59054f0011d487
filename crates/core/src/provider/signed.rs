//! Texts with places in them. The same small language says what a sender signs (`v0:{ts}:{body}`), how a subject is put
//! together (`{body:repository.full_name}#{body:number}`) and what a handshake is answered (`{body:challenge}`).
//!
//! A `{` before a lower-case letter opens a placeholder that must be known; any other brace stands for itself, so that
//! JSON can be written plainly.

use serde_json::Value;

use super::Request;
use super::select::{NotExact, Place};

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
    /// `{path}`: the path, without the query.
    Path,
    /// `{secret}`: the secret itself, for senders that hash instead of signing.
    Secret,
    /// `{header:x}` and its kin.
    At(Place),
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
    pub(super) secret: &'m [u8],
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
            (Piece::Body, Place::Body(_) | Place::Form(_)) => true,
            (Piece::Url, Place::Query(_)) => true,
            (Piece::At(Place::Body(signed)), Place::Body(asked)) => signed == asked,
            (Piece::At(signed), asked) => signed == asked,
            _ => false,
        })
    }

    /// Whether the piece occurs.
    pub fn has(&self, piece: &Piece) -> bool {
        self.pieces.contains(piece)
    }

    /// Whether the JSON body has to be parsed to put this text together.
    pub(super) fn looks_into_body(&self) -> bool {
        self.pieces.iter().any(|p| matches!(p, Piece::At(Place::Body(_))))
    }

    /// Hands the text to `sink` piece by piece; the body is never copied.
    pub(super) fn feed(&self, from: &Material<'_>, mut sink: impl FnMut(&[u8])) -> Result<(), Unsignable> {
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => sink(text.as_bytes()),
                Piece::Body => sink(from.request.body),
                Piece::Timestamp => sink(from.timestamp),
                Piece::Method => sink(from.request.method.as_str().as_bytes()),
                Piece::Url => sink(from.request.url.ok_or(Unsignable::NoUrl)?.as_bytes()),
                Piece::Path => sink(from.request.path.as_bytes()),
                Piece::Secret => sink(from.secret),
                Piece::At(place) => match place.exact(from.request, from.body) {
                    Ok(bytes) => sink(&bytes),
                    Err(NotExact::Missing) => return Err(Unsignable::Missing(place.clone())),
                    Err(NotExact::Repeated) => return Err(Unsignable::Repeated(place.clone())),
                },
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
                Piece::Method => write(request.method.as_str(), &mut text),
                Piece::Path => write(request.path, &mut text),
                Piece::Body | Piece::Timestamp | Piece::Url | Piece::Secret => return None,
            }
        }
        Some(text)
    }

    /// The first piece that only a signed text may hold, if there is one.
    pub(super) fn only_for_signing(&self) -> Option<&'static str> {
        self.pieces.iter().find_map(|piece| match piece {
            Piece::Body => Some("{body}"),
            Piece::Timestamp => Some("{ts}"),
            Piece::Url => Some("{url}"),
            Piece::Secret => Some("{secret}"),
            _ => None,
        })
    }

    /// The paths into the body that this text needs.
    pub(super) fn body_paths(&self) -> impl Iterator<Item = &[String]> {
        self.pieces.iter().filter_map(|p| match p {
            Piece::At(place) => place.body_path(),
            _ => None,
        })
    }
}

impl Piece {
    fn parse(inside: &str) -> Result<Self, String> {
        Ok(match inside {
            "body" => Self::Body,
            "ts" => Self::Timestamp,
            "method" => Self::Method,
            "url" => Self::Url,
            "path" => Self::Path,
            "secret" => Self::Secret,
            place if place.contains(':') => Self::At(Place::parse(place)?),
            other => {
                let known = "body, ts, method, url, path, secret, header:…, query:…, form:…, body:…";
                return Err(format!("`{{{other}}}` is not a placeholder: use one of {known}"));
            }
        })
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
