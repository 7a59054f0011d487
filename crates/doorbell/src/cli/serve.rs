//! `doorbell serve`: the server, from the first line of the configuration to the last signal.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::future::pending;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use doorbell_core::Clock;
use doorbell_server::contracts::CONTRACT;
use doorbell_server::contracts::agentex::{KEYS, REGISTER};
#[cfg(target_os = "linux")]
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use tokio_util::sync::CancellationToken;

use super::Env;
use super::fault::Fault as Failed;
use super::screen::{Screen, span_ms};
use crate::app::telemetry::{self, LogFormat};
use crate::app::{App, Fatal, Plan, Signal, Signals, TokenPlace, Watcher};
use crate::config::{self, Disk, Fault, Input, Purpose, Resolved, Severity, World};

/// The file that is taken when none is named.
const DEFAULT_CONFIG: &str = "doorbell.toml";

const EXAMPLES: &str = "\
Examples:
  doorbell serve                              with ./doorbell.toml
  doorbell serve -c /etc/doorbell.toml --log-format json
  DOORBELL_LOG=doorbell_core=debug,info doorbell serve      tells accepted events too

A changed file is taken while it runs; SIGTERM lets runs at work end.";

/// Arguments of `doorbell serve`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ServeArgs {
    /// The configuration
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub(crate) config: PathBuf,
    /// Only accept events, run nothing (needs PostgreSQL, which comes in a later version)
    #[arg(long, hide = true)]
    pub(crate) accept_only: bool,
    /// Only run agents, accept nothing (needs PostgreSQL, which comes in a later version)
    #[arg(long, hide = true)]
    pub(crate) work_only: bool,
    /// How logs are written, on standard error
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) log_format: LogFormat,
}

/// Serves until a signal or a failure ends it.
///
/// # Errors
/// If it cannot start, or the store failed for good.
pub(crate) async fn run(args: ServeArgs, env: Env) -> Result<ExitCode> {
    for (flag, given) in [("--accept-only", args.accept_only), ("--work-only", args.work_only)] {
        if given {
            let what = format!("{flag} splits the work between processes, which needs PostgreSQL");
            return Err(Failed::usage(what).advice("That comes in a later version. Leave it out.").into());
        }
    }
    telemetry::logs(env.get("DOORBELL_LOG").map(String::as_str), args.log_format)?;
    close_memory();
    let screen = Screen::new(&env);
    let signals = Signals::listen().context("cannot listen for signals")?;
    let world = world(env)?;
    let resolved = match load(&args.config, &world, Purpose::Serve).await? {
        Ok(resolved) => resolved,
        Err(faults) => {
            screen.remark(format!("{}\n", Screen::of_errors().wrapped(&told(&faults), 4)));
            let what = format!("{} cannot be used: nothing was started", args.config.display());
            return Err(Failed::new(what).advice("`doorbell check` shows the same faults.").into());
        }
    };
    for warning in &resolved.warnings {
        tracing::warn!("{}", warning.without_severity());
    }
    let watcher = Watcher::new(watched(&args.config, &resolved));
    let grace = resolved.server.shutdown_grace;
    let app = App::start(Plan { resolved, clock: world.clock.clone(), metrics: telemetry::metrics() }).await?;
    // A reader that went away is no reason to stop serving.
    let _ = screen.line(screen.wrapped(&greeting(&app), 12));
    let (hurry, end) = attend(&app, &args.config, &world, (signals, watcher)).await;
    app.stop(grace, hurry).await;
    match end {
        End::Asked => Ok(ExitCode::SUCCESS),
        End::Failed(why) => Err(failed(why).into()),
    }
}

/// Closes our memory and our environment, where the secrets are, to other processes of this user: agents run as the same one and
/// could read `/proc/<pid>/environ`. Ends core dumps too. A program that we start has its own again.
fn close_memory() {
    #[cfg(target_os = "linux")]
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "agents of this user can read the server's environment: run them in a container");
    }
}

