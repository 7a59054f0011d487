//! The `[server]` table of a configuration as a command reads it: where the server listens, what opens it, which
//! certificate it shows. Called by [`Access`](super::Access).
//!
//! A running server keeps the configuration that it has while its file has a fault; so the commands that look at it go on
//! too, as long as this one table can be read by itself.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use doorbell_core::Secret;
use serde::Deserialize;
use url::Url;

use super::super::Env;
use super::super::fault::Fault;

const DEFAULT_LISTEN: &str = "127.0.0.1:8080";
const DEFAULT_DATA_DIR: &str = "doorbell-data";
/// A token is a line; a longer file is something else.
const TOKEN_BYTES_MAX: u64 = 4096;

/// What of the file's `[server]` table tells where it listens and what opens it.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Server {
    listen: Option<String>,
    data_dir: Option<PathBuf>,
    admin_token: Option<Source>,
    tls: Option<Tls>,
    /// The directory that relative paths start from.
    #[serde(skip)]
    dir: PathBuf,
    /// What a person should know of the rest of the file.
    #[serde(skip)]
    pub note: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct File {
    #[serde(default)]
    server: Server,
}

/// How it serves HTTPS. What is wrong with it is told by `check`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Tls {
    Files { cert: PathBuf },
    Other(serde::de::IgnoredAny),
}

/// Where a secret comes from.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Source {
    Env { env: String },
    File { file: PathBuf },
    Other(serde::de::IgnoredAny),
}

impl Server {
    /// Reads the table, also out of a file that is not TOML elsewhere.
    ///
    /// # Errors
    /// If the file or the table cannot be read.
    pub(super) fn read(file: &Path) -> Result<Self> {
        let (text, _) = crate::config::read_text(file, crate::config::CONFIG_BYTES_MAX).map_err(|e| {
            Fault::usage(format!("cannot read {}", file.display()))
                .cause(e)
                .advice("Name the configuration with `-c FILE`, or the server with `--url`.")
        })?;
        let (parsed, note) = match toml::from_str::<File>(&text) {
            Ok(parsed) => (parsed, None),
            Err(error) => match own_part(&text).and_then(|part| toml::from_str::<File>(&part).ok()) {
                Some(parsed) => (parsed, Some(faulty(file, &text, &error))),
                None => {
                    return Err(Fault::new(format!("{} is not a configuration", file.display()))
                        .cause(error)
                        .advice("`doorbell check` shows every fault; `--url` and `--token` work without the file.")
                        .into());
                }
            },
        };
        let dir = file.parent().map(Path::to_path_buf).unwrap_or_default();
        Ok(Self { dir, note, ..parsed.server })
    }

    /// The file whose first certificate it shows.
    pub(super) fn certificate(&self) -> Option<PathBuf> {
        match &self.tls {
            Some(Tls::Files { cert }) => Some(self.dir.join(cert)),
            Some(Tls::Other(_)) | None => None,
        }
    }

    /// Where it can be reached from this machine.
    ///
    /// # Errors
    /// If `listen` does not tell.
    pub(super) fn url(&self, listen_env: Option<&str>) -> Result<Url> {
        let listen = listen_env.or(self.listen.as_deref()).unwrap_or(DEFAULT_LISTEN);
        let numbers = listen.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
        let address: SocketAddr =
            numbers.as_deref().unwrap_or(listen).parse().map_err(|e: std::net::AddrParseError| {
                Fault::usage(format!("`listen` is `{listen}`, which is no address with a port")).cause(e)
            })?;
        if address.port() == 0 {
            return Err(Fault::usage("the server listens on a port that the system chose")
                .advice("Take it from what the server printed and give it with `--url http://127.0.0.1:PORT`.")
                .into());
        }
        let host = match address.ip() {
            ip if !ip.is_unspecified() => ip,
            std::net::IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        };
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", SocketAddr::new(host, address.port()));
        Url::parse(&url).with_context(|| format!("`{url}` is not an address"))
    }

    /// What the file names, else the token that the server made on its first start. None if that is not there (yet).
    ///
    /// # Errors
    /// If it may not be read.
    pub(super) fn token(&self, env: &Env) -> Result<Option<Secret>> {
        match &self.admin_token {
            Some(Source::Env { env: name }) => {
                if let Some(token) = env.get(name).filter(|v| !v.is_empty()) {
                    return Ok(Some(Secret::new(token)));
                }
            }
            Some(Source::File { file }) => return read_token(&self.dir.join(file)),
            Some(Source::Other(_)) | None => {}
        }
        let data_dir = self.data_dir.clone().unwrap_or_else(|| DEFAULT_DATA_DIR.into());
        read_token(&self.dir.join(data_dir).join("admin.token"))
    }
}

fn read_token(file: &Path) -> Result<Option<Secret>> {
    match crate::config::read_text(file, TOKEN_BYTES_MAX) {
        Ok((text, _)) => Ok(Some(Secret::new(text.trim()))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Fault::new(format!("cannot read the token in {}", file.display()))
            .cause(e)
            .advice("It belongs to the user that runs the server: become that user, or give `--token`.")
            .into()),
    }
}

/// The `[server]` table by itself, with the tables below it. None where it cannot be told for sure which lines those are.
fn own_part(text: &str) -> Option<String> {
    let is_own = |line: &str| line.starts_with("[server]") || line.starts_with("[server.");
    match text.lines().filter(|line| line.starts_with("[server]")).count() {
        0 if !text.contains("server") => return Some(String::new()),
        1 => {}
        _ => return None,
    }
    let mut is_inside = false;
    let mut part = String::new();
    for line in text.lines() {
        if line.starts_with('[') {
            is_inside = is_own(line);
        }
        if is_inside {
            part.push_str(line);
            part.push('\n');
        }
    }
    Some(part)
}

fn faulty(file: &Path, text: &str, error: &toml::de::Error) -> String {
    let at = error.span().and_then(|span| text.get(..span.start)).map_or(1, |before| 1 + before.matches('\n').count());
    let why = error.message().lines().next().unwrap_or_default();
    format!(
        "note: {}:{at} has a fault ({why}), so a server that runs goes on with what it had before. This goes on with its \
         [server] table; `doorbell check` shows every fault.",
        file.display()
    )
}
