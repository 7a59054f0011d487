//! How a command finds the running Doorbell: `--url` and `--token`, else the `[server]` table of the file given with `-c`,
//! else `DOORBELL_URL` and `DOORBELL_ADMIN_TOKEN`, else `doorbell.toml` here. Only that table is read, so that a fault
//! elsewhere in the file does not keep anybody from looking at the server that is running.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use doorbell_core::Secret;
use serde::Deserialize;
use url::Url;

use super::Env;
use super::client::{Client, is_loopback};
use super::fault::Fault;

/// Which Doorbell to talk to.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Which Doorbell")]
pub(super) struct Access {
    /// The configuration of the running server; tells its address and token [default: doorbell.toml, if there is one]
    #[arg(short, long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// Its address, such as http://127.0.0.1:8080 [env: DOORBELL_URL]
    #[arg(long, value_name = "URL", global = true, value_parser = address)]
    pub url: Option<Url>,
    /// Its admin token or an API key; better in the environment, where other users do not see it [env: DOORBELL_ADMIN_TOKEN]
    #[arg(long, value_name = "TOKEN", global = true)]
    pub token: Option<String>,
}

/// The file that is taken when none is named.
pub(super) const DEFAULT_CONFIG: &str = "doorbell.toml";
const DEFAULT_LISTEN: &str = "127.0.0.1:8080";
const DEFAULT_DATA_DIR: &str = "doorbell-data";
/// A token is a line; a longer file is something else.
const TOKEN_BYTES_MAX: u64 = 4096;

impl Access {
    /// A client for that Doorbell.
    ///
    /// # Errors
    /// If the file cannot be read or the address makes no sense.
    pub(super) fn client(&self, env: &Env) -> Result<Client> {
        let (url, token) = self.resolve(env)?;
        Client::new(url, self.whence(env), token)
    }

    /// Where the address is from, for the failure that nobody answers there; as [`Access::resolve`] takes it.
    fn whence(&self, env: &Env) -> String {
        let set = |name: &str| env.get(name).is_some_and(|v| !v.is_empty());
        match (&self.url, self.config_file()) {
            (Some(_), _) => "the address of --url".to_owned(),
            (None, _) if self.config.is_none() && set("DOORBELL_URL") => "the address of DOORBELL_URL".to_owned(),
            (None, _) if set("DOORBELL_LISTEN") => "the address of DOORBELL_LISTEN".to_owned(),
            (None, Some(file)) => format!("the address of {}", file.display()),
            (None, None) => format!("the usual address: there is no {DEFAULT_CONFIG} here"),
        }
    }

    /// The configuration file: the one named, else `doorbell.toml` if it is there.
    pub(super) fn config_file(&self) -> Option<PathBuf> {
        self.config.clone().or_else(|| Some(PathBuf::from(DEFAULT_CONFIG)).filter(|p| p.is_file()))
    }

    fn resolve(&self, env: &Env) -> Result<(Url, Option<Secret>)> {
        let set = |name: &str| env.get(name).filter(|v| !v.is_empty());
        let from_env = if self.config.is_some() { None } else { set("DOORBELL_URL") };
        let named = match (&self.url, from_env) {
            (Some(url), _) => Some(url.clone()),
            (None, Some(text)) => Some(address(text).map_err(|_| bad_url(text))?),
            (None, None) => None,
        };
        let server = match self.config_file() {
            // With an address named, a file that merely lies here is no more than a help.
            Some(file) if named.is_some() && self.config.is_none() => Server::read(&file).unwrap_or_default(),
            Some(file) => Server::read(&file)?,
            None => Server::default(),
        };
        let token = self.token.clone().map(Secret::new);
        let url = match named {
            Some(url) => url,
            None => server.url(set("DOORBELL_LISTEN").map(String::as_str))?,
        };
        // A token found in a file opens the machine it lies on; it is not sent anywhere else.
        let near = is_loopback(&url) || (self.url.is_none() && from_env.is_none());
        let token = match token {
            Some(token) => Some(token),
            None if self.config.is_some() && near => {
                server.token(env)?.or_else(|| set("DOORBELL_ADMIN_TOKEN").map(Secret::new))
            }
            None => match set("DOORBELL_ADMIN_TOKEN") {
                Some(token) => Some(Secret::new(token)),
                None if near => server.token(env)?,
                None => None,
            },
        };
        Ok((url, token))
    }
}

