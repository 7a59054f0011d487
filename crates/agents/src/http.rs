//! `runner = "http"`: an agent behind a URL. Sends the envelope in a `POST` signed as Standard Webhooks and reads the
//! answer as `docs/interface.md`, section 4 promises. Made by the configuration through [`KIND`], called by the worker.
//!
//! The URL is the operator's, so private addresses are allowed. The same run may arrive twice (a lost answer, a restart):
//! `webhook-id` and `idempotency-key` are the run's id so that the agent can tell. The answer is not copied into the
//! run's log: it is the run's output.

use std::sync::Arc;
use std::time::Duration;

use ::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use ::http::{Method, Request, Response, StatusCode, Uri};
use async_trait::async_trait;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use doorbell_core::attempt::{Attempt, Failure, Outcome, Stop, Success};
use doorbell_core::excerpt;
use doorbell_core::ports::{Fetch, FetchError, FetchLimits, Reach, Runner, Verdict};
use doorbell_core::{Clock, Secret, Timestamp};
use serde_json::{Map, Value};

use crate::settings::{Reader, Setting, SettingFault};
use crate::{Context, Kind};
use doorbell_core::verdict::{self, Said};

/// The entry in [`KINDS`](crate::KINDS).
pub const KIND: Kind = Kind {
    name: "http",
    about: "an agent behind a URL: one signed POST a run",
    settings: SETTINGS,
    build: |given, context| Ok(Arc::new(Http::new(Settings::read(given, context)?, context))),
};

const SETTINGS: &[Setting] = &[
    Setting { name: "url", about: "where to POST the envelope; http or https, private addresses allowed" },
    Setting {
        name: "secret",
        about: "signs each request (Standard Webhooks): `whsec_` and base64, or any text; a list during a rotation; \
                without it requests are not signed",
    },
    Setting { name: "headers", about: "a table of further headers; values are texts or secrets" },
    Setting { name: "max_output", about: "the longest answer, default \"1 MiB\"; a longer one is a failure" },
];

const MAX_OUTPUT: usize = 1 << 20;
/// A snooze costs no attempt, so an agent that says `Retry-After: 0` would otherwise be called in a tight loop.
const SNOOZE_MIN: Duration = Duration::from_secs(1);

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const RUN_TOKEN: HeaderName = HeaderName::from_static("doorbell-run-token");
const API: HeaderName = HeaderName::from_static("doorbell-api");
const HOPS: HeaderName = HeaderName::from_static(doorbell_core::loop_guard::HEADER);

/// Set by us or by the client; a setting must not contradict them.
const OURS: &[&str] = &[
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
    "idempotency-key",
    "doorbell-run-token",
    "doorbell-api",
    doorbell_core::loop_guard::HEADER,
    "content-type",
    "content-length",
    "transfer-encoding",
    "connection",
    "host",
];

/// What an `http` agent is made of.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to.
    pub url: Uri,
    /// What signs; the newest first, all of them sign.
    pub secrets: Vec<Secret>,
    /// Further headers.
    pub headers: HeaderMap,
    /// The longest answer, in bytes.
    pub max_output: usize,
}

impl Settings {
    /// From the keys of an agent's table; reports every fault.
    pub fn read(given: &Map<String, Value>, context: &Context) -> Result<Self, Vec<SettingFault>> {
        let mut reader = Reader::new(given, SETTINGS, context);
        let url = read_url(&mut reader);
        let secrets = match reader.get("secret") {
            Some(value) => reader.secrets("secret", value),
            None => Vec::new(),
        };
        for (at, secret) in &secrets {
            if let Err(why) = signing_key(secret) {
                reader.fault(at, why, "Copy it again, or use a text that does not begin so.");
            }
        }
        let secrets = secrets.into_iter().map(|(_, secret)| secret).collect();
        let headers = read_headers(&mut reader);
        let max_output = reader.size("max_output", MAX_OUTPUT);
        reader.finish(url.map(|url| Self { url, secrets, headers, max_output }))
    }
}

/// What to do about a wrong `url`.
const URL: &str = "Write for example url = \"http://127.0.0.1:9000/run\".";

fn read_url(reader: &mut Reader<'_>) -> Option<Uri> {
    if reader.get("url").is_none() {
        reader.fault("", "`url` is missing", URL);
    }
    let text = reader.text("url")?;
    // The value is not repeated in the faults: query and user part may hold secrets.
    let Ok(url) = url::Url::parse(text) else {
        reader.fault("url", "this is not a URL", URL);
        return None;
    };
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        reader.fault("url", "this must begin with http:// or https:// and name a host", URL);
    } else if !url.username().is_empty() || url.password().is_some() {
        reader.fault("url", "this carries a name or password", "Send them with `headers`, as a secret.");
    } else if let Ok(uri) = url.as_str().parse() {
        return Some(uri);
    } else {
        reader.fault("url", "this is not a URL that can be sent", URL);
    }
    None
}

