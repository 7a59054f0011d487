//! Handshakes: requests by which a sender asks whether this address is ours, and what it wants to hear. Data in the
//! preset; called at the door after the check, before a request becomes an event.
//!
//! Only handshakes inside a verified request are known so far. Those that come before there is anything to verify (a
//! `GET` with a challenge) are a different promise, and would be a function of their own next to [`Preset::handshake`].

use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::Value;

use super::preset::Preset;
use super::select::Place;
use super::signed::Template;
use super::{Request, Verified};

/// The longest answer. Challenges are some dozen characters; more would make us a mirror for somebody's text.
const ANSWER_BYTES_MAX: usize = 4096;

/// One handshake of a preset.
#[derive(Clone, PartialEq, Debug)]
pub struct Handshake {
    /// All of these places must hold just this text.
    pub when: Vec<(Place, String)>,
    /// The answer's body; none is an empty one.
    pub answer: Option<Template>,
    /// The answer's media type. If it is JSON, values are written as JSON texts.
    pub content_type: HeaderValue,
    /// The answer's status.
    pub status: StatusCode,
}

/// What a handshake is answered.
#[derive(Clone, PartialEq, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// All headers, the media type among them.
    pub headers: HeaderMap,
    /// The body.
    pub body: String,
}

impl Preset {
    /// The answer, if this request is a handshake. `view` is the parsed body as in [`Preset::labels`]. Asks for the
    /// [`Verified`] so that nobody is answered before the check.
    pub fn handshake(&self, request: &Request<'_>, view: &Value, _checked: &Verified) -> Option<Answer> {
        self.handshakes.iter().find_map(|h| h.answer(request, view))
    }
}

impl Handshake {
    fn answer(&self, request: &Request<'_>, view: &Value) -> Option<Answer> {
        let meant = self.when.iter().all(|(place, wanted)| place.text(request, view).is_some_and(|t| t == *wanted));
        if !meant {
            return None;
        }
        let json = self.content_type.as_bytes().starts_with(b"application/json");
        let write = |value: &str, text: &mut String| match json {
            true => text.push_str(&Value::from(value).to_string()),
            false => text.push_str(value),
        };
        let body = match &self.answer {
            Some(template) => template.text(request, view, write)?,
            None => String::new(),
        };
        if body.len() > ANSWER_BYTES_MAX {
            return None;
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, self.content_type.clone());
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        Some(Answer { status: self.status, headers, body })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http::Method;
    use serde_json::json;

    const TEXT: &str = "id = \"x\"\nname = \"X\"\n[verify]\nscheme = \"none\"\n[[handshakes]]\n\
        when = { \"body:type\" = 1 }\nanswer = '{\"challenge\":{body:challenge}}'\ncontent_type = \"application/json\"\n";

    fn answer(view: &Value) -> Option<Answer> {
        let preset = Preset::parse(TEXT, "x.toml").unwrap();
        let (headers, body) = (HeaderMap::new(), Bytes::new());
        let request =
            Request { method: &Method::POST, url: None, path: "/", query: "", headers: &headers, body: &body };
        preset.handshake(&request, view, &Verified::unauthenticated())
    }

    #[test]
    fn a_value_in_a_json_answer_cannot_leave_its_quotes() {
        let body = answer(&json!({"type": 1, "challenge": "a\",\"x\":\"\u{0}"})).unwrap().body;
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), json!({"challenge": "a\",\"x\":\"\u{0}"}));
    }

    #[test]
    fn what_is_no_handshake_or_too_long_is_not_echoed() {
        assert_eq!(answer(&json!({"type": 2, "challenge": "a"})), None);
        assert_eq!(answer(&json!({"type": 1})), None);
        assert_eq!(answer(&json!({"type": 1, "challenge": "a".repeat(5000)})), None);
    }
}
