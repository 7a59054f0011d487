//! `doorbell check`: everything that is wrong with a configuration, at once, before anything is started.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use doorbell_core::Clock;
use doorbell_core::seal::SecretName;
use doorbell_core::source::Source;
use serde_json::json;

use super::Env;
use super::screen::Screen;
use super::serve::read_with;
use crate::app::{check_keys, check_token, data_dir_warnings};
use crate::config::{Disk, Fault, Purpose, Resolved, Severity, StoreAt, World, examine, schema};

const EXAMPLES: &str = "\
Examples:
  doorbell check                          everything that is wrong with doorbell.toml
  doorbell check -c /etc/doorbell.toml    another file
  doorbell check --schema > schema.json   for your editor";

/// Arguments of `doorbell check`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CheckArgs {
    /// The configuration
    #[arg(short, long, value_name = "FILE", default_value = "doorbell.toml")]
    pub(crate) config: PathBuf,
    /// Print the faults as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Print the JSON Schema of the file, for editors, and look at nothing
    #[arg(long, conflicts_with = "json")]
    pub(crate) schema: bool,
}

/// Looks at a configuration. Exits with 1 if there is an error in it.
///
/// # Errors
/// If the file cannot be read.
pub(crate) async fn run(args: CheckArgs, env: Env) -> Result<ExitCode> {
    let screen = Screen::new(&env);
    if args.schema {
        screen.line(serde_json::to_string_pretty(&schema::schema())?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let env = env.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
    let fetch = doorbell_net::Client::new().context("cannot make the HTTP client")?;
    let world = World { env: Arc::new(env), files: Arc::new(Disk), fetch: Arc::new(fetch), clock: Clock::system() };
    let (resolved, mut faults) = read_with(&args.config, &world, Purpose::Check, examine).await?;
    let is_good = faults.iter().all(|f| f.severity != Severity::Error);
    let resolved = resolved.map(Arc::new);
    if let Some(resolved) = resolved.clone() {
        let told = faults.clone();
        let file = args.config.display().to_string();
        let found = tokio::task::spawn_blocking(move || {
            let mut found = surroundings(&resolved, &told);
            if is_good {
                found.extend(idle(&file, &resolved));
            }
            found
        });
        faults.extend(found.await.context("looking around broke off")?);
        faults.sort_by_key(|f| (f.line, f.column));
    }
    let errors = faults.iter().filter(|f| f.severity == Severity::Error).count();
    let warnings = faults.len() - errors;
    if args.json {
        let printed = json!({"ok": errors == 0, "errors": errors, "warnings": warnings, "faults": faults});
        screen.line(serde_json::to_string_pretty(&printed)?)?;
    } else {
        faults.iter().try_for_each(|fault| screen.line(fault))?;
        let good = resolved.filter(|_| is_good);
        if let Some(resolved) = good.clone() {
            let notes =
                tokio::task::spawn_blocking(move || stored(&resolved)).await.context("looking around broke off")?;
            notes.into_iter().try_for_each(|note| screen.line(note))?;
        }
        let summary = good.map_or_else(String::new, |resolved| summary(&resolved));
        let file = args.config.display();
        screen.line(match errors {
            0 => format!("{file} is good: {summary}, {}", count(warnings, "warning")),
            _ => format!("{file} cannot be used: {}, {}", count(errors, "error"), count(warnings, "warning")),
        })?;
    }
    Ok(if errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Secrets that have to be brought to the server, and are not there yet. Called on a thread that may block.
fn stored(resolved: &Resolved) -> Vec<String> {
    let webhooks = resolved.sources.iter().filter_map(|s| s.webhook().map(|w| (s, w)));
    let named = webhooks.flat_map(|(source, webhook)| webhook.verifier.stored().map(move |name| (source, name)));
    let StoreAt::Sqlite(file) = &resolved.store;
    // What cannot be looked into says nothing against it.
    let is_there = |name: &SecretName| {
        file.exists() && doorbell_store::secrets_of(file, name).is_ok_and(|versions| !versions.is_empty())
    };
    let tell = |(source, name): (&Source, &SecretName)| match name.within("user") {
        Some(name) => format!("source {}: its secret comes from the store: doorbell secrets set {name}", source.name),
        None => format!(
            "source {}: its sender hands over its secret, once: doorbell sources pair {}",
            source.name, source.name
        ),
    };
    named.filter(|(_, name)| !is_there(name)).map(tell).collect()
}

/// What the file does not say but its use needs: that the directories can be written, the certificate fits its key, and the
/// master key opens what the store holds. What was told of a key is not told again. Called on a thread that may block.
fn surroundings(resolved: &Resolved, told: &[Fault]) -> Vec<Fault> {
    let is_told = |key: &str| told.iter().any(|f| f.severity == Severity::Error && f.key.starts_with(key));
    let (server, places) = (&resolved.server, &resolved.places);
    let error = |key: &str, problem: String, advice: String| places.fault(Severity::Error, key, problem, advice);
    let open = data_dir_warnings(server).into_iter().filter(|_| !is_told("server.data_dir"));
    let mut faults: Vec<Fault> =
        open.map(|problem| places.fault(Severity::Warning, "server.data_dir", problem, "")).collect();
    let StoreAt::Sqlite(store) = &resolved.store;
    let store_dir = store.parent().map(PathBuf::from).unwrap_or_default();
    let mut seen = BTreeSet::new();
    for (key, dir) in [("server.data_dir", &server.data_dir), ("store.url", &store_dir)] {
        // The nearest directory that is there decides: the rest is made on the first start.
        let Some(nearest) = dir.ancestors().find(|d| d.exists()).filter(|_| !is_told(key)) else { continue };
        // Without a URL of its own the store is in the data directory.
        if !seen.insert(nearest) {
            continue;
        }
        if !nearest.is_dir() {
            let problem = format!("`{}` is a file, not a directory", nearest.display());
            faults.push(error(key, problem, "Name another path.".into()));
        } else if !is_writable(nearest) {
            let problem = format!("`{}` cannot be written by this user", nearest.display());
            faults.push(error(key, problem, "Name another path, or change its owner.".into()));
        }
    }
    let tls = server.tls.as_ref().filter(|_| !is_told("server.tls"));
    if let Some(Err(why)) = tls.map(|tls| doorbell_server::Tls::from_pem_files(&tls.cert, &tls.key)) {
        faults.push(error("server.tls", why.to_string(), String::new()));
    }
    if !is_told("server.data_dir") && !is_told("server.admin_token") {
        let wrong = check_token(server).err();
        faults.extend(wrong.map(|why| error("server.data_dir", why.to_string(), String::new())));
    }
    if !["server.data_dir", "server.master_key", "store.url"].iter().any(|key| is_told(key)) {
        // A start says both in one line.
        let in_two = |text: String| match text.split_once(". ") {
            Some((problem, advice)) => (problem.to_owned(), format!("{}.", advice.trim_end_matches('.'))),
            None => (text, String::new()),
        };
        let wrong = check_keys(server, &resolved.store).err().map(|why| in_two(why.to_string()));
        faults.extend(wrong.map(|(problem, advice)| error("server.master_key", problem, advice)));
    }
    faults
}

/// A file that makes a Doorbell without work: good, but hardly what somebody wants.
fn idle(file: &str, resolved: &Resolved) -> Vec<Fault> {
    let warning = |problem: &str| Fault::whole_file(Severity::Warning, file.to_owned(), problem);
    let agents = resolved.agents.is_empty().then(|| warning("the file names no agent, so nothing can be run"));
    let sources = resolved.sources.is_empty().then(|| warning("the file names no source, so no webhook is taken"));
    agents.into_iter().chain(sources).collect()
}

#[cfg(unix)]
fn is_writable(path: &std::path::Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok()
}

#[cfg(not(unix))]
fn is_writable(path: &std::path::Path) -> bool {
    std::fs::metadata(path).is_ok_and(|m| !m.permissions().readonly())
}

fn summary(resolved: &Resolved) -> String {
    let triggers: usize = resolved.sources.iter().map(|s| s.triggers.len()).sum();
    format!(
        "{}, {}, {}",
        count(resolved.agents.len(), "agent"),
        count(resolved.sources.len(), "source"),
        count(triggers, "trigger")
    )
}

fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}
