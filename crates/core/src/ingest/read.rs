//! From a verified request to its events, each with its labels: bodies by the preset's rule, batches taken apart,
//! `CloudEvents` by their own. Called by the door after the check of the sender.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::Value;

use super::cloudevents::{self, Event, Wrong};
use super::{Early, No, Ring};
use crate::decision::Check;
use crate::payload::{Body, Format, PayloadKind, PayloadRule, Unreadable};
use crate::provider::{CloudEvents, Confidence, Labels, Piece, Place, Request, Template, Verifier, is_readable};
use crate::source::{DedupRule, Source, Webhook};

/// A request that was read.
pub(super) enum Whole {
    /// A body by the preset's rule, and what was asked of it.
    Plain(Body, Value),
    /// Events that say themselves what they are; whether they came as a batch.
    Events(Vec<Event>, cloudevents::Form),
}

/// One event on its way to the triggers.
pub(super) struct Letter {
    pub labels: Labels,
    /// The headers to keep with it.
    pub headers: Vec<(String, String)>,
    /// The body as it is kept.
    pub body: Body,
    pub view: Value,
    /// What its digest is taken of: its bytes as the sender sent them, in the spelling that the signature knows, and what
    /// [`beside`] adds.
    pub as_sent: Bytes,
    /// The same of the whole request, where this event is to be found by that instead.
    pub whole: Option<Bytes>,
}

/// Reads the request whole, so that one that cannot be read makes no event at all.
pub(super) fn whole(
    source: &Source,
    webhook: &Webhook,
    ring: Ring<'_>,
    checks: &mut Vec<Check>,
) -> Result<Whole, Box<Early>> {
    let content_type =
        ring.request.headers.get(http::header::CONTENT_TYPE).map(|v| String::from_utf8_lossy(v.as_bytes()));
    let outcome = match events(webhook, ring) {
        Ok(Some(events)) => Ok(events),
        Ok(None) => plain_body(webhook, ring.request.body, content_type.as_deref())
            .and_then(|body| body.project(&source.paths).map(|view| Whole::Plain(body, view)))
            .map_err(Wrong::Unreadable),
        Err(wrong) => Err(wrong),
    };
    outcome.map_err(|wrong| {
        let seen = content_type.map_or_else(|| "no content type".to_owned(), Cow::into_owned);
        let (no, code, wanted, why) = match wrong {
            Wrong::Unreadable(unreadable) => {
                let (no, code) = no_of(&unreadable);
                (no, code, "a body that can be read", unreadable.to_string())
            }
            Wrong::Format(media) => {
                let why = format!("CloudEvents as `{media}` are not read: send JSON, or the binary form");
                (No::MediaType, "unsupported_media_type", "a CloudEvent that can be read", why)
            }
            Wrong::Invalid(why) => {
                (No::Unreadable, "invalid_cloudevent", "a CloudEvent 1.0", format!("not a valid CloudEvent: {why}"))
            }
        };
        checks.push(Check::failed("body", wanted, format!("{why} ({seen:.100})")));
        Early::verified(no, code, why)
    })
}

/// A body that is no `CloudEvent`. The type is not signed: a sender whose events are named by what stands in their JSON
/// is not to be taken for one whose events have no names, because somebody wrote `text/plain` above them.
fn plain_body(webhook: &Webhook, raw: &Bytes, content_type: Option<&str>) -> Result<Body, Unreadable> {
    let body = Body::read(raw.clone(), content_type, &webhook.payload)?;
    let preset = &webhook.preset;
    let is_piece = matches!(body.format(), Format::Text | Format::Binary);
    // A general method says nothing of anybody's bodies; there the content type is all there is.
    let speaks_json = || preset.confidence != Confidence::Own && !preset.body_paths().is_empty();
    if !is_piece || webhook.payload.kind != PayloadKind::Auto || !speaks_json() {
        return Ok(body);
    }
    let by_its_look = Body::read(raw.clone(), None, &webhook.payload)?;
    Ok(if by_its_look.format() == Format::Json { by_its_look } else { body })
}

