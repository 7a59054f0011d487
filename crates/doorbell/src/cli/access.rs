//! How a command finds the running Doorbell: `--url` and `--token`, else the `[server]` table of the file given with `-c`,
//! else `DOORBELL_URL` and `DOORBELL_ADMIN_TOKEN`, else `doorbell.toml` here. Only that table is read, so that a fault
//! elsewhere in the file does not keep anybody from looking at the server that is running.

mod server;

use std::path::PathBuf;

use anyhow::Result;
use doorbell_core::Secret;
use url::Url;

use super::client::{Client, Whom, is_loopback};
use super::fault::Fault;
use super::{Context, Env};
use server::Server;

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

/// What was found out.
struct Found {
    url: Url,
    token: Option<Secret>,
    /// The server's own certificate, where the file tells of both: then nothing else is trusted.
    certificate: Option<PathBuf>,
    /// What a person should know of the file.
    note: Option<String>,
}

impl Access {
    /// A client for that Doorbell.
    ///
    /// # Errors
    /// If the file cannot be read or the address makes no sense.
    pub(super) fn client(&self, cx: &Context) -> Result<Client> {
        let Found { url, token, certificate, note } = self.resolve(&cx.env)?;
        if let Some(note) = note {
            cx.screen.remark(note);
        }
        Client::new(Whom { base: url, whence: self.whence(&cx.env), certificate }, token)
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

    fn resolve(&self, env: &Env) -> Result<Found> {
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
        let note = server.note.clone().filter(|_| named.is_none() || self.config.is_some());
        let certificate = server.certificate().filter(|_| named.is_none());
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
        Ok(Found { url, token, certificate, note })
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
        let Found { url, token, .. } = access.resolve(env).unwrap();
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
