//! What of a request may be kept: headers by allow-list, and nothing that holds a secret. Called when an event is made,
//! before an agent, a log, the API or a replay can see it.

use std::fmt::Write as _;

use http::{HeaderMap, HeaderName, header};
use serde_json::Value;

use super::preset::Preset;
use super::scheme::Scheme;
use super::select::Place;

/// Kept for every sender: they say how to read the body.
const ALWAYS_KEPT: [HeaderName; 2] = [header::CONTENT_TYPE, header::USER_AGENT];

/// A header whose name holds one of these is never kept, whatever a preset says.
const SECRET_WORDS: [&str; 6] = ["authorization", "cookie", "signature", "secret", "token", "api-key"];

/// What stands in the place of a secret that was taken out.
const REMOVED: &str = "[removed]";

/// Whether what is called so is kept out of every event, in capitals or not.
pub(crate) fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| name.contains(word))
}

/// Whether the header could carry a secret or a signature.
pub(super) fn is_never_kept(preset: &Preset, name: &HeaderName) -> bool {
    let here = Place::Header(name.clone());
    is_secret_name(name.as_str()) || preset.credentials().contains(&here) || preset.secrets.contains(&here)
}

/// The names of the headers that a source keeps, worked out once.
#[derive(Clone, Debug)]
pub struct KeptHeaders(Vec<HeaderName>);

impl KeptHeaders {
    /// The headers to keep with an event, in the order they came. Bytes that are no UTF-8, and control characters, are
    /// written `\xNN`.
    pub fn of(&self, headers: &HeaderMap) -> Vec<(String, String)> {
        let kept = headers.iter().filter(|(name, _)| self.0.contains(name));
        kept.map(|(name, value)| (name.as_str().to_owned(), printable(value.as_bytes()))).collect()
    }
}

impl Preset {
    /// Which headers are kept with an event: the allow-list, without anything that could carry a secret.
    pub fn kept_headers(&self) -> KeptHeaders {
        let listed = ALWAYS_KEPT.iter().chain(&self.keep_headers);
        KeptHeaders(listed.filter(|name| !is_never_kept(self, name)).cloned().collect())
    }

    /// Every place that holds a secret: the token or password of the scheme, and what the preset lists.
    pub fn secret_places(&self) -> Vec<Place> {
        let mut places = self.secrets.clone();
        if let Scheme::Token { .. } | Scheme::Basic | Scheme::ClientCert(_) = self.scheme {
            places.extend(self.credentials());
        }
        places
    }

    /// Whether a raw body may hold a secret, so that it has to be taken out before it is kept.
    pub fn has_secret_in_body(&self) -> bool {
        self.secret_places().iter().any(|p| matches!(p, Place::Body(_) | Place::Form(_)))
    }

    /// Takes the secrets out of a parsed body; a form counts as an object of its fields. True if there were any.
    pub fn strip_body(&self, view: &mut Value) -> bool {
        let mut found = false;
        for place in self.secret_places() {
            let steps: &[String] = match &place {
                Place::Body(path) => path,
                Place::Form(name) => std::slice::from_ref(name),
                Place::Header(_) | Place::Query(_) | Place::Path => continue,
            };
            let target = steps.iter().try_fold(&mut *view, |here, step| match here {
                Value::Object(map) => map.get_mut(step),
                Value::Array(items) => items.get_mut(step.parse::<usize>().ok()?),
                _ => None,
            });
            if let Some(value) = target {
                *value = Value::from(REMOVED);
                found = true;
            }
        }
        found
    }

    /// The query as pairs, with the secrets taken out.
    pub fn kept_query(&self, query: &str) -> Vec<(String, String)> {
        let secret = self.secret_places();
        let is_secret = |name: &str| secret.iter().any(|p| matches!(p, Place::Query(q) if q == name));
        form_urlencoded::parse(query.as_bytes())
            .map(|(name, value)| {
                let value = if is_secret(&name) { REMOVED.to_owned() } else { value.into_owned() };
                (name.into_owned(), value)
            })
            .collect()
    }
}

fn printable(bytes: &[u8]) -> String {
    // What nearly every header is: looked at once and copied whole.
    if let Ok(text) = std::str::from_utf8(bytes)
        && !text.chars().any(char::is_control)
    {
        return text.to_owned();
    }
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() {
                let _ = write!(text, "\\x{:02x}", u32::from(c));
            } else {
                text.push(c);
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn only_listed_headers_are_kept_and_odd_bytes_are_escaped() {
        let github = super::super::get("github").unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("x-github-event", HeaderValue::from_bytes(b"pu\xffsh").unwrap());
        headers.insert("x-hub-signature-256", HeaderValue::from_static("sha256=00"));
        headers.insert("cookie", HeaderValue::from_static("a=b"));
        headers.insert("authorization", HeaderValue::from_static("Bearer x"));
        headers.insert("x-unknown", HeaderValue::from_static("x"));
        assert_eq!(github.kept_headers().of(&headers), [("x-github-event".to_owned(), "pu\\xffsh".to_owned())]);
    }

    #[test]
    fn a_token_is_taken_out_wherever_it_travels() {
        let text = "id = \"x\"\nname = \"X\"\nsecrets = [\"body:a.b\", \"form:token\"]\n\
                    [verify]\nscheme = \"token\"\ntoken = \"query:key\"\n";
        let preset = Preset::parse(text, "x.toml").unwrap();
        let mut view = serde_json::json!({"a": {"b": "hunter2", "c": 1}, "token": "hunter2"});
        assert!(preset.strip_body(&mut view));
        assert!(!view.to_string().contains("hunter2"));
        assert!(preset.has_secret_in_body());
        let query = preset.kept_query("a=1&key=hunter2");
        assert_eq!(query, [("a".to_owned(), "1".to_owned()), ("key".to_owned(), REMOVED.to_owned())]);
    }
}