fn read_headers(reader: &mut Reader<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in reader.table("headers") {
        let at = format!("headers.{name}");
        let Ok(key) = HeaderName::try_from(name.as_str()) else {
            reader.fault(&at, format!("`{}` cannot be the name of a header", excerpt::head(name)), "");
            continue;
        };
        if OURS.contains(&key.as_str()) {
            reader.fault(&at, "this header is set by Doorbell", "Leave it out.");
            continue;
        }
        let Some(text) = reader.text_or_secret(&at, value) else { continue };
        match HeaderValue::try_from(text.expose()) {
            Ok(mut value) => {
                value.set_sensitive(true);
                headers.insert(key, value);
            }
            Err(_) => reader.fault(
                &at,
                "this holds characters that a header must not carry",
                "Take out line breaks and the like.",
            ),
        }
    }
    headers
}

/// Standard Webhooks, "Signature scheme": the key is the base64 behind `whsec_`; other texts are taken as they are.
fn signing_key(secret: &Secret) -> Result<hmac::Key, &'static str> {
    match secret.expose().strip_prefix("whsec_") {
        None => Ok(hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes())),
        Some(coded) => match BASE64.decode(coded) {
            Ok(key) if !key.is_empty() => Ok(hmac::Key::new(hmac::HMAC_SHA256, &key)),
            _ => Err("this begins with `whsec_` but no base64 follows"),
        },
    }
}

/// An agent behind a URL.
pub struct Http {
    url: Uri,
    keys: Vec<hmac::Key>,
    headers: HeaderMap,
    max_output: usize,
    fetch: Arc<dyn Fetch>,
    clock: Clock,
}

impl Http {
    /// From settings that were read.
    pub fn new(settings: Settings, context: &Context) -> Self {
        Self {
            url: settings.url,
            keys: settings.secrets.iter().filter_map(|s| signing_key(s).ok()).collect(),
            headers: settings.headers,
            max_output: settings.max_output,
            fetch: context.fetch.clone(),
            clock: context.clock.clone(),
        }
    }

