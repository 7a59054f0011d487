//! `[server]`, `[store]` and `[retention]`: defaults, and what the environment says over them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use doorbell_core::limits::{Meter, Quota};
use doorbell_core::ports::Retention;
use doorbell_core::seal::MasterKeys;
use doorbell_core::{Secret, loop_guard};
use ipnet::IpNet;

use super::Cx;
use super::fault::Severity;
use super::master_key::master_keys;
use super::secrets::Secrets;
use super::section::At;
use super::values::{Lasting, Rate, SecretAt};
use super::world::SecretFile;
use super::written::{RetentionTable, ServerTable, StoreTable};

const SECOND: Duration = Duration::from_secs(1);
/// A shorter admin token may be guessed.
pub(crate) const ADMIN_TOKEN_BYTES_MIN: usize = 16;

/// Where to listen, and the limits there.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// The address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The URL others know this server by, without a slash at its end.
    pub public_url: Option<String>,
    /// Where the store, the admin token and the lock are.
    pub data_dir: PathBuf,
    /// The longest body, in bytes, where a source says nothing else.
    pub max_body: usize,
    /// Who may say who the real sender is.
    pub trusted_proxies: Vec<IpNet>,
    /// Opens the API; none: `data_dir/admin.token`.
    pub admin_token: Option<Secret>,
    /// Open the stored secrets; none: `data_dir/master.key`.
    pub master_keys: Option<Arc<MasterKeys>>,
    /// Serves HTTPS.
    pub tls: Option<TlsFiles>,
    /// Whether an open breaker makes `/ready` say 503.
    pub ready_includes_breakers: bool,
    /// For all sources together.
    pub rate_limit: Option<Arc<Meter>>,
    /// How many runs an event may come from.
    pub max_hops: u32,
    /// Bytes of large bodies held at once.
    pub max_body_memory: usize,
    /// Connections at once.
    pub max_connections: usize,
    /// For a request's head.
    pub header_timeout: Duration,
    /// For a request's body.
    pub body_timeout: Duration,
    /// Between requests.
    pub idle_timeout: Duration,
    /// How long a soft stop waits.
    pub shutdown_grace: Duration,
}

/// Where certificate and key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, PEM.
    pub cert: PathBuf,
    /// The private key, PEM.
    pub key: PathBuf,
}

/// Where everything is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreAt {
    /// One file, one process.
    Sqlite(PathBuf),
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            public_url: None,
            data_dir: PathBuf::from("doorbell-data"),
            max_body: 1 << 20,
            trusted_proxies: Vec::new(),
            admin_token: None,
            master_keys: None,
            tls: None,
            ready_includes_breakers: false,
            rate_limit: None,
            max_hops: loop_guard::MAX_HOPS,
            max_body_memory: 128 << 20,
            max_connections: 10_000,
            header_timeout: 10 * SECOND,
            body_timeout: 60 * SECOND,
            idle_timeout: 75 * SECOND,
            shutdown_grace: 30 * SECOND,
        }
    }
}

pub(super) fn server(written: &ServerTable, cx: &Cx<'_>) -> ServerSettings {
    let default = ServerSettings::default();
    let data_dir = match cx.world.var("DOORBELL_DATA_DIR") {
        // From the environment: relative to where the program was started, as everywhere on a command line.
        Some(dir) => PathBuf::from(dir),
        None => cx.path(written.data_dir.as_ref().map_or("doorbell-data", |d| &d.value)),
    };
    if let Some(at) = written.data_dir.as_ref().filter(|at| at.value.is_empty()) {
        cx.report.error(at.offset, "server.data_dir", "an empty path is no directory", "Name one, or leave it out.");
    }
    ServerSettings {
        listen: listen(written, cx).unwrap_or(default.listen),
        public_url: public_url(written, cx),
        data_dir,
        max_body: max_body(written, cx).unwrap_or(default.max_body),
        trusted_proxies: written.trusted_proxies.iter().flat_map(|l| &l.value).map(|n| n.value.0).collect(),
        admin_token: admin_token(written, cx),
        master_keys: master_keys(written, cx),
        tls: tls(written, cx),
        ready_includes_breakers: written.ready_includes_breakers.as_ref().is_some_and(|at| at.value),
        rate_limit: quota(&written.rate_limit).map(|q| Arc::new(Meter::new(q))),
        max_hops: written.max_hops.as_ref().map_or(default.max_hops, |h| h.value),
        max_body_memory: max_body_memory(written, cx).unwrap_or(default.max_body_memory),
        max_connections: above_zero(&written.max_connections, "server.max_connections", cx)
            .map_or(default.max_connections, |n| n as usize),
        header_timeout: timeout(&written.header_timeout, "server.header_timeout", cx).unwrap_or(default.header_timeout),
        body_timeout: timeout(&written.body_timeout, "server.body_timeout", cx).unwrap_or(default.body_timeout),
        idle_timeout: timeout(&written.idle_timeout, "server.idle_timeout", cx).unwrap_or(default.idle_timeout),
        shutdown_grace: written.shutdown_grace.as_ref().map_or(default.shutdown_grace, |g| g.value.0),
    }
}

