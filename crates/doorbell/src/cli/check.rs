//! `doorbell check`: everything that is wrong with a configuration, at once, before anything is started.

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
use super::serve::load;
use crate::app::data_dir_warnings;
use crate::config::{Disk, Fault, Purpose, Resolved, Severity, StoreAt, World, schema};

/// Arguments of `doorbell check`.
#[derive(Clone, Debug, clap::Args)]
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
    let outcome = load(&args.config, &world, Purpose::Check).await?;
    let (faults, summary) = match &outcome {
        Ok(resolved) => {
            let mut faults = resolved.warnings.clone();
            faults.extend(surroundings(&args, resolved));
            (faults, summary(resolved))
        }
        Err(faults) => (faults.clone(), String::new()),
    };
    let errors = faults.iter().filter(|f| f.severity == Severity::Error).count();
    let warnings = faults.len() - errors;
    if args.json {
        let printed = json!({"ok": errors == 0, "errors": errors, "warnings": warnings, "faults": faults});
        screen.line(serde_json::to_string_pretty(&printed)?)?;
    } else {
        faults.iter().try_for_each(|fault| screen.line(fault))?;
        outcome.iter().flat_map(stored).try_for_each(|note| screen.line(note))?;
        let file = args.config.display();
        screen.line(match errors {
            0 => format!("{file} is good: {summary}, {}", count(warnings, "warning")),
            _ => format!("{file} cannot be used: {}, {}", count(errors, "error"), count(warnings, "warning")),
        })?;
    }
    Ok(if errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Where secrets will be taken from that only the running server knows.
fn stored(resolved: &Resolved) -> Vec<String> {
    let webhooks = resolved.sources.iter().filter_map(|s| s.webhook().map(|w| (s, w)));
    let named = webhooks.flat_map(|(source, webhook)| webhook.verifier.stored().map(move |name| (source, name)));
    let tell = |(source, name): (&Source, &SecretName)| match name.within("user") {
        Some(name) => format!("source {}: its secret comes from the store: doorbell secrets set {name}", source.name),
        None => format!(
            "source {}: its sender hands over its secret, once: doorbell sources pair {}",
            source.name, source.name
        ),
    };
    named.map(tell).collect()
}

/// What the file does not say but its use needs: that the directories can be written, the certificate fits its key.
fn surroundings(args: &CheckArgs, resolved: &Resolved) -> Vec<Fault> {
    let file = args.config.display().to_string();
    let mut faults = idle(&file, resolved);
    let open = data_dir_warnings(&resolved.server);
    faults.extend(open.into_iter().map(|problem| Fault::whole_file(Severity::Warning, file.clone(), problem)));
    let mut fault = |key: &str, problem: String, advice: &str| {
        faults.push(Fault {
            severity: Severity::Error,
            file: args.config.display().to_string(),
            line: 1,
            column: 1,
            key: key.into(),
            problem,
            advice: advice.into(),
        });
    };
    let StoreAt::Sqlite(store) = &resolved.store;
    let store_dir = store.parent().map(PathBuf::from).unwrap_or_default();
    for (key, dir) in [("server.data_dir", &resolved.server.data_dir), ("store.url", &store_dir)] {
        // The nearest directory that is there decides: the rest is made on the first start.
        let nearest = dir.ancestors().find(|d| d.exists());
        let Some(nearest) = nearest else { continue };
        if !nearest.is_dir() {
            fault(key, format!("`{}` is a file, not a directory", nearest.display()), "Name another path.");
        } else if !is_writable(nearest) {
            fault(
                key,
                format!("`{}` cannot be written by this user", nearest.display()),
                "Name another path, or change its owner.",
            );
        }
    }
    let tls = resolved.server.tls.as_ref().map(|tls| doorbell_server::Tls::from_pem_files(&tls.cert, &tls.key));
    if let Some(Err(error)) = tls {
        fault("server.tls", error.to_string(), "");
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
