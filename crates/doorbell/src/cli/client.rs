//! A small client of Doorbell's own API, for the command line: JSON in and out, every refusal turned into a text that says
//! what to do. Answers stay `serde_json::Value`, since `--json` prints them as they came, members unknown here included.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use doorbell_core::Secret;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use url::Url;

use super::fault::Fault;
use super::trust;

/// Longer than anything the API does by itself; streams have no limit.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// An answer holds at most one page or one event with its body (25 MiB, escaped).
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Which Doorbell is meant.
#[derive(Clone, Debug)]
pub(super) struct Whom {
    /// Its address.
    pub base: Url,
    /// Where that address is from, for people.
    pub whence: String,
    /// The file with the certificate that it shows, if that is known: then no other one is trusted.
    pub certificate: Option<PathBuf>,
}

/// Speaks to one Doorbell.
#[derive(Clone, Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    whom: Whom,
    token: Option<Secret>,
}

impl Client {
    /// For that Doorbell; without a token only what is open to everybody can be asked.
    ///
    /// # Errors
    /// If the certificate's file or the system's TLS roots cannot be read.
    pub(super) fn new(whom: Whom, token: Option<Secret>) -> Result<Self> {
        let mut http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        if is_loopback(&whom.base) {
            http = http.no_proxy();
        }
        if let Some(file) = &whom.certificate {
            http = http.tls_backend_preconfigured(trust::only(file)?);
        }
        let http = http.build().context("cannot set up the HTTP client")?;
        Ok(Self { http, whom, token })
    }

    /// Where it speaks to, without a slash at its end.
    pub(super) fn base(&self) -> &str {
        self.whom.base.as_str().trim_end_matches('/')
    }

    /// The server's address as it may be told: without a name and password.
    fn shown(&self) -> String {
        let mut base = self.whom.base.clone();
        let _ = base.set_username("").and_then(|()| base.set_password(None));
        base.as_str().trim_end_matches('/').to_owned()
    }

    /// The thing at `path` (`runs/run_…`) under `/api/v1`.
    ///
    /// # Errors
    /// Not reachable, refused, or not found, with what to do.
    pub(super) async fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Value> {
        self.json(self.request(Method::GET, path).query(query).timeout(ANSWER_WITHIN)).await
    }

