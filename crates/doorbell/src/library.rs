//! Doorbell inside another program: agents that are Rust functions, sources by a few words, the same configuration, store
//! and server as the binary.
//!
//! A [`Builder`] writes the configuration that a person would write and has it resolved by [`crate::config`]: one set of
//! rules, one set of messages. Secrets travel beside it, as an environment of its own. What is registered later
//! ([`Doorbell::register_webhook_trigger`]) is written into the same configuration and comes in as a reload does.

mod recipe;
mod webhook_triggers;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use doorbell_agents::native::{Call, Error as Failed, native};
use doorbell_core::house::House;
use doorbell_core::ingest::{self, DirectError, DirectEvent, Taken};
use doorbell_core::ports::{Notice, StoreError};
use doorbell_core::run::Run;
use doorbell_core::{Clock, EventId, Name, RunId};
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::sync::broadcast::error::RecvError;
use toml::{Table, Value};

use crate::app::{App, Fatal, Plan, StartError};
use crate::config::{Fault, Natives};
use recipe::Recipe;
pub use webhook_triggers::{RegisterError, WebhookTrigger, WebhookTriggerInfo};

/// A missed notice is found by looking this often.
const LOOK: Duration = Duration::from_millis(500);

/// A Doorbell inside this program. It works until [`Doorbell::stop`]: one that is dropped goes on until the runtime ends,
/// and what it was doing then is done again after the next start.
#[derive(Debug)]
pub struct Doorbell {
    app: App,
    /// The configuration as it is now; whoever changes it holds it until the change is in or refused.
    recipe: Mutex<Recipe>,
}