/// A duration that must not be zero.
pub(super) fn timeout(at: &Option<At<Lasting>>, key: &str, cx: &Cx<'_>) -> Option<Duration> {
    let at = at.as_ref()?;
    if at.value.0.is_zero() {
        cx.report.error(at.offset, key, "this must be longer than nothing", "");
        return None;
    }
    Some(at.value.0)
}

/// A rate as a meter wants it.
pub(super) fn quota(at: &Option<At<Rate>>) -> Option<Quota> {
    at.as_ref().and_then(|r| Quota::new(r.value.count, r.value.per, &r.value.text))
}

/// A number that must not be zero.
pub(super) fn above_zero(at: &Option<At<u32>>, key: &str, cx: &Cx<'_>) -> Option<u32> {
    let at = at.as_ref()?;
    if at.value == 0 {
        cx.report.error(at.offset, key, "this must be at least 1", "");
        return None;
    }
    Some(at.value)
}

/// Where a setting that the environment may give was read.
#[derive(Clone, Copy)]
pub(super) enum Place {
    Variable(&'static str),
    Key(usize, &'static str),
}

impl Place {
    /// Tells what is wrong with it.
    pub(super) fn tell(self, severity: Severity, problem: impl Into<String>, advice: &str, cx: &Cx<'_>) {
        match (self, severity) {
            (Self::Variable(name), _) => cx.report.in_environment(severity, name, problem, advice),
            (Self::Key(offset, key), Severity::Error) => cx.report.error(offset, key, problem, advice),
            (Self::Key(offset, key), Severity::Warning) => cx.report.warning(offset, key, problem, advice),
        }
    }
}

/// The variable's text if it is set, else the key's, with its place.
pub(super) fn either<'a>(
    variable: &'static str,
    at: Option<&'a At<String>>,
    key: &'static str,
    cx: &Cx<'a>,
) -> Option<(&'a str, Place)> {
    match (cx.world.var(variable), at) {
        (Some(text), _) => Some((text, Place::Variable(variable))),
        (None, Some(at)) => Some((at.value.as_str(), Place::Key(at.offset, key))),
        (None, None) => None,
    }
}

fn listen(written: &ServerTable, cx: &Cx<'_>) -> Option<SocketAddr> {
    let (text, place) = either("DOORBELL_LISTEN", written.listen.as_ref(), "server.listen", cx)?;
    let parsed = text.parse();
    if parsed.is_err() {
        let problem = format!("`{text:.80}` is not an address with a port");
        let advice = "Write for example \"127.0.0.1:8080\", \"0.0.0.0:8080\" or \"[::]:8080\".";
        place.tell(Severity::Error, problem, advice, cx);
        cx.report.meant("server.listen".to_owned());
    }
    parsed.ok()
}

fn public_url(written: &ServerTable, cx: &Cx<'_>) -> Option<String> {
    let (text, place) = either("DOORBELL_PUBLIC_URL", written.public_url.as_ref(), "server.public_url", cx)?;
    let good = url::Url::parse(text).is_ok_and(|u| {
        matches!(u.scheme(), "http" | "https") && u.has_host() && u.query().is_none() && u.fragment().is_none()
    });
    if !good {
        let problem = format!("`{text:.200}` is not an http or https URL without a query");
        place.tell(Severity::Error, problem, "Write for example \"https://door.example.com\".", cx);
        // Nor is it missing where it stands in the environment.
        cx.report.meant("server.public_url".to_owned());
        return None;
    }
    Some(text.trim_end_matches('/').to_owned())
}

fn max_body(written: &ServerTable, cx: &Cx<'_>) -> Option<usize> {
    let at = written.max_body.as_ref()?;
    body_limit(at.value.0, at.offset, "server.max_body", cx)
}

/// A machine with so much for bodies alone has no need of a limit.
const MAX_BODY_MEMORY_MAX: u64 = 1 << 40;

fn max_body_memory(written: &ServerTable, cx: &Cx<'_>) -> Option<usize> {
    let at = written.max_body_memory.as_ref()?;
    if at.value.0 == 0 || at.value.0 > MAX_BODY_MEMORY_MAX {
        cx.report.error(at.offset, "server.max_body_memory", "this must be from 1 byte to 1 TiB", "");
        return None;
    }
    usize::try_from(at.value.0).ok()
}

/// One body has to fit in, or it would be refused each time it comes: a default that is too small grows.
pub(super) fn fit_bodies(settings: &mut ServerSettings, written: &ServerTable, longest: usize, cx: &Cx<'_>) {
    if settings.max_body_memory >= longest {
        return;
    }
    match &written.max_body_memory {
        None => settings.max_body_memory = longest,
        Some(at) => {
            let problem = format!("a body may be {longest} bytes long (`max_body`), and so much is never free");
            cx.report.error(at.offset, "server.max_body_memory", problem, "Raise it, or lower that `max_body`.");
        }
    }
}

/// The longest body that may be allowed: bodies are held in memory, many at once.
const MAX_BODY_MAX: u64 = 1 << 30;

pub(super) fn body_limit(bytes: u64, offset: usize, key: &str, cx: &Cx<'_>) -> Option<usize> {
    if bytes == 0 || bytes > MAX_BODY_MAX {
        cx.report.error(offset, key, "this must be from 1 byte to 1 GiB: bodies are held in memory", "");
        return None;
    }
    usize::try_from(bytes).ok()
}

fn admin_token(written: &ServerTable, cx: &Cx<'_>) -> Option<Secret> {
    let key = "server.admin_token";
    let (at, given) = match (&written.admin_token, cx.world.var("DOORBELL_ADMIN_TOKEN")) {
        // The example of the documentation names this variable; unset, the token is made on first start.
        (Some(At { value: SecretAt::Env(name), .. }), None) if name == "DOORBELL_ADMIN_TOKEN" => return None,
        (Some(at), _) => (Place::Key(at.offset, key), Secrets::new(cx).one(at, key)),
        (None, Some(token)) => (Place::Variable("DOORBELL_ADMIN_TOKEN"), Some(Secret::new(token))),
        (None, None) => return None,
    };
    let token = given?;
    if token.expose().len() < ADMIN_TOKEN_BYTES_MIN {
        let problem = "the admin token is shorter than 16 characters, so it may be guessed";
        at.tell(Severity::Warning, problem, "Make one with: openssl rand -hex 32", cx);
    }
    Some(token)
}

fn tls(written: &ServerTable, cx: &Cx<'_>) -> Option<TlsFiles> {
    let At { value, offset } = written.tls.as_ref()?;
    let read = |at: &At<String>, name: &str| {
        let (path, key) = (cx.path(&at.value), format!("server.tls.{name}"));
        match cx.world.files.secret(&path) {
            Err(error) => {
                let problem = format!("`{}` cannot be read: {error}", path.display());
                cx.report.error(at.offset, &key, problem, "Name a PEM file.");
            }
            Ok(SecretFile { mode: Some(mode), .. }) if name == "key" && mode & 0o077 != 0 => {
                let problem = format!("`{}` can be read by others (mode {mode:o})", path.display());
                cx.report.warning(at.offset, &key, problem, format!("Run: chmod 600 {}", path.display()));
            }
            Ok(_) => {}
        }
        path
    };
    let cert = value.cert.as_ref().map(|at| read(at, "cert"));
    let key = value.key.as_ref().map(|at| read(at, "key"));
    let is_missing = |there: bool, name: &str| !there && !cx.report.is_told(&format!("server.tls.{name}"));
    if is_missing(cert.is_some(), "cert") || is_missing(key.is_some(), "key") {
        let problem = "TLS needs both a certificate and a key";
        cx.report.error(*offset, "server.tls", problem, "Write tls = { cert = \"cert.pem\", key = \"key.pem\" }.");
    }
    Some(TlsFiles { cert: cert?, key: key? })
}

pub(super) fn store(written: &StoreTable, data_dir: &Path, cx: &Cx<'_>) -> StoreAt {
    let default = || StoreAt::Sqlite(data_dir.join("doorbell.db"));
    let Some((text, place)) = either("DOORBELL_STORE_URL", written.url.as_ref(), "store.url", cx) else {
        return default();
    };
    let advice = "Write for example \"sqlite:doorbell-data/doorbell.db\".";
    match text.split_once(':') {
        Some(("sqlite", path)) if !path.trim_start_matches("//").is_empty() => {
            let path = path.strip_prefix("//").unwrap_or(path);
            return StoreAt::Sqlite(match place {
                Place::Variable(_) => PathBuf::from(path),
                Place::Key(..) => cx.path(path),
            });
        }
        Some(("postgres" | "postgresql", _)) => {
            place.tell(Severity::Error, "PostgreSQL comes in a later version", advice, cx);
        }
        // A URL may carry a password: its text is not repeated.
        _ => place.tell(Severity::Error, "this is not the URL of a store", advice, cx),
    }
    default()
}

pub(super) fn retention(written: &RetentionTable, cx: &Cx<'_>) -> Retention {
    let default = Retention::default();
    let span = |at: &Option<At<Lasting>>, name: &str| timeout(at, &format!("retention.{name}"), cx);
    let kept = Retention {
        events: span(&written.events, "events").unwrap_or(default.events),
        ignored: span(&written.ignored, "ignored").unwrap_or(default.ignored),
        decisions: span(&written.decisions, "decisions").unwrap_or(default.decisions),
        dedup: span(&written.dedup, "dedup").unwrap_or(default.dedup),
        ring: written.unverified_decisions.as_ref().map_or(default.ring, |n| n.value),
    };
    let is_told = ["retention.events", "retention.dedup"].iter().any(|key| cx.report.is_told(key));
    if let Some(at) = written.dedup.as_ref().filter(|_| kept.dedup < kept.events && !is_told) {
        let problem = "dedup keys are kept for less time than the events they belong to";
        cx.report.warning(
            at.offset,
            "retention.dedup",
            problem,
            "A late redelivery would run again; keep them longer.",
        );
    }
    kept
}