/// What a person has to do about a failure that ended the program.
fn failed(why: Fatal) -> Failed {
    let what = format!("{why}, so Doorbell stopped");
    match why {
        Fatal::Store(cause) => Failed::new(what).cause(cause).advice(
            "Look at the disk and at the log, then start again: what was accepted is on the disk. If the file is damaged, keep \
             a copy of it and restore a backup (doorbell restore).",
        ),
        Fatal::Moved(_) => Failed::new(what).advice(
            "Put the data directory back where it was, or restore a backup (doorbell restore), then start again. Started \
             without either, Doorbell begins with an empty store, and what was accepted is gone.",
        ),
    }
}

/// Everything outside, from the environment as it was when the process started.
fn world(env: Env) -> Result<World> {
    let env = env.into_iter().map(|(k, v)| (OsString::from(k), OsString::from(v))).collect();
    let fetch = doorbell_net::Client::new().context("cannot make the HTTP client")?;
    Ok(World { env: Arc::new(env), files: Arc::new(Disk), fetch: Arc::new(fetch), clock: Clock::system() })
}

/// Why serving ended.
enum End {
    Asked,
    Failed(Fatal),
}

/// Goes from one happening to the next until it has to end. The token asks to end at once; it is cancelled by the second
/// signal.
async fn attend(app: &App, file: &Path, world: &World, ears: (Signals, Watcher)) -> (CancellationToken, End) {
    let (mut signals, mut watcher) = ears;
    let hurry = CancellationToken::new();
    loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::Reload => reload(app, file, world, &mut watcher, Cause::Signal).await,
                Signal::Stop => {
                    tracing::info!("{}", awaited(app));
                    break;
                }
            },
            () = watcher.changed() => reload(app, file, world, &mut watcher, Cause::Change).await,
            error = app.failed() => {
                hurry.cancel();
                return (hurry, End::Failed(error));
            }
        }
    }
    let ask = hurry.clone();
    tokio::spawn(async move {
        loop {
            if signals.next().await == Signal::Stop {
                tracing::info!(
                    "Asked a second time: what is at work is ended now, and tried again after the next start"
                );
                ask.cancel();
                pending::<()>().await;
            }
        }
    });
    (hurry, End::Asked)
}

/// What a soft stop waits for, how long, and how it is cut short.
fn awaited(app: &App) -> String {
    const SHOWN: usize = 5;
    let runs = app.at_work();
    if runs.is_empty() {
        return "Asked to stop: no run is at work".to_owned();
    }
    let grace = span_ms(app.shutdown_grace().as_millis());
    let mut shown: Vec<String> = runs.iter().take(SHOWN).map(ToString::to_string).collect();
    if runs.len() > SHOWN {
        shown.push(format!("{} more", runs.len() - SHOWN));
    }
    let (noun, them, they, are) =
        if runs.len() == 1 { ("run", "it", "it", "is") } else { ("runs", "them", "they", "are") };
    format!(
        "Asked to stop: waiting up to {grace} for {} {noun} at work ({}). Ctrl-C or SIGTERM again does not wait: it ends {them} \
         at once, and {they} {are} tried again after the next start, without counting as an attempt",
        runs.len(),
        shown.join(", ")
    )
}

/// Why the configuration is read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// Somebody asked for it.
    Signal,
    /// A file is not what it was; whoever writes it may be in the middle of it.
    Change,
}

async fn reload(app: &App, file: &Path, world: &World, watcher: &mut Watcher, cause: Cause) {
    match load(file, world, Purpose::Serve).await {
        Ok(Ok(resolved)) if cause == Cause::Change && app.would_close(&resolved) => {
            app.refuse_config(&[no_source(file)]);
        }
        Ok(Ok(resolved)) => {
            watcher.set(watched(file, &resolved));
            app.take_config(resolved);
        }
        Ok(Err(faults)) => app.refuse_config(&faults),
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "The configuration cannot be read, so the old one stays");
            app.status().set_reload_fault(Some(format!("{error:#}")));
        }
    }
}

/// Why a file without any source is not taken by itself: emptied or half written, it is good TOML too.
fn no_source(file: &Path) -> Fault {
    let problem = "the file names no source; send SIGHUP if that is meant";
    Fault::whole_file(Severity::Error, file.display().to_string(), problem)
}