/// Why it could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// What was given does not fit together; every fault.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Config(Vec<Fault>),
    /// The HTTP client for agents cannot be made.
    #[error(transparent)]
    Client(#[from] doorbell_net::BuildError),
    /// It did not start.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// Puts a [`Doorbell`] together.
pub struct Builder {
    tables: BTreeMap<&'static str, Table>,
    natives: Natives,
    secrets: BTreeMap<OsString, OsString>,
    server: Table,
    clock: Clock,
}

/// How a webhook's sender is checked.
#[derive(Clone, Debug)]
pub struct Provider {
    key: &'static str,
    word: String,
    secret: Option<String>,
}

impl Provider {
    /// One of the built-in senders (`doorbell providers`), with its secret.
    pub fn named(id: impl Into<String>, secret: impl Into<String>) -> Self {
        Self { key: "provider", word: id.into(), secret: Some(secret.into()) }
    }

    /// GitHub, with the webhook's secret.
    pub fn github(secret: impl Into<String>) -> Self {
        Self::named("github", secret)
    }

    /// Stripe, with the endpoint's `whsec_…`.
    pub fn stripe(secret: impl Into<String>) -> Self {
        Self::named("stripe", secret)
    }

    /// Anybody who signs as Standard Webhooks says, with `whsec_…`.
    pub fn standard_webhooks(secret: impl Into<String>) -> Self {
        Self::named("standard-webhooks", secret)
    }

    /// Anybody who puts the hex of an HMAC-SHA256 of the body into `X-Signature`.
    pub fn hmac(secret: impl Into<String>) -> Self {
        Self { key: "auth", word: "hmac".into(), secret: Some(secret.into()) }
    }

    /// Anybody who sends this token as `Authorization: Bearer …`.
    pub fn bearer(token: impl Into<String>) -> Self {
        Self { key: "auth", word: "bearer".into(), secret: Some(token.into()) }
    }

    /// Anybody at all. Whoever reaches the address can start the agent.
    pub fn unauthenticated() -> Self {
        Self { key: "auth", word: "none".into(), secret: None }
    }
}

/// Which events of a source start which agent.
#[derive(Clone, Debug)]
pub struct Trigger(Table);

impl Trigger {
    /// Every event of `source` starts `agent`.
    pub fn new(source: &str, agent: &str) -> Self {
        Self(Table::new()).with("source", source).with("agent", agent)
    }

    /// Only events for which this CEL expression is true.
    #[must_use]
    pub fn filter(self, cel: &str) -> Self {
        self.with("filter", cel)
    }

    /// Runs with the same key go one at a time, in order.
    #[must_use]
    pub fn key(self, template: &str) -> Self {
        self.with("key", template)
    }

    /// What the agent is asked.
    #[must_use]
    pub fn prompt(self, template: &str) -> Self {
        self.with("prompt", template)
    }

    fn with(mut self, key: &str, value: &str) -> Self {
        self.0.insert(key.into(), value.into());
        self
    }
}

impl Builder {
    fn new() -> Self {
        let mut server = Table::new();
        server.insert("listen".into(), "127.0.0.1:0".into());
        Self {
            tables: BTreeMap::new(),
            natives: Natives::new(),
            secrets: BTreeMap::new(),
            server,
            clock: Clock::system(),
        }
    }

    /// An async function as an agent, with the default limits of `[agents.*]`. Its result is the run's output.
    ///
    /// It is called at least once for each run: after a crash again, with the same `call.envelope.run.id`.
    #[must_use]
    pub fn agent<F, Fut, T, E>(self, name: &str, function: F) -> Self
    where
        F: Fn(Call) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: Serialize + Send + 'static,
        E: Into<Failed> + Send + 'static,
    {
        self.agent_with(name, Limits::default(), function)
    }

    /// As [`Builder::agent`], with limits of its own.
    #[must_use]
    pub fn agent_with<F, Fut, T, E>(mut self, name: &str, limits: Limits, function: F) -> Self
    where
        F: Fn(Call) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: Serialize + Send + 'static,
        E: Into<Failed> + Send + 'static,
    {
        self.natives.insert(name.to_owned(), native(function));
        let mut table = Table::new();
        table.insert("runner".into(), "native".into());
        table.insert("timeout".into(), text(limits.time_limit));
        table.insert("concurrency".into(), i64::from(limits.concurrency).into());
        let mut retries = Table::new();
        retries.insert("max".into(), i64::from(limits.retries).into());
        retries.insert("backoff".into(), text(limits.backoff));
        retries.insert("max_backoff".into(), text(limits.backoff.max(Duration::from_secs(600))));
        table.insert("retries".into(), retries.into());
        self.table("agents", name, table)
    }

    /// A webhook at `/hooks/<name>`. Where nothing else is said with [`Builder::trigger`], its events start the one agent
    /// that there is.
    #[must_use]
    pub fn webhook(mut self, name: &str, provider: Provider) -> Self {
        let mut table = Table::new();
        table.insert(provider.key.into(), provider.word.into());
        if let Some(secret) = provider.secret {
            table.insert("secret".into(), recipe::secret_of(name).into());
            self.secrets.insert(recipe::place_of(name).into(), secret.into());
        }
        self.table("sources", name, table)
    }

    /// A source whose events come from this program, by [`Doorbell::emit`], and through the API.
    #[must_use]
    pub fn events(self, name: &str) -> Self {
        let mut table = Table::new();
        table.insert("kind".into(), "event".into());
        self.table("sources", name, table)
    }

    /// Says which events start which agent.
    #[must_use]
    pub fn trigger(self, name: &str, trigger: Trigger) -> Self {
        self.table("triggers", name, trigger.0)
    }

    /// Where the store and the admin token are. Default: `doorbell-data` here.
    #[must_use]
    pub fn data_dir(mut self, path: impl AsRef<Path>) -> Self {
        self.server.insert("data_dir".into(), path.as_ref().to_string_lossy().into_owned().into());
        self
    }

    /// Where to listen. Default: a free port on loopback.
    #[must_use]
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.server.insert("listen".into(), address.to_string().into());
        self
    }

    /// The hour and the dice, for tests.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// [`BuildError`]; then nothing is left running.
    pub async fn start(mut self) -> Result<Doorbell, BuildError> {
        doorbell_net::install_crypto();
        self.default_triggers();
        let recipe = Recipe {
            tables: self.tables,
            server: self.server,
            natives: self.natives,
            secrets: self.secrets,
            clock: self.clock.clone(),
            fetch: Arc::new(doorbell_net::Client::new()?),
            served: Table::new(),
            registered: BTreeMap::new(),
            retired: BTreeSet::new(),
        };
        let resolved = recipe.resolve().await?;
        for warning in &resolved.warnings {
            tracing::warn!("{warning}");
        }
        let app = App::start(Plan { resolved, clock: self.clock, metrics: None }).await?;
        Ok(Doorbell { app, recipe: Mutex::new(recipe) })
    }

    fn table(mut self, kind: &'static str, name: &str, table: Table) -> Self {
        self.tables.entry(kind).or_default().insert(name.to_owned(), table.into());
        self
    }

    /// A source that no trigger names gets one, if it is clear which agent is meant.
    fn default_triggers(&mut self) {
        let names = |kind: &str| self.tables.get(kind).into_iter().flat_map(Table::keys).cloned().collect::<Vec<_>>();
        let [agent] = names("agents").try_into().unwrap_or_else(|_| [String::new()]);
        let named: Vec<String> =
            self.tables.get("triggers").into_iter().flat_map(Table::values).filter_map(source_of).collect();
        let missing: Vec<String> = names("sources").into_iter().filter(|s| !named.contains(s)).collect();
        if agent.is_empty() {
            return;
        }
        for source in missing {
            let trigger = Trigger::new(&source, &agent);
            self.tables.entry("triggers").or_default().entry(source).or_insert(trigger.0.into());
        }
    }
}

fn source_of(trigger: &Value) -> Option<String> {
    trigger.get("source")?.as_str().map(str::to_owned)
}