fn events(webhook: &Webhook, ring: Ring<'_>) -> Result<Option<Whole>, Wrong> {
    let taken = webhook.preset.payload.cloudevents;
    if taken == CloudEvents::No {
        return Ok(None);
    }
    let headers = ring.request.headers;
    match (cloudevents::form(headers)?, taken) {
        (Some(form), _) => {
            let events = cloudevents::read(form, headers, ring.request.body, &webhook.payload)?;
            Ok(Some(Whole::Events(events, form)))
        }
        (None, CloudEvents::Required) => {
            let why = "neither `ce-*` headers nor the type application/cloudevents+json or -batch+json is there";
            Err(Wrong::Invalid(why.to_owned()))
        }
        (None, _) => Ok(None),
    }
}

impl Whole {
    /// What was asked of the whole body, for handshakes; none for events that name themselves.
    pub(super) fn view(&self) -> Option<&Value> {
        match self {
            Self::Plain(_, view) => Some(view),
            Self::Events(..) => None,
        }
    }

    /// Whether the request may hold several events.
    pub(super) fn is_batch(&self, webhook: &Webhook) -> bool {
        match self {
            Self::Plain(..) => webhook.preset.payload.batch.is_some(),
            Self::Events(_, form) => *form == cloudevents::Form::Batch,
        }
    }

    /// The events, in their order.
    pub(super) fn letters(
        self,
        source: &Source,
        (webhook, verifier): (&Webhook, &Verifier),
        ring: Ring<'_>,
    ) -> Result<Vec<Letter>, Box<Early>> {
        let mut kept = webhook.kept_headers.of(ring.request.headers);
        match self {
            Self::Plain(body, view) => {
                // A batch is signed as one, and told apart element by element.
                let is_one = webhook.preset.payload.batch.is_none();
                let content = is_one.then(|| {
                    let content = verifier.signed_content(&ring.request).map(Bytes::from);
                    beside(source, (webhook, verifier), &ring.request, content.unwrap_or_else(|| body.raw().clone()))
                });
                let mut plain = |Part { own, view, beside }: Part| {
                    // Labels are the event's own: an id that stands beside the list would be one for all of them.
                    let labels = webhook.preset.labels(&ring.request, &view);
                    let as_sent = content.clone().unwrap_or_else(|| own.raw().clone());
                    let (body, view) = beside.unwrap_or((own, view));
                    let body = without_secrets(webhook, body)?;
                    // Every element of a batch has them; the one event of a request takes them.
                    let headers = if is_one { std::mem::take(&mut kept) } else { kept.clone() };
                    Ok(Letter { labels, headers, body, view, as_sent, whole: None })
                };
                split(source, webhook, body, view)?.into_iter().map(&mut plain).collect()
            }
            Self::Events(events, form) => {
                let is_one = form != cloudevents::Form::Batch;
                // The type is not signed: the same list as a plain body is one event, whose digest is the whole's. So the
                // first of the batch is found by that. Its own digest is not missed: no element is signed by itself.
                let of_whole = || {
                    let content = verifier.signed_content(&ring.request).map(Bytes::from);
                    let content = content.unwrap_or_else(|| ring.request.body.clone());
                    beside(source, (webhook, verifier), &ring.request, content)
                };
                let named = |(at, event): (usize, Event)| {
                    let view = event.body.project(&source.paths).map_err(|e| unreadable(&e))?;
                    let Event { labels, headers: own, body, as_sent } = event;
                    let as_sent =
                        if is_one { beside(source, (webhook, verifier), &ring.request, as_sent) } else { as_sent };
                    // The content type of the request is not that of the data.
                    let others = kept.iter().filter(|(name, _)| name != "content-type" && !name.starts_with("ce-"));
                    let headers = own.into_iter().chain(others.cloned()).collect();
                    let whole = (!is_one && at == 0).then(of_whole);
                    Ok(Letter { labels, headers, body, view, as_sent, whole })
                };
                events.into_iter().enumerate().map(named).collect()
            }
        }
    }
}

