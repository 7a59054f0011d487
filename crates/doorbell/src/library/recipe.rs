//! The configuration that a program writes: tables as in the file, secrets as an environment of its own. Kept while the
//! Doorbell runs, so that a later change goes through the whole resolution again.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use doorbell_core::Clock;
use doorbell_core::ports::Fetch;
use toml::Table;

use super::{BuildError, WebhookTriggerInfo};
use crate::app::StartError;
use crate::config::{self, Disk, Input, Natives, Purpose, Resolved, World};

/// What a Doorbell inside a program is made from.
#[derive(Clone)]
pub(super) struct Recipe {
    /// `agents`, `sources`, `triggers`, each by name.
    pub(super) tables: BTreeMap<&'static str, Table>,
    pub(super) server: Table,
    pub(super) natives: Natives,
    pub(super) secrets: BTreeMap<OsString, OsString>,
    pub(super) clock: Clock,
    pub(super) fetch: Arc<dyn Fetch>,
    /// `[contracts.datalayer.serve]`: what is registered, by agent.
    pub(super) served: Table,
    /// Webhook triggers registered while it runs, by agent.
    pub(super) registered: BTreeMap<String, WebhookTriggerInfo>,
    /// Triggers of registrations that were taken away while runs were unfinished.
    pub(super) retired: BTreeSet<String>,
}

impl Recipe {
    /// Everything that follows from it, or every fault.
    pub(super) async fn resolve(&self) -> Result<Resolved, BuildError> {
        let mut whole = Table::new();
        whole.insert("server".into(), self.server.clone().into());
        whole.extend(self.tables.iter().map(|(key, table)| ((*key).to_owned(), table.clone().into())));
        if !self.served.is_empty() {
            let serve = Table::from_iter([("serve".to_owned(), self.served.clone().into())]);
            whole.insert("contracts".into(), Table::from_iter([("datalayer".to_owned(), serve.into())]).into());
        }
        let text = whole.to_string();
        let env = Arc::new(self.secrets.clone());
        let world = World { env, files: Arc::new(Disk), fetch: self.fetch.clone(), clock: self.clock.clone() };
        let natives = self.natives.clone();
        let resolve = move || {
            let base = PathBuf::new();
            let input = Input { text: &text, file: "<builder>", base: &base, purpose: Purpose::Serve };
            config::resolve_with(input, &world, &natives)
        };
        let resolved = tokio::task::spawn_blocking(resolve).await.map_err(StartError::from)?;
        resolved.map_err(BuildError::Config)
    }

    /// The tables of this kind, by name.
    pub(super) fn kind(&mut self, kind: &'static str) -> &mut Table {
        self.tables.entry(kind).or_default()
    }
}

/// Where the secret of this source stands: a name that no process environment can have, so that nobody else's secret is
/// meant by accident.
pub(super) fn place_of(source: &str) -> String {
    format!("secret of {source}")
}

/// The place as the configuration writes it.
pub(super) fn secret_of(source: &str) -> Table {
    let mut at = Table::new();
    at.insert("env".into(), place_of(source).into());
    at
}

impl std::fmt::Debug for Recipe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recipe").field("tables", &self.tables).finish_non_exhaustive()
    }
}