    /// Carries a verb out: `POST` on `path` under `/api/v1`.
    ///
    /// # Errors
    /// Not reachable, refused, or not found, with what to do.
    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.json(self.request(Method::POST, path).json(body).timeout(ANSWER_WITHIN)).await
    }

    /// A page outside `/api/v1`, as text.
    ///
    /// # Errors
    /// Not reachable or refused, with what to do.
    pub(super) async fn page(&self, path: &str) -> Result<String> {
        let url = format!("{}/{path}", self.base());
        let response = self.send(self.authorized(self.http.get(url)).timeout(ANSWER_WITHIN)).await?;
        let bytes = read(response).await.map_err(|e| self.broken(e))?;
        String::from_utf8(bytes).with_context(|| format!("{}/{path} is not text", self.shown()))
    }

    /// Opens a stream of server-sent events.
    ///
    /// # Errors
    /// Not reachable, refused, or not found, with what to do.
    pub(super) async fn stream(&self, path: &str, last: Option<&str>) -> Result<EventStream> {
        let mut request = self.request(Method::GET, path).header("accept", "text/event-stream");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        Ok(EventStream { response: self.send(request).await?, buffer: Vec::new() })
    }

    /// A plain request to a way in: no token, any answer.
    ///
    /// # Errors
    /// Not reachable.
    pub(super) async fn ring(&self, delivery: Delivery) -> Result<Answer> {
        let request = self.http.request(delivery.method, delivery.url).headers(delivery.headers).body(delivery.body);
        let response = request.timeout(ANSWER_WITHIN).send().await.map_err(|e| self.unreachable(e))?;
        let status = response.status();
        let body = read(response).await.map_err(|e| self.broken(e))?;
        Ok(Answer { status, body })
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.authorized(self.http.request(method, format!("{}/api/v1/{path}", self.base())))
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        }
    }

    async fn json(&self, request: RequestBuilder) -> Result<Value> {
        let response = self.send(request).await?;
        let bytes = read(response).await.map_err(|e| self.broken(e))?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).map_err(|e| self.stranger().cause(e).into())
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response> {
        let response = request.send().await.map_err(|e| self.unreachable(e))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = read(response).await.map_err(|e| self.broken(e))?;
        Err(self.refused(status, &body).into())
    }

    fn unreachable(&self, error: reqwest::Error) -> Fault {
        if error.is_timeout() && !error.is_connect() {
            let what = format!("{} did not answer within {} s", self.shown(), ANSWER_WITHIN.as_secs());
            return Fault::not_reachable(what).advice(
                "Something listens there. Look at the log of `doorbell serve`; it may be stopped or overloaded.",
            );
        }
        let (shown, whence) = (self.shown(), &self.whom.whence);
        if let Some(fault) = trust::fault(&error, &format!("{shown} ({whence})"), self.whom.certificate.as_deref()) {
            return fault;
        }
        Fault::not_reachable(format!("no Doorbell answers at {shown} ({whence})")).cause(root(error)).advice(
            "Is `doorbell serve` running? If it is elsewhere: `--url`, `DOORBELL_URL`, or `-c` with its doorbell.toml.",
        )
    }

    fn broken(&self, error: reqwest::Error) -> Fault {
        Fault::not_reachable(format!("the answer of {} broke off", self.shown()))
            .cause(root(error))
            .advice("It may have been carried out: look before you send it again.")
    }

    fn stranger(&self) -> Fault {
        Fault::not_reachable(format!("what answers at {} is not Doorbell", self.shown()))
            .advice("Check the address: `--url`, `DOORBELL_URL`, or `server.listen` in doorbell.toml.")
    }

    /// An RFC 9457 problem as a failure.
    fn refused(&self, status: StatusCode, body: &[u8]) -> Fault {
        let problem: Value = serde_json::from_slice(body).unwrap_or_default();
        let said = ["detail", "message", "title"].iter().find_map(|m| problem.get(m).and_then(Value::as_str));
        let Some(said) = said else {
            return self.stranger().cause(format!("it answered {status}"));
        };
        let fault = Fault::new(in_flags(said));
        match status {
            StatusCode::FORBIDDEN => fault.advice(
                "The token is a good one, but not for this; the admin token is (data_dir/admin.token, or \
                 DOORBELL_ADMIN_TOKEN). Where only a scope is missing, so is a key with it: doorbell keys create.",
            ),
            _ if problem.get("code").is_some_and(|code| code == "secret_unfit") => fault.advice(
                "Copy it from the sender again, whole: `doorbell providers NAME` says what it calls it. Where it is yours to \
                 make, `doorbell init DIR --provider NAME` makes a fresh one in the right form. `--force` keeps it as it is.",
            ),
            StatusCode::UNAUTHORIZED => fault.advice(match self.token {
                Some(_) => {
                    "The token is not this Doorbell's: it is in its data_dir/admin.token, or in DOORBELL_ADMIN_TOKEN."
                }
                None => "Give its token: `--token`, `DOORBELL_ADMIN_TOKEN`, or `-c` with its doorbell.toml.",
            }),
            _ if problem.get("retry").is_some_and(|r| r == true) => {
                fault.advice("The same request may be sent again in a while.")
            }
            _ => fault,
        }
    }
}

/// What the API says, with the flags of the command line in place of its own words.
fn in_flags(said: &str) -> String {
    /// Members of the API that are flags here.
    const FLAGS: [(&str, &str); 2] =
        [("`expires_at`", "the time of `--expires`"), ("`overlap_seconds`", "`--overlap`, in seconds,")];
    FLAGS.iter().fold(said.to_owned(), |said, (member, flag)| said.replace(member, flag))
}

