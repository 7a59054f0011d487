//! What a sender writes into its own body: its signature, its time, its passcode. Called by `sign`.

use bytes::Bytes;
use serde_json::Value;

use super::preset::Preset;
use super::scheme::{Scheme, TimestampPlace};
use super::select::{Place, walk};
use super::sign::SignError;

/// A body while its sender writes into it. One that nothing is written into stays as it is, byte for byte.
pub(super) struct OwnBody<'p> {
    raw: Bytes,
    json: Option<Value>,
    /// The list whose elements carry the proof.
    each: Option<&'p [String]>,
}

impl<'p> OwnBody<'p> {
    pub(super) fn new(preset: &'p Preset, raw: &Bytes) -> Self {
        Self { raw: raw.clone(), json: serde_json::from_slice(raw).ok(), each: preset.each.as_deref() }
    }

    /// How many parts carry a proof: the elements of the list, or the one body.
    pub(super) fn elements(&self) -> Result<usize, SignError> {
        let Some(path) = self.each else { return Ok(1) };
        let list = self.json.as_ref().and_then(|body| walk(body, path)).and_then(Value::as_array);
        match list.map(Vec::len) {
            Some(count) if count > 0 => Ok(count),
            _ => Err(SignError::NoPlace(format!("each element of the list `{}`", path.join(".")))),
        }
    }

    /// The part at this place, for the text that is signed.
    pub(super) fn element(&self, at: usize) -> Option<&Value> {
        let body = self.json.as_ref()?;
        match self.each {
            None => Some(body),
            Some(path) => walk(body, path)?.get(at),
        }
    }

    /// The text at a path, if there is one.
    pub(super) fn text(&self, path: &[String]) -> Option<String> {
        match walk(self.json.as_ref()?, path)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// Writes `text` to `place` in the part `at`. Digits are a number where a number stands, or nothing does and the
    /// text is one.
    pub(super) fn put(&mut self, at: usize, place: &Place, text: &str) -> Result<(), SignError> {
        let no_place = || SignError::NoPlace(place.to_string());
        match place {
            Place::Form(name) => {
                let mut form: String = std::str::from_utf8(&self.raw).map_err(|_| no_place())?.to_owned();
                let kept: Vec<(String, String)> =
                    form_urlencoded::parse(form.as_bytes()).into_owned().filter(|(n, _)| n != name).collect();
                if form_urlencoded::parse(form.as_bytes()).count() != kept.len() {
                    form = form_urlencoded::Serializer::new(String::new()).extend_pairs(kept).finish();
                }
                self.raw = form_urlencoded::Serializer::new(form).append_pair(name, text).finish().into();
                Ok(())
            }
            Place::Body(path) => {
                let body = self.json.as_mut().ok_or_else(no_place)?;
                let part = match self.each {
                    None => Some(body),
                    Some(list) => step_mut(body, list).and_then(|list| list.get_mut(at)),
                };
                let (last, way) = path.split_last().ok_or_else(no_place)?;
                let mut here = part.ok_or_else(no_place)?;
                for step in way {
                    let members = here.as_object_mut().ok_or_else(no_place)?;
                    here = members.entry(step.clone()).or_insert_with(|| Value::Object(serde_json::Map::new()));
                }
                let members = here.as_object_mut().ok_or_else(no_place)?;
                let is_text = members.get(last).is_some_and(Value::is_string);
                let number = if is_text { None } else { text.parse::<u64>().ok() };
                members.insert(last.clone(), number.map_or_else(|| Value::from(text), Value::from));
                self.raw = Bytes::from(self.json.as_ref().map(ToString::to_string).unwrap_or_default());
                Ok(())
            }
            Place::Header(_) | Place::Query(_) | Place::Path => Err(no_place()),
        }
    }

    /// The body as it stands now.
    pub(super) fn written(&self) -> Bytes {
        self.raw.clone()
    }

    pub(super) fn finish(self) -> Bytes {
        self.raw
    }
}

fn step_mut<'v>(value: &'v mut Value, path: &[String]) -> Option<&'v mut Value> {
    path.iter().try_fold(value, |here, step| here.get_mut(step))
}

impl Preset {
    /// Whether its sender writes into the body after it was made, so that it is not sent as it was given: a signature, a
    /// passcode, the time of signing.
    pub fn writes_into_body(&self) -> bool {
        let in_body = |place: &Place| matches!(place, Place::Body(_) | Place::Form(_));
        let time = self.scheme.signed().and_then(|s| s.timestamp.as_ref()).map(|t| &t.place);
        let is_time_in_body = matches!(time, Some(TimestampPlace::At(place)) if in_body(place));
        let is_ours = !matches!(self.scheme, Scheme::Sns);
        is_ours && (is_time_in_body || self.credentials().iter().any(in_body))
    }
}