fn text(span: Duration) -> Value {
    format!("{}ms", span.as_millis()).into()
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").field("tables", &self.tables).finish_non_exhaustive()
    }
}

/// The limits of an agent.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long one call may take.
    pub time_limit: Duration,
    /// Calls at once.
    pub concurrency: u32,
    /// Calls after the first that failed.
    pub retries: u32,
    /// The delay after the first failure; it doubles from there.
    pub backoff: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { time_limit: Duration::from_secs(600), concurrency: 1, retries: 3, backoff: Duration::from_secs(10) }
    }
}

/// An event that this program puts in.
#[derive(Clone, Debug)]
pub struct Event {
    event: DirectEvent,
    error: Option<String>,
}

impl Event {
    /// Of this type, with this data.
    pub fn new(event_type: impl Into<String>, data: &impl Serialize) -> Self {
        let (data, error) = match serde_json::to_vec(data) {
            Ok(data) => (Bytes::from(data), None),
            Err(error) => (Bytes::new(), Some(error.to_string())),
        };
        let content_type = Some("application/json".into());
        Self {
            event: DirectEvent { event_type: event_type.into(), data, content_type, ..DirectEvent::default() },
            error,
        }
    }

    /// What it is about.
    #[must_use]
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.event.subject = Some(subject.into());
        self
    }

    /// Its id: the same one again is a duplicate.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.event.id = Some(id.into());
        self
    }
}

/// What became of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emitted {
    /// The event, or the first one if it was seen before.
    pub event: EventId,
    /// Its runs.
    pub runs: Vec<RunId>,
    /// Whether it was seen before.
    pub duplicate: bool,
}

/// Why an event was not taken.
#[derive(Debug, thiserror::Error)]
pub enum EmitError {
    /// There is no such source.
    #[error("there is no source `{0}`; add it with `Builder::events`")]
    NoSource(String),
    /// Its data is not JSON.
    #[error("the event's data cannot be written as JSON: {0}")]
    Data(String),
    /// The door said no.
    #[error(transparent)]
    Refused(#[from] DirectError),
}

/// Why a run could not be waited for.
#[derive(Debug, thiserror::Error)]
#[error("cannot wait for the run: {0}")]
pub struct WaitError(#[from] StoreError);

impl Doorbell {
    /// Begins to put one together.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Puts an event into a source; when this returns it is on disk.
    ///
    /// # Errors
    /// [`EmitError`]; nothing was stored then.
    pub async fn emit(&self, source: &str, event: Event) -> Result<Emitted, EmitError> {
        if let Some(error) = event.error {
            return Err(EmitError::Data(error));
        }
        let house = self.app.house();
        let catalog = house.catalog();
        let known = Name::new(source).ok().and_then(|name| catalog.sources.get(&name));
        let source = known.ok_or_else(|| EmitError::NoSource(source.to_owned()))?;
        Ok(match ingest::admit_direct(house, source, event.event).await? {
            Taken::Accepted { event, runs } => {
                Emitted { event, runs: runs.into_iter().map(|(_, run)| run).collect(), duplicate: false }
            }
            Taken::Duplicate { event, runs } => {
                Emitted { event, runs: runs.into_iter().map(|(_, run, _)| run).collect(), duplicate: true }
            }
            Taken::Ignored { event, .. } => Emitted { event, runs: Vec::new(), duplicate: false },
        })
    }

    /// Waits until a run has come to its end. There is no time limit: put one around it.
    ///
    /// # Errors
    /// If there is no such run, or the store cannot be read.
    pub async fn wait(&self, run: RunId) -> Result<Run, WaitError> {
        let store = &self.house().store;
        // Listening begins before the look, so that no end falls between.
        let mut notices = store.notices();
        loop {
            let found = store.run(run).await?;
            if found.state.is_final() {
                return Ok(found);
            }
            let told = async {
                loop {
                    match notices.recv().await {
                        Ok(Notice::Moved(moved, state)) if moved == run && state.is_final() => return,
                        Ok(_) => {}
                        Err(RecvError::Lagged(_)) => return,
                        Err(RecvError::Closed) => std::future::pending().await,
                    }
                }
            };
            tokio::select! {
                () = told => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// The middle: store, catalog, switches.
    pub fn house(&self) -> &Arc<House> {
        self.app.house()
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.app.addr()
    }

    /// Where it can be reached from this machine: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        self.app.url()
    }

    /// Opens the API.
    pub fn admin_token(&self) -> &doorbell_core::Secret {
        self.app.admin_token()
    }

    /// Resolves when the program must stop: what is on disk is no longer known, or is no longer where it was.
    pub async fn failed(&self) -> Fatal {
        self.app.failed().await
    }

    /// Stops: takes nothing more, lets what runs end within the grace of 30 s, closes the store.
    pub async fn stop(self) {
        self.app.close().await;
    }
}
