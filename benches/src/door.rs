//! The programs under test, started as a user would start them: the real `doorbell` binary with a configuration of its
//! own in a temporary directory, and a bare axum handler in a process of its own.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::client::SECRET;

/// The admin token of the measured server.
const TOKEN: &str = "bench-token-bench-token-bench-token";

/// A started program; ended when dropped.
pub(crate) struct Program {
    child: Child,
    pub addr: SocketAddr,
    dir: Option<tempfile::TempDir>,
}

impl Program {
    /// The directory its data is in.
    pub(crate) fn dir(&self) -> Option<&Path> {
        self.dir.as_ref().map(tempfile::TempDir::path)
    }

    /// Resident memory, in bytes.
    pub(crate) fn resident(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.split_whitespace().nth(1).context("no number")?.parse()?;
        Ok(kib * 1024)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The part of the configuration that a measure brings.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// The `[agents.bench]` table's lines.
    pub agent: String,
    /// More lines for `[triggers.bench]`.
    pub trigger: String,
}

impl Setup {
    /// An agent that is held, so that only the door works.
    pub(crate) fn held(trigger: &str) -> Self {
        Self { agent: "runner = \"process\"\ncommand = [\"/bin/true\"]\npaused = true".into(), trigger: trigger.into() }
    }
}

/// The release binary beside this one.
pub(crate) fn binary() -> anyhow::Result<PathBuf> {
    let me = std::env::current_exe()?;
    let path = me.parent().context("no directory")?.join("doorbell");
    if !path.exists() {
        bail!("{} is missing: run `cargo build --release -p doorbell` first", path.display());
    }
    Ok(path)
}

/// Where the data goes: the working directory's disk, not a RAM disk.
pub(crate) fn data_home() -> anyhow::Result<PathBuf> {
    let me = std::env::current_exe()?;
    let home = me.parent().context("no directory")?.join("bench-data");
    std::fs::create_dir_all(&home)?;
    Ok(home)
}

/// Starts Doorbell with one GitHub source at `/hooks/bench`.
pub(crate) async fn start(setup: &Setup) -> anyhow::Result<Program> {
    let dir = tempfile::tempdir_in(data_home()?)?;
    let addr = free_addr()?;
    let config = format!(
        "[server]\nlisten = \"{addr}\"\ndata_dir = \"data\"\nadmin_token = {{ env = \"BENCH_TOKEN\" }}\n\
         [agents.bench]\n{}\n[triggers.bench]\nagent = \"bench\"\nprovider = \"github\"\n\
         max_queued = 100000000\nsecret = {{ env = \"BENCH_SECRET\" }}\n{}\n",
        setup.agent, setup.trigger
    );
    let file = dir.path().join("doorbell.toml");
    std::fs::write(&file, config)?;
    // Not beside the configuration: that directory is watched.
    std::fs::create_dir(dir.path().join("logs"))?;
    let log = std::fs::File::create(dir.path().join("logs/log"))?;
    let child = Command::new(binary()?)
        .arg("serve")
        .arg("-c")
        .arg(&file)
        .env("BENCH_TOKEN", TOKEN)
        .env("BENCH_SECRET", SECRET)
        .current_dir(dir.path())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()?;
    let program = Program { child, addr, dir: Some(dir) };
    wait_ready(&program).await?;
    Ok(program)
}

async fn wait_ready(program: &Program) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        if get(program.addr, "/ready").await.is_ok_and(|status| status == 200) {
            return Ok(());
        }
        if began.elapsed() > Duration::from_secs(60) {
            let log = program.dir().map(|d| std::fs::read_to_string(d.join("logs/log")).unwrap_or_default());
            bail!("doorbell did not get ready: {}", log.unwrap_or_default());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The status of a GET.
pub(crate) async fn get(addr: SocketAddr, path: &str) -> anyhow::Result<u16> {
    Ok(ask(addr, "GET", path).await?.0)
}

/// The text of a GET.
pub(crate) async fn get_text(addr: SocketAddr, path: &str) -> anyhow::Result<String> {
    Ok(ask(addr, "GET", path).await?.1)
}

/// A POST without a body; an error unless it is answered 2xx.
pub(crate) async fn post(addr: SocketAddr, path: &str) -> anyhow::Result<()> {
    match ask(addr, "POST", path).await? {
        (200..=299, _) => Ok(()),
        (status, text) => bail!("{path} answered {status}: {text}"),
    }
}

/// Attempts that succeeded so far. A counter, since `/health` looks at the queues once a second.
pub(crate) async fn succeeded(addr: SocketAddr) -> anyhow::Result<u64> {
    let metrics = get_text(addr, "/metrics").await?;
    let is_ours = |line: &&str| line.starts_with("doorbell_attempts_total{") && line.contains("state=\"succeeded\"");
    let count = |line: &str| line.rsplit_once(' ').and_then(|(_, count)| count.parse::<u64>().ok());
    Ok(metrics.lines().filter(is_ours).filter_map(count).sum())
}

async fn ask(addr: SocketAddr, method: &str, path: &str) -> anyhow::Result<(u16, String)> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(addr).await?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\nauthorization: Bearer {TOKEN}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    let status = head.get(9..12).and_then(|s| s.parse().ok()).context("no status line")?;
    Ok((status, body.to_owned()))
}

/// Starts the bare handler in a process of its own.
pub(crate) fn start_bare() -> anyhow::Result<Program> {
    start_me_as("bare")
}

/// Starts the least that a door does in a process of its own.
pub(crate) fn start_floor() -> anyhow::Result<Program> {
    start_me_as("floor")
}

fn start_me_as(what: &str) -> anyhow::Result<Program> {
    let mut child = Command::new(std::env::current_exe()?).arg(what).stdout(Stdio::piped()).spawn()?;
    let out = child.stdout.take().context("no stdout")?;
    let mut line = String::new();
    BufReader::new(out).read_line(&mut line)?;
    let addr = line.trim().parse().with_context(|| format!("the {what} handler did not print its address"))?;
    Ok(Program { child, addr, dir: None })
}

/// A handler that reads the body, answers 202 and does nothing; also the no-op agent at `/agent`.
#[allow(clippy::print_stdout, reason = "tells its parent where it listens")]
pub(crate) async fn serve_bare() -> anyhow::Result<()> {
    use axum::http::StatusCode;
    use axum::routing::post;
    let app = axum::Router::new()
        .route(
            "/hooks/bench",
            post(|_: axum::body::Bytes| async { (StatusCode::ACCEPTED, "{\"status\":\"accepted\"}") }),
        )
        .route("/agent", post(|_: axum::body::Bytes| async { "{\"ok\":true}" }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}

/// Memory of a server that has just started and one that has rested.
#[allow(clippy::print_stdout, reason = "the result")]
pub(crate) async fn measure_memory() -> anyhow::Result<()> {
    let program = start(&Setup::held("")).await?;
    let mut last = 0;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(250)).await;
        last = program.resident()?;
    }
    println!("idle memory: {:.1} MB (aim: under 30)", last as f64 / 1e6);
    Ok(())
}

fn free_addr() -> anyhow::Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
