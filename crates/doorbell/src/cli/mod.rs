//! The command line: what can be typed, and where it goes. `main.rs` calls [`main`]; each command is a file with its
//! arguments and a `run`. The environment and the clock come in here once and are handed down.
//!
//! Exit codes: 0 ok, 1 failed, 2 called wrongly, 3 no Doorbell reachable.

mod access;
mod agents;
mod backup;
mod card;
mod check;
mod client;
mod completions;
mod contracts;
mod decisions;
mod demo;
mod events;
mod fault;
mod init;
mod keys;
mod list;
mod openapi;
mod providers;
mod runs;
mod samples;
mod screen;
mod secrets;
mod send;
mod serve;
mod signing;
mod sources;
mod table;
mod triggers;
mod trust;
mod typed;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use doorbell_core::Clock;

use crate::config::{Disk, Purpose, Resolved, World};
use fault::{Exit, Fault};
use screen::Screen;

/// The environment, as it was when the process started.
pub type Env = BTreeMap<String, String>;

/// What every command is given.
#[derive(Clone)]
pub struct Context {
    /// The environment.
    pub env: Env,
    /// The hour and the dice.
    pub clock: Clock,
    /// Standard output.
    pub screen: Screen,
}

const EXAMPLES: &str = "\
Examples:
  doorbell demo                      see it work: nothing to set up or to clean up
  doorbell init && doorbell serve    a configuration to start from, and the server
  doorbell send github               ring a trigger as its sender would
  doorbell decisions                 why did my agent (not) run?
  doorbell runs --state failed       what went wrong
  doorbell runs logs -f run_…        watch an agent work

Exit codes: 0 ok, 1 failed, 2 called wrongly, 3 no Doorbell reachable.";

/// Doorbell rings AI agents when the outside world calls: webhooks in, durable runs out.
#[derive(Debug, Parser)]
#[command(name = "doorbell", version, after_help = EXAMPLES, max_term_width = 100, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the whole thing working, in a temporary directory: real server, real deliveries, real agent
    Demo(demo::DemoArgs),
    /// Write a commented doorbell.toml, an example agent and fresh secrets
    Init(init::InitArgs),
    /// Accept events and run agents
    Serve(serve::ServeArgs),
    /// Look for faults in the configuration, secrets, store and agent programs
    Check(check::CheckArgs),
    /// Ring a trigger of a running server, signed as its sender would sign
    Send(send::SendArgs),
    /// What came in: list, show, replay
    Events(events::EventsArgs),
    /// What agents do and did: list, show, logs, retry, cancel, wait
    Runs(runs::RunsArgs),
    /// What the door said to each request, and why: list, show
    Decisions(decisions::DecisionsArgs),
    /// Who can be run: list, show, pause, resume
    Agents(agents::AgentsArgs),
    /// The ways in: list, show, pair
    Sources(sources::SourcesArgs),
    /// Which events start which agent: list, show, enable, disable
    Triggers(triggers::TriggersArgs),
    /// The wires of other systems that are served: list
    Contracts(contracts::ContractsArgs),
    /// API keys for others than the admin: list, show, create, rotate, revoke
    Keys(keys::KeysArgs),
    /// Secrets that the server keeps, sealed: list, set, rotate, remove
    Secrets(secrets::SecretsArgs),
    /// Copy the store to a file, also while the server runs
    Backup(backup::BackupArgs),
    /// Put a backup in the store's place, while no server runs
    Restore(backup::RestoreArgs),
    /// Print the description of the HTTP API (OpenAPI 3.1, JSON)
    Openapi(openapi::OpenapiArgs),
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
    /// The senders that Doorbell knows: how they sign, where to set them up
    Providers(providers::ProvidersArgs),
}

/// Runs the program with the arguments and the environment of the process.
pub fn main(args: Vec<OsString>, env: Vec<(OsString, OsString)>) -> ExitCode {
    // What is not UTF-8 can be neither an address nor a token.
    let env: Env = env.into_iter().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect();
    let cli = match typed::read(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Nobody is left to be told if the stream is closed.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { ExitCode::SUCCESS };
        }
    };
    let no_colour = screen::no_colour(&env);
    let cx = Context { screen: Screen::new(&env), clock: Clock::system(), env };
    dispatch(cli.command, &cx).unwrap_or_else(|error| fault::report(&error, no_colour))
}

fn dispatch(command: Command, cx: &Context) -> Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the threads that do the work")?;
    let code = runtime.block_on(async {
        let exit = match command {
            Command::Serve(args) => return Box::pin(serve::run(args, cx.env.clone())).await,
            Command::Check(args) => return Box::pin(check::run(args, cx.env.clone())).await,
            Command::Init(args) => return Box::pin(init::run(args, cx.env.clone())).await,
            Command::Demo(args) => Box::pin(demo::run(args, cx)).await?,
            Command::Send(args) => Box::pin(send::run(args, cx)).await?,
            Command::Events(args) => Box::pin(events::run(args, cx)).await?,
            Command::Runs(args) => Box::pin(runs::run(args, cx)).await?,
            Command::Decisions(args) => Box::pin(decisions::run(args, cx)).await?,
            Command::Agents(args) => Box::pin(agents::run(args, cx)).await?,
            Command::Sources(args) => Box::pin(sources::run(args, cx)).await?,
            Command::Triggers(args) => Box::pin(triggers::run(args, cx)).await?,
            Command::Contracts(args) => Box::pin(contracts::run(args, cx)).await?,
            Command::Keys(args) => Box::pin(keys::run(args, cx)).await?,
            Command::Secrets(args) => Box::pin(secrets::run(args, cx)).await?,
            Command::Backup(args) => Box::pin(backup::backup(args, cx)).await?,
            Command::Restore(args) => Box::pin(backup::restore(args, cx)).await?,
            Command::Openapi(args) => openapi::run(&args, cx)?,
            Command::Completions(args) => completions::run(&args, cx)?,
            Command::Providers(args) => providers::run(&args, cx)?,
        };
        Ok(exit.into())
    });
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    code
}

/// Reads and resolves a configuration as the server would, with its secrets.
///
/// # Errors
/// If it cannot be read, or with every fault in it.
async fn resolved(file: &Path, cx: &Context) -> Result<Resolved> {
    let env = cx.env.iter().map(|(k, v)| (OsString::from(k), OsString::from(v))).collect();
    let fetch = doorbell_net::Client::new().context("cannot set up the HTTP client")?;
    let world = World { env: Arc::new(env), files: Arc::new(Disk), fetch: Arc::new(fetch), clock: cx.clock.clone() };
    serve::load(file, &world, Purpose::Serve).await?.map_err(|faults| {
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        Fault::new(format!("{} has faults", file.display()))
            .cause(faults.join("\n"))
            .advice("`doorbell check` shows them too.")
            .into()
    })
}

/// The command's own description, for the completion scripts.
fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_description_of_the_command_line_is_sound() {
        super::command().debug_assert();
    }

    #[test]
    fn every_command_s_help_has_examples() {
        let command = super::command();
        let has = |c: &clap::Command| c.get_after_help().is_some_and(|help| help.to_string().contains("Examples:"));
        for c in command.get_subcommands() {
            assert!(has(c), "{}", c.get_name());
        }
        let verbs = [
            ("events", "replay"),
            ("keys", "create"),
            ("keys", "rotate"),
            ("runs", "logs"),
            ("secrets", "set"),
            ("sources", "pair"),
        ];
        for (noun, verb) in verbs {
            let found = command.find_subcommand(noun).and_then(|c| c.find_subcommand(verb)).unwrap();
            assert!(has(found), "{noun} {verb}");
        }
    }
}