fn no_of(unreadable: &Unreadable) -> (No, &'static str) {
    match unreadable.http_status() {
        415 => (No::MediaType, "unsupported_media_type"),
        413 => (No::TooLarge, "too_many_events"),
        _ => (No::Unreadable, "unreadable"),
    }
}

fn unreadable(error: &Unreadable) -> Box<Early> {
    let (no, code) = no_of(error);
    Early::verified(no, code, error.to_string())
}

/// The content of a request with the headers and parameters that the signature covers and that name the event: the id, or
/// under `dedup = "body"` the type. Equal bodies under two signed ids are two events; under two unsigned ones they may be
/// one that was captured. The same in every reading of the body, since nothing in it is looked at.
fn beside(source: &Source, (webhook, verifier): (&Webhook, &Verifier), request: &Request<'_>, content: Bytes) -> Bytes {
    let event = &webhook.preset.event;
    let names = if matches!(source.dedup, DedupRule::Body) { &event.event_type } else { &event.id };
    // A place of the signature itself is no such name: a right signature can be written in several ways.
    let Some(signed) = verifier.preset().scheme.signed() else { return content };
    let is_covered = |place: &Place| signed.templates.iter().all(|t| t.covers(place));
    let mut whole = Vec::new();
    for piece in names.iter().flat_map(Template::pieces) {
        let (Piece::At(place) | Piece::Optional(place) | Piece::Lower(place)) = piece else { continue };
        if matches!(place, Place::Body(_) | Place::Form(_)) || !is_covered(place) {
            continue;
        }
        let text = place.text(request, &Value::Null).unwrap_or_default();
        // What is signed in lower case may come in any.
        let is_lowered = signed.templates.iter().any(|t| t.has(&Piece::Lower(place.clone())));
        let text = if is_lowered { text.to_lowercase().into() } else { text };
        // What could not be read whole would look like another that could not.
        let came = if is_readable(&text) { text.as_bytes() } else { place.raw(request) };
        whole.extend_from_slice(&(came.len() as u64).to_le_bytes());
        whole.extend_from_slice(came);
    }
    if whole.is_empty() {
        return content;
    }
    whole.extend_from_slice(&content);
    whole.into()
}

/// One event of a body.
struct Part {
    /// As it was sent.
    own: Body,
    view: Value,
    /// With what stood beside the list of its batch, if anything did.
    beside: Option<(Body, Value)>,
}

fn split(source: &Source, webhook: &Webhook, body: Body, view: Value) -> Result<Vec<Part>, Box<Early>> {
    let Some(path) = &webhook.preset.payload.batch else { return Ok(vec![Part { own: body, view, beside: None }]) };
    parts(source, &body, path).map_err(|e| unreadable(&e))
}

fn parts(source: &Source, body: &Body, path: &[String]) -> Result<Vec<Part>, Unreadable> {
    let siblings = body.siblings(path)?;
    let part = |own: Body| {
        let view = own.project(&source.paths)?;
        let beside = own.beside(&siblings)?;
        let beside = beside.map(|body| body.project(&source.paths).map(|view| (body, view))).transpose()?;
        Ok(Part { own, view, beside })
    };
    body.split(path)?.into_iter().map(part).collect()
}

/// The body as it is kept. Where the preset knows of a secret in it (Slack's `token`), the body is kept as JSON without
/// it, so that no agent, log, API or replay can see it; its digest was taken of what was sent.
fn without_secrets(webhook: &Webhook, body: Body) -> Result<Body, Box<Early>> {
    if !webhook.secret_in_body {
        return Ok(body);
    }
    let mut value = body.value().map_err(|e| unreadable(&e))?;
    if !webhook.preset.strip_body(&mut value) {
        return Ok(body);
    }
    let json = Bytes::from(value.to_string());
    Body::read(json, Some("application/json"), &PayloadRule::default()).map_err(|e| unreadable(&e))
}
