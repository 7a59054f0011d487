//! The demo's house: a temporary directory with configuration, secrets and agent, and the real server in a process of its
//! own on it. Dropping it ends the server and removes the directory.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use doorbell_core::Clock;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::super::Context;
use super::super::access::Access;
use super::super::client::Client;
use super::super::fault::Fault;
use super::script::Becomes;
use super::stage::Scene;
use crate::config::Resolved;

/// A server that is not ready by then will not be.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// What a soft stop may take before it becomes a hard one.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// Somebody else may take the free port in between; then another is tried.
const PORTS_TRIED: u32 = 5;

/// See the module.
pub(super) struct House {
    /// The configuration file.
    pub config: PathBuf,
    /// The same, resolved: it knows the senders and their secrets.
    pub resolved: Resolved,
    /// Speaks to the server.
    pub client: Client,
    server: Child,
    // Last: the server must be gone before its directory is.
    dir: TempDir,
}

impl House {
    /// Builds it and starts the server.
    ///
    /// # Errors
    /// If the directory cannot be written or the server does not become ready; its log is part of the error.
    pub(super) async fn open(port: Option<u16>, cx: &Context) -> Result<Self> {
        let dir =
            tempfile::Builder::new().prefix("doorbell-demo-").tempdir().context("cannot make a temporary directory")?;
        furnish(dir.path(), &cx.clock)?;
        let config = dir.path().join("doorbell.toml");
        let mut tried = 0;
        let (server, client) = loop {
            tried += 1;
            write_config(dir.path(), port)?;
            match start(dir.path(), &config, cx).await {
                Ok(started) => break started,
                // A port that was asked for is not exchanged for another.
                Err(_) if port.is_none() && tried < PORTS_TRIED => {}
                Err(error) => return Err(error),
            }
        };
        let quiet = Context { env: super::super::Env::new(), ..cx.clone() };
        let resolved = super::super::resolved(&config, &quiet).await?;
        Ok(Self { config, resolved, client, server, dir })
    }

    /// Stops the server, softly at first.
    pub(super) async fn stop(&mut self) {
        let pid = self.server.id().and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(pid) = pid {
            // It may be gone already; that is what is wanted.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        if tokio::time::timeout(STOP_WITHIN, self.server.wait()).await.is_err() {
            let _ = self.server.kill().await;
        }
    }

    /// The commands to look around with. They are short enough for 80 columns: broken lines cannot be copied.
    pub(super) fn look_further(&self, scenes: &[Scene]) -> String {
        let run = scenes.iter().find_map(|s| s.run_id.clone()).unwrap_or_else(|| "run_…".into());
        let rejected = scenes.iter().find(|s| s.decision.as_deref() == Some(Becomes::Rejected.decision()));
        let decision = rejected.and_then(|s| s.decision_id.clone()).unwrap_or_else(|| "dec_…".into());
        format!(
            "Look further, in another terminal:
  cd {dir}
  doorbell runs
  doorbell runs show {run}
  doorbell runs logs {run}
  doorbell decisions show {decision}
  doorbell send review-pull-requests
  curl -H \"Authorization: Bearer $(cat data/admin.token)\" \\
    {base}/api/v1/runs
The server's log is {log} there, beside its configuration and its agent.

Serving until Ctrl-C; then all of it is removed.",
            dir = self.dir.path().display(),
            base = self.client.base(),
            log = LOG_FILE,
        )
    }
}

/// The server's log, in its directory.
const LOG_FILE: &str = "server.log";

fn log_file(dir: &Path) -> PathBuf {
    dir.join(LOG_FILE)
}

fn access(config: &Path) -> Access {
    Access { config: Some(config.to_owned()), ..Access::default() }
}

/// The agent and the secrets, which only the owner can read.
fn furnish(dir: &Path, clock: &Clock) -> Result<()> {
    std::fs::write(dir.join("agent.sh"), include_str!("agent.sh")).context("cannot write the agent")?;
    let secrets = dir.join("secrets");
    std::fs::create_dir(&secrets).context("cannot make the directory of the secrets")?;
    for (name, secret) in [
        ("github", hex::encode(random(clock))),
        ("stripe", format!("whsec_{}", hex::encode(random(clock)))),
        ("slack", hex::encode(&random(clock)[..16])),
        ("standard-webhooks", format!("whsec_{}", STANDARD.encode(random(clock)))),
    ] {
        let mut file = std::fs::File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(secrets.join(name))
            .with_context(|| format!("cannot write the secret of {name}"))?;
        writeln!(file, "{secret}").with_context(|| format!("cannot write the secret of {name}"))?;
    }
    Ok(())
}

fn random(clock: &Clock) -> Vec<u8> {
    (0..4).flat_map(|_| clock.random().to_le_bytes()).collect()
}

fn write_config(dir: &Path, port: Option<u16>) -> Result<()> {
    let port = match port {
        Some(port) => port,
        None => {
            let free = std::net::TcpListener::bind(("127.0.0.1", 0)).and_then(|l| l.local_addr());
            free.context("there is no free port on 127.0.0.1")?.port()
        }
    };
    let text = include_str!("doorbell.toml")
        .replace("{listen}", &format!("127.0.0.1:{port}"))
        .replace("{dir}", &dir.display().to_string());
    std::fs::write(dir.join("doorbell.toml"), text).context("cannot write the configuration")
}

/// Starts the server and waits until it is ready.
async fn start(dir: &Path, config: &Path, cx: &Context) -> Result<(Child, Client)> {
    let program = std::env::current_exe().context("cannot find the program's own file")?;
    let log = std::fs::File::create(log_file(dir)).context("cannot write the server's log")?;
    let errors = log.try_clone().context("cannot write the server's log")?;
    // Nothing of `DOORBELL_…` must change what the demo serves.
    let kept = cx
        .env
        .iter()
        .filter(|(name, _)| matches!(name.as_str(), "PATH" | "HOME" | "TMPDIR" | "LANG" | "TZ" | "DOORBELL_LOG"));
    let mut server = Command::new(program)
        .arg("serve")
        .arg("-c")
        .arg(config)
        .current_dir(dir)
        .env_clear()
        .envs(kept)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .kill_on_drop(true)
        .spawn()
        .context("cannot start the server")?;
    // An address of the person's own environment is another server's.
    let quiet = Context { env: super::super::Env::new(), ..cx.clone() };
    let problem = tokio::select! {
        client = answering(config, &quiet) => return Ok((server, client)),
        _ = server.wait() => "the server ended at once",
        () = tokio::time::sleep(READY_WITHIN) => "the server does not become ready",
    };
    let said = std::fs::read_to_string(log_file(dir)).unwrap_or_default();
    Err(Fault::new(problem).cause(said.trim().to_owned()).into())
}

/// A client, once the server answers. That it takes the token of our own directory tells it from another server that has
/// the same port.
async fn answering(config: &Path, cx: &Context) -> Client {
    loop {
        if let Ok(client) = access(config).client(cx)
            && client.page("ready").await.is_ok()
            && client.get("agents", &[]).await.is_ok()
        {
            return client;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secrets_of_the_demo_are_for_their_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        furnish(dir.path(), &Clock::system()).unwrap();
        let secrets: Vec<_> = std::fs::read_dir(dir.path().join("secrets")).unwrap().flatten().collect();
        assert_eq!(secrets.len(), 4);
        for secret in secrets {
            assert_eq!(secret.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}