    fn request(&self, attempt: &Attempt) -> Result<Request<Bytes>, String> {
        let body = serde_json::to_vec(&*attempt.envelope).map_err(|e| format!("the envelope is not JSON: {e}"))?;
        let run = attempt.envelope.run.id.to_string();
        let at = self.clock.now().secs().to_string();
        let mut headers = HeaderMap::with_capacity(self.headers.len() + 8);
        headers.extend(self.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if !self.keys.is_empty() {
            headers.insert(WEBHOOK_SIGNATURE, value_of(&self.sign(&run, &at, &body))?);
        }
        let id = value_of(&run)?;
        headers.insert(WEBHOOK_ID, id.clone());
        headers.insert(IDEMPOTENCY_KEY, id);
        headers.insert(WEBHOOK_TIMESTAMP, value_of(&at)?);
        let mut token = value_of(attempt.run_token.expose())?;
        token.set_sensitive(true);
        headers.insert(RUN_TOKEN, token);
        if let Some(api) = &attempt.api_url {
            headers.insert(API, value_of(api)?);
        }
        headers.insert(HOPS, HeaderValue::from(attempt.envelope.run.hops));
        let mut request = Request::new(Bytes::from(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.url.clone();
        *request.headers_mut() = headers;
        Ok(request)
    }

    /// `v1,<base64>` over `id.timestamp.body`, one for each key.
    fn sign(&self, id: &str, at: &str, body: &[u8]) -> String {
        let mut all = String::with_capacity(48 * self.keys.len());
        for key in &self.keys {
            let mut mac = hmac::Context::with_key(key);
            for part in [id.as_bytes(), b".", at.as_bytes(), b".", body] {
                mac.update(part);
            }
            if !all.is_empty() {
                all.push(' ');
            }
            all.push_str("v1,");
            BASE64.encode_string(mac.sign(), &mut all);
        }
        all
    }

    fn judge(&self, answer: Response<Bytes>) -> Verdict {
        let (parts, body) = answer.into_parts();
        let status = parts.status;
        if status.is_success() {
            return match verdict::read(&body, false) {
                Said::Verdict(outcome) => outcome.into(),
                Said::Plain if status == StatusCode::ACCEPTED => Verdict::Deferred,
                Said::Plain => Outcome::Succeeded(Success { output: body, ..Success::default() }).into(),
            };
        }
        let usage = verdict::usage(&body);
        let busy = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        if let Some(after) = busy.then(|| retry_after(&parts.headers, self.clock.now())).flatten() {
            let why = format!("the agent answered {} and asked for a pause", status.as_u16());
            return Outcome::Snoozed { after: after.max(SNOOZE_MIN), why, usage }.into();
        }
        let error = match (status.is_redirection(), body.is_empty()) {
            (true, _) => format!(
                "the agent answered {} (a redirect); redirects are not followed: put the final address into `url`",
                status.as_u16()
            ),
            (false, true) => format!("the agent answered {} without a text", status.as_u16()),
            (false, false) => format!("the agent answered {}: {}", status.as_u16(), excerpt::head(&lossy(&body))),
        };
        let retry = status.is_server_error() || busy;
        let output = (!body.is_empty()).then_some(body);
        Outcome::Failed(Failure { error, retry, retry_after: None, output, usage }).into()
    }
}

#[async_trait]
impl Runner for Http {
    fn calls_back(&self) -> bool {
        true
    }

    async fn run(&self, attempt: Attempt) -> Verdict {
        let request = match self.request(&attempt) {
            Ok(request) => request,
            Err(why) => return failed(why, false),
        };
        let limits = FetchLimits { time_limit: attempt.time_limit, max_body: self.max_output, reach: Reach::Any };
        let answer = tokio::select! {
            answer = self.fetch.fetch(request, limits) => answer,
            reason = attempt.stop.asked() => return Stop::outcome(reason).into(),
        };
        match answer {
            Ok(answer) => self.judge(answer),
            Err(FetchError::TimedOut { .. }) => Outcome::TimedOut { after: attempt.time_limit }.into(),
            Err(e @ FetchError::TooLarge { .. }) => {
                failed(format!("{e}; raise `max_output`, then retry the run"), false)
            }
            Err(e @ FetchError::Refused(_)) => failed(e.to_string(), false),
            Err(e @ (FetchError::Connect { .. } | FetchError::Broken { .. })) => failed(e.to_string(), true),
        }
    }
}

fn failed(error: String, retry: bool) -> Verdict {
    Outcome::Failed(Failure { error, retry, ..Failure::default() }).into()
}

fn value_of(text: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(text).map_err(|_| "a header for the agent holds characters that it must not carry".to_owned())
}

/// At most the part that an error message shows.
fn lossy(body: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(&body[..body.len().min(4 * excerpt::EXCERPT)])
}

/// `Retry-After` in seconds or as an HTTP date (RFC 9110, section 10.2.3). A date in the past is a pause of zero.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        return verdict::retry_after(seconds);
    }
    let at = jiff::fmt::rfc2822::DateTimeParser::new().relaxed_weekday(true).parse_timestamp(text).ok()?;
    Some(Timestamp::from_millis(at.as_millisecond()).since(now).min(doorbell_core::verdict::RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(text: &str) -> Option<Duration> {
        let now = Timestamp::parse("1994-11-06T08:49:00Z").unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, text.parse().unwrap());
        retry_after(&headers, now)
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_bounded() {
        assert_eq!(after("120"), Some(Duration::from_secs(120)));
        assert_eq!(after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::from_secs(37)));
        assert_eq!(after("Sun, 06 Nov 1990 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(after("99999999999999"), Some(doorbell_core::verdict::RETRY_AFTER_MAX));
        assert_eq!(after("Sun, 06 Nov 2094 08:49:37 GMT"), Some(doorbell_core::verdict::RETRY_AFTER_MAX));
        for bad in ["-5", "soon", "", "NaN"] {
            assert_eq!(after(bad), None, "{bad}");
        }
    }

    struct Nowhere;

    #[async_trait]
    impl Fetch for Nowhere {
        async fn fetch(&self, _: Request<Bytes>, _: FetchLimits) -> Result<Response<Bytes>, FetchError> {
            Err(FetchError::Refused("no calls here".into()))
        }
    }

    #[test]
    fn signatures_are_those_of_standard_webhooks() {
        // The example of Svix's documentation, "Verifying webhooks manually".
        let settings = Settings {
            url: Uri::from_static("http://agent.example/"),
            secrets: vec![Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), Secret::new("old")],
            headers: HeaderMap::new(),
            max_output: 1,
        };
        let context = Context {
            base_dir: "/".into(),
            environment: Arc::default(),
            fetch: Arc::new(Nowhere),
            clock: Clock::system(),
            secret: Arc::new(|_| Err(SettingFault::new("", "none", ""))),
        };
        let signed = Http::new(settings, &context).sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "1614265330",
            br#"{"test": 2432232314}"#,
        );
        let (first, second) = signed.split_once(' ').unwrap();
        assert_eq!(first, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert!(second.starts_with("v1,"), "both keys sign during a rotation");
    }

    #[test]
    fn a_secret_with_a_prefix_is_base64() {
        assert!(signing_key(&Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")).is_ok());
        assert!(signing_key(&Secret::new("plain text")).is_ok());
        assert!(signing_key(&Secret::new("whsec_")).is_err());
        assert!(signing_key(&Secret::new("whsec_%%")).is_err());
    }
}