/// A delivery as a sender would make it.
#[derive(Debug)]
pub(super) struct Delivery {
    /// The method.
    pub method: Method,
    /// Where to, query included.
    pub url: Url,
    /// All headers, the signature among them.
    pub headers: http::HeaderMap,
    /// The body.
    pub body: bytes::Bytes,
}

/// What a way in answered.
#[derive(Debug)]
pub(super) struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The body as it came.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON; null if it is something else.
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// Whether the address never leaves this machine.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

async fn read(mut response: Response) -> reqwest::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > ANSWER_BYTES_MAX {
            break;
        }
    }
    Ok(bytes)
}

/// The innermost cause: `connection refused` instead of four layers around it.
fn root(error: reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// One server-sent event.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ServerEvent {
    /// Its id, to go on from after a break.
    pub id: Option<String>,
    /// Its name; `message` if it has none.
    pub name: String,
    /// Its data.
    pub data: String,
}

/// Server-sent events, one after the other.
#[derive(Debug)]
pub(super) struct EventStream {
    response: Response,
    buffer: Vec<u8>,
}

impl EventStream {
    /// The next event; none at the end of the stream.
    ///
    /// # Errors
    /// If the connection broke off: open it again with the last id.
    pub(super) async fn next(&mut self) -> reqwest::Result<Option<ServerEvent>> {
        loop {
            if let Some(event) = take_event(&mut self.buffer) {
                return Ok(Some(event));
            }
            match self.response.chunk().await? {
                Some(chunk) => self.buffer.extend(chunk.iter().filter(|b| **b != b'\r')),
                None => return Ok(None),
            }
        }
    }
}

/// Takes the first whole event with data off the buffer (WHATWG HTML, "server-sent events"; carriage returns are gone).
fn take_event(buffer: &mut Vec<u8>) -> Option<ServerEvent> {
    loop {
        let end = buffer.windows(2).position(|w| w == b"\n\n")?;
        let block: Vec<u8> = buffer.drain(..end + 2).collect();
        let block = String::from_utf8_lossy(&block);
        let mut event = ServerEvent { name: "message".into(), ..ServerEvent::default() };
        let mut data: Option<String> = None;
        for line in block.lines().filter(|l| !l.starts_with(':')) {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "id" => event.id = Some(value.to_owned()),
                "event" => event.name = value.to_owned(),
                "data" => {
                    let data = data.get_or_insert_default();
                    if !data.is_empty() {
                        data.push('\n');
                    }
                    data.push_str(value);
                }
                _ => {}
            }
        }
        if let Some(data) = data {
            event.data = data;
            return Some(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_taken_whole_and_comments_are_passed_over() {
        let mut buffer = b": beat\n\nid: 3\nevent: piece\ndata: {\"a\":\ndata: 1}\n\ndata: x\n\ndata: ha".to_vec();
        let first = take_event(&mut buffer).unwrap();
        assert_eq!(first, ServerEvent { id: Some("3".into()), name: "piece".into(), data: "{\"a\":\n1}".into() });
        assert_eq!(take_event(&mut buffer).unwrap().name, "message");
        assert!(take_event(&mut buffer).is_none());
        assert_eq!(buffer, b"data: ha");
    }

    #[test]
    fn a_refusal_speaks_of_the_flags_that_were_typed() {
        assert_eq!(in_flags("`expires_at` is over already"), "the time of `--expires` is over already");
        assert_eq!(in_flags("`overlap_seconds` is at most 9"), "`--overlap`, in seconds, is at most 9");
    }

    #[test]
    fn only_this_machine_is_loopback() {
        let is = |u: &str| is_loopback(&Url::parse(u).unwrap());
        assert!(is("http://127.0.0.1:8080") && is("http://[::1]:1") && is("http://localhost"));
        assert!(!is("http://10.0.0.1") && !is("https://door.example.com"));
    }
}
