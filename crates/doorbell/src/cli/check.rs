//! `doorbell check`: everything that is wrong with a configuration, at once, before anything is started.

mod surroundings;

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
            let mut found = surroundings::faults(&resolved, &told);
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

/// A file that makes a Doorbell without work: good, but hardly what somebody wants.
fn idle(file: &str, resolved: &Resolved) -> Vec<Fault> {
    let warning = |problem: &str| Fault::whole_file(Severity::Warning, file.to_owned(), problem);
    let agents = resolved.agents.is_empty().then(|| warning("the file names no agent, so nothing can be run"));
    let sources = resolved.sources.is_empty().then(|| warning("the file names no source, so no webhook is taken"));
    agents.into_iter().chain(sources).collect()
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