/// An address of HTTP, as people write it.
fn address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.host().is_some());
    url.ok_or_else(|| "write it like http://127.0.0.1:8080".to_owned())
}

fn bad_url(text: &str) -> Fault {
    Fault::usage(format!("DOORBELL_URL is `{text}`, which is no address of HTTP"))
        .advice("Write it like http://127.0.0.1:8080.")
}

/// What of the file's `[server]` table tells where it listens and what opens it.
#[derive(Debug, Default, Deserialize)]
struct Server {
    listen: Option<String>,
    data_dir: Option<PathBuf>,
    admin_token: Option<Source>,
    tls: Option<serde::de::IgnoredAny>,
    /// The directory that relative paths start from.
    #[serde(skip)]
    dir: PathBuf,
}

#[derive(Debug, Default, Deserialize)]
struct File {
    #[serde(default)]
    server: Server,
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
    fn read(file: &Path) -> Result<Self> {
        let (text, _) = crate::config::read_text(file, crate::config::CONFIG_BYTES_MAX).map_err(|e| {
            Fault::usage(format!("cannot read {}", file.display()))
                .cause(e)
                .advice("Name the configuration with `-c FILE`, or the server with `--url`.")
        })?;
        let parsed: File = toml::from_str(&text).map_err(|e| {
            Fault::new(format!("{} is not a configuration", file.display()))
                .cause(e)
                .advice("`doorbell check` shows every fault; `--url` and `--token` work without the file.")
        })?;
        let dir = file.parent().map(Path::to_path_buf).unwrap_or_default();
        Ok(Self { dir, ..parsed.server })
    }

    fn url(&self, listen_env: Option<&str>) -> Result<Url> {
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
    fn token(&self, env: &Env) -> Result<Option<Secret>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Env {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn house() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("data")).unwrap();
        std::fs::write(dir.path().join("data/admin.token"), "of-the-file\n").unwrap();
        let config = dir.path().join("doorbell.toml");
        std::fs::write(
            &config,
            "[server]\nlisten = \"0.0.0.0:9001\"\ndata_dir = \"data\"\n[agents.broken]\nrunner = 7\n",
        )
        .unwrap();
        (dir, config)
    }

    fn resolved(access: &Access, env: &Env) -> (String, Option<String>) {
        let (url, token) = access.resolve(env).unwrap();
        (url.to_string(), token.map(|t| t.expose().to_owned()))
    }

    #[test]
    fn a_named_file_tells_address_and_token_even_if_other_tables_are_wrong() {
        let (_dir, config) = house();
        let access = Access { config: Some(config), ..Access::default() };
        let environment = env(&[("DOORBELL_URL", "http://10.0.0.9"), ("DOORBELL_ADMIN_TOKEN", "of-the-env")]);
        assert_eq!(resolved(&access, &environment), ("http://127.0.0.1:9001/".into(), Some("of-the-file".into())));
    }

    #[test]
    fn a_token_from_a_file_is_not_sent_to_another_machine() {
        let (_dir, config) = house();
        let access = Access { config: Some(config), url: Url::parse("http://10.0.0.9").ok(), token: None };
        assert_eq!(resolved(&access, &env(&[])).1, None);
        let near = Access { url: Url::parse("http://localhost:7").ok(), ..access };
        assert_eq!(resolved(&near, &env(&[])).1.as_deref(), Some("of-the-file"));
    }

    #[test]
    fn flags_win_over_everything() {
        let access = Access { config: None, url: Url::parse("http://10.0.0.1:1").ok(), token: Some("mine".into()) };
        let environment = env(&[("DOORBELL_URL", "http://10.0.0.9"), ("DOORBELL_ADMIN_TOKEN", "of-the-env")]);
        assert_eq!(resolved(&access, &environment), ("http://10.0.0.1:1/".into(), Some("mine".into())));
    }

    #[test]
    fn the_environment_names_the_secret_that_the_file_points_to() {
        let (dir, config) = house();
        std::fs::write(&config, "[server]\nadmin_token = { env = \"MY_TOKEN\" }\n").unwrap();
        let access = Access { config: Some(config), ..Access::default() };
        assert_eq!(resolved(&access, &env(&[("MY_TOKEN", "x")])), ("http://127.0.0.1:8080/".into(), Some("x".into())));
        drop(dir);
    }
}