fn watched(file: &Path, resolved: &Resolved) -> Vec<PathBuf> {
    std::iter::once(file.to_path_buf()).chain(resolved.reads.iter().cloned()).collect()
}

/// Reads and resolves a file, off the runtime: compiling expressions takes milliseconds each.
pub(super) async fn load(file: &Path, world: &World, purpose: Purpose) -> Result<Result<Resolved, Vec<Fault>>> {
    read_with(file, world, purpose, config::resolve).await
}

/// Reads a configuration's file and hands it on.
pub(super) async fn read_with<T: Send + 'static>(
    file: &Path,
    world: &World,
    purpose: Purpose,
    read: fn(Input<'_>, &World) -> T,
) -> Result<T> {
    let (file, world) = (file.to_path_buf(), world.clone());
    let read = move || {
        let (text, _) = config::read_text(&file, config::CONFIG_BYTES_MAX).map_err(|error| {
            let advice = match error.kind() {
                ErrorKind::NotFound => "`doorbell init` writes one, and -c names another.",
                ErrorKind::InvalidData => "An editor can save it as UTF-8, or: iconv -f LATIN1 -t UTF-8 FILE",
                _ => "-c names another.",
            };
            Failed::new(format!("cannot read {}", file.display())).cause(error).advice(advice)
        })?;
        let base = file.parent().unwrap_or(Path::new("")).to_path_buf();
        let base = std::path::absolute(&base).or_else(|_| std::path::absolute(".")).unwrap_or(base);
        let name = file.display().to_string();
        Ok(read(Input { text: &text, file: &name, base: &base, purpose }, &world))
    };
    tokio::task::spawn_blocking(read).await.context("reading the configuration broke off")?
}

pub(super) fn told(faults: &[Fault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// What a person wants to know once it runs.
fn greeting(app: &App) -> String {
    let url = app.url();
    let catalog = app.house().catalog();
    let mut lines = vec![match app.addr() {
        everywhere if everywhere.ip().is_unspecified() => format!("Doorbell listens on {url} ({everywhere})"),
        _ => format!("Doorbell listens on {url}"),
    }];
    let mut row = |label: &str, text: String| lines.push(format!("  {label:<9} {text}"));
    for source in catalog.sources.values() {
        // What only a contract rings lets nobody in on its own path.
        let Some(webhook) = source.webhook().filter(|w| w.preset.id != CONTRACT) else { continue };
        let triggers: Vec<&str> = source.triggers.iter().map(|t| t.name.as_str()).collect();
        let to = if triggers.is_empty() { "no trigger".to_owned() } else { triggers.join(", ") };
        row("webhook", format!("{url}{}  ({} -> {to})", webhook.path, webhook.preset.name));
    }
    let mut keys = BTreeSet::new();
    for served in app.served() {
        let base = served.listen.map_or_else(|| url.clone(), |listen| app.url_at(listen));
        let to = match (&served.trigger, &served.forwards_to) {
            (Some(trigger), _) => trigger.to_string(),
            (None, Some(agent)) => format!("passed on to {agent}"),
            (None, None) => "nobody".to_owned(),
        };
        row(served.contract, format!("{base}{}  ({} -> {to})", served.path, served.id));
        keys.extend((served.contract == "agentex").then(|| format!("{base}{KEYS}  (the keys of these agents)")));
    }
    keys.extend(app.registers_at().map(|listen| {
        let base = listen.map_or_else(|| url.clone(), |listen| app.url_at(listen));
        format!("{base}{REGISTER}  (where agents register themselves)")
    }));
    keys.into_iter().for_each(|text| row("agentex", text));
    row("API", format!("{url}/api/v1  (described at {url}/docs)"));
    row("health", format!("{url}/health, /ready, /metrics"));
    row(
        "token",
        match app.token_place() {
            TokenPlace::Given => "the admin token of the configuration".to_owned(),
            TokenPlace::File(path) => format!("in {}", path.display()),
            TokenPlace::Made(path) => format!("in {} (made just now, mode 0600)", path.display()),
        },
    );
    row(
        "log",
        "refusals, attempts and faults; accepted events too with DOORBELL_LOG=doorbell_core=debug,info".to_owned(),
    );
    lines.join("\n")
}
