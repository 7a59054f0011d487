//! The configuration: [`written`] is the file as it stands, [`Resolved`] what follows from it. Called by `serve` at start
//! and on a reload, by `check`, and by the library.
//!
//! [`resolve`] is pure: the file's text, the environment and a way to read files go in; either everything comes out, or
//! every fault of the file at once, each with its place. The environment is read in one place, [`World::ambient`].

mod agentex;
mod agents;
mod client_cert;
mod contracts;
mod dress;
mod fault;
mod lanes;
mod master_key;
mod paths;
mod places;
mod provider;
mod reach;
pub mod schema;
mod secrets;
mod section;
mod server;
mod sources;
#[cfg(test)]
mod tests;
mod triggers;
pub mod values;
mod world;
pub mod written;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use doorbell_core::Name;
use doorbell_core::agent::Agent;
use doorbell_core::house::Catalog;
use doorbell_core::ports::{Retention, Runner};
use doorbell_core::provider::Preset;
use doorbell_core::source::{SecretPlace, Source};
use doorbell_server::Contracts;

pub use fault::{Fault, Severity};
pub use places::Places;
pub(crate) use server::ADMIN_TOKEN_BYTES_MIN;
pub use server::{ServerSettings, StoreAt, TlsFiles};
pub(crate) use world::{CONFIG_BYTES_MAX, mode, read_text};
pub use world::{Disk, Files, SecretFile, World};

use fault::Report;
use written::Written;

/// Everything that follows from a file.
#[derive(Debug)]
pub struct Resolved {
    /// Who can be run.
    pub agents: Vec<Agent>,
    /// The ways in, with their triggers.
    pub sources: Vec<Source>,
    /// How long things are kept.
    pub retention: Retention,
    /// Where to listen, and the limits there.
    pub server: ServerSettings,
    /// Where everything is kept.
    pub store: StoreAt,
    /// The wires of other systems.
    pub contracts: Contracts,
    /// How to send to each webhook as its sender would, for `doorbell send`.
    pub senders: BTreeMap<Name, Sender>,
    /// Files whose change is a change of the configuration: those of secrets and certificates.
    pub reads: Vec<PathBuf>,
    /// What somebody should look at.
    pub warnings: Vec<Fault>,
    /// Where to tell of what is seen only outside of the file.
    pub places: Places,
}

impl Resolved {
    /// The part that a reload swaps.
    pub fn into_catalog(self) -> Catalog {
        Catalog::new(self.agents, self.sources, self.retention)
    }
}

/// What a sender of one webhook source knows.
#[derive(Clone, Debug)]
pub struct Sender {
    /// The source.
    pub source: Name,
    /// Where it posts to.
    pub path: String,
    /// How it signs.
    pub preset: Arc<Preset>,
    /// With what: the newest secret. One in the store is not known here.
    pub secret: Option<SecretPlace>,
    /// Which triggers listen.
    pub triggers: Vec<Name>,
}

/// What the file is resolved for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To be run: a program that is missing now may be there when its agent is rung, so it is a warning.
    Serve,
    /// To be judged: it is an error.
    Check,
}

/// A file to be resolved.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// Its text.
    pub text: &'a str,
    /// Its name, for the faults.
    pub file: &'a str,
    /// Its directory: relative paths in it start here.
    pub base: &'a Path,
    /// What for.
    pub purpose: Purpose,
}

/// Agents that an embedding program brings, by name.
pub type Natives = BTreeMap<String, Arc<dyn Runner>>;

/// What the parts of the resolution share.
struct Cx<'a> {
    report: &'a Report<'a>,
    world: &'a World,
    base: &'a Path,
    purpose: Purpose,
    natives: &'a Natives,
}

impl Cx<'_> {
    /// A path of the file, from the file's directory.
    fn path(&self, text: &str) -> PathBuf {
        // `join` keeps an absolute path as it is; `./` would only make messages longer.
        self.base.join(text.strip_prefix("./").unwrap_or(text))
    }
}

/// Resolves a file.
///
/// # Errors
/// Every fault of the file, warnings included, in the order of their places; at least one is an error.
pub fn resolve(input: Input<'_>, world: &World) -> Result<Resolved, Vec<Fault>> {
    resolve_with(input, world, &Natives::new())
}

/// Resolves a file of a program that brings agents of its own: `runner = "native"` finds them by the agent's name.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_with(input: Input<'_>, world: &World, natives: &Natives) -> Result<Resolved, Vec<Fault>> {
    let (resolved, faults) = examine_with(input, world, natives);
    match resolved {
        Some(mut resolved) if faults.iter().all(|f| f.severity != Severity::Error) => {
            resolved.warnings = faults;
            Ok(resolved)
        }
        _ => Err(faults),
    }
}

/// What a file says as far as it can be read, for `check`, with all its faults: if one is an error the rest is good for
/// nothing but to look for more.
pub fn examine(input: Input<'_>, world: &World) -> (Option<Resolved>, Vec<Fault>) {
    examine_with(input, world, &Natives::new())
}

fn examine_with(input: Input<'_>, world: &World, natives: &Natives) -> (Option<Resolved>, Vec<Fault>) {
    let report = Report::new(input.text, input.file);
    let cx = Cx { report: &report, world, base: input.base, purpose: input.purpose, natives };
    let resolved = Written::read(&report).map(|written| parts(&written, &cx));
    (resolved, report.into_faults())
}

fn parts(written: &Written, cx: &Cx<'_>) -> Resolved {
    let mut server = server::server(&written.server, cx);
    let store = server::store(&written.store, &server.data_dir, cx);
    let retention = server::retention(&written.retention, cx);
    let secrets = secrets::Secrets::new(cx);
    let agents = agents::agents(written, cx, &secrets);
    let triggers = triggers::triggers(written, cx);
    lanes::check(written, cx);
    let sources::Made { sources, senders } = sources::sources(
        written,
        triggers,
        &sources::Around { written, cx, secrets: &secrets, server: &server, retention },
    );
    let longest = sources.iter().filter_map(|s| s.webhook()).map(|w| w.max_body).max().unwrap_or(server.max_body);
    server::fit_bodies(&mut server, &written.server, longest, cx);
    reach::check(&written.server, &server, &agents, cx);
    let contracts = contracts::contracts(written, &sources, &server, &secrets, cx);
    let mut reads = secrets.into_reads();
    reads.extend(server.tls.iter().flat_map(|tls| [tls.cert.clone(), tls.key.clone()]));
    let places = Places::new(written, cx);
    Resolved { agents, sources, retention, server, store, contracts, senders, reads, warnings: Vec::new(), places }
}
