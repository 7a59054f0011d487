//! How an agent is executed: one file a kind, each an implementation of `core::ports::Runner`. The worker hands an
//! attempt over and gets a verdict; nothing here sees the store.
//!
//! `doorbell`'s configuration hands the keys of an `[agents.x]` table that are not its own to [`build`], which finds the
//! kind in [`KINDS`]. Programs that embed Doorbell make runners of Rust functions with [`native()`].
//!
//! Layers, each using only those before it: [`settings`], then the kinds.

pub mod http;
pub mod native;
pub mod process;
pub mod settings;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use doorbell_core::ports::{Fetch, Runner};
use doorbell_core::{Clock, Secret, spelling};
use serde_json::{Map, Value};

pub use native::native;
pub use settings::{Setting, SettingFault};

/// Turns a value of the configuration (`{ env = "…" }`, `{ file = "…" }`) into a secret; the fault does not hold it, nor
/// where the value stands.
pub type SecretOf = Arc<dyn Fn(&Value) -> Result<Secret, SettingFault> + Send + Sync>;

/// What the kinds need of the world; all of it is passed in.
#[derive(Clone)]
pub struct Context {
    /// Relative paths start here: the directory of the configuration file.
    pub base_dir: PathBuf,
    /// A snapshot of Doorbell's own environment, from which an agent gets only what its allow-list names.
    pub environment: Arc<BTreeMap<OsString, OsString>>,
    /// The guarded HTTP client.
    pub fetch: Arc<dyn Fetch>,
    /// For time stamps of signatures and HTTP dates.
    pub clock: Clock,
    /// Resolves secrets of the configuration.
    pub secret: SecretOf,
}

/// A runner, or everything that is wrong with its settings.
pub type Built = Result<Arc<dyn Runner>, Vec<SettingFault>>;

/// A kind of runner.
pub struct Kind {
    /// What `runner = "…"` names it.
    pub name: &'static str,
    /// One line for people.
    pub about: &'static str,
    /// The keys it takes.
    pub settings: &'static [Setting],
    /// Makes a runner, or says everything that is wrong with the settings.
    pub build: fn(&Map<String, Value>, &Context) -> Built,
}

/// All kinds that a configuration file can name.
pub const KINDS: &[Kind] = &[process::KIND, http::KIND];

/// Makes the runner of an agent from the kind-specific keys of its table. Reports every fault at once.
pub fn build(kind: &str, given: &Map<String, Value>, context: &Context) -> Built {
    match KINDS.iter().find(|k| k.name == kind) {
        Some(found) => (found.build)(given, context),
        None => {
            let hint = spelling::hint(kind, KINDS.iter().map(|k| k.name));
            Err(vec![SettingFault::new("runner", format!("there is no runner `{kind}`"), hint)])
        }
    }
}
