//! Webhook triggers that a running program registers and takes away again: Datalayer's `register_webhook_trigger`,
//! `unregister_webhook_trigger` and `get_webhook_trigger`, answered as the contract of `docs/contracts.md` says.
//!
//! A registration is written into the program's configuration, which is resolved whole and swapped as on a reload: either
//! all of it is there or nothing changed. One that is taken away leaves its trigger behind, switched off and without a way
//! in, for as long as runs of it are unfinished, since a run needs its trigger to be carried out.

use std::collections::{BTreeMap, BTreeSet};

use doorbell_core::ports::StoreError;
use toml::{Table, Value};

use super::recipe::{self, Recipe};
use super::{BuildError, Doorbell, Provider};
use crate::config::Resolved;

/// Datalayer's `WebhookTriggerConfig`: events that are posted to `/api/v1/agents/<agent_id>/webhook` start the agent.
#[derive(Clone, Debug)]
pub struct WebhookTrigger {
    info: WebhookTriggerInfo,
    provider: Provider,
}

/// What is registered, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookTriggerInfo {
    /// The agent that it starts, and its name in the path.
    pub agent_id: String,
    /// The host that `X-Webhook-Source` or `Origin` has to name; empty: none.
    pub event_source: String,
    /// Shown to whoever may ask for the endpoint.
    pub description: String,
    /// Whether it takes events; else senders get 403.
    pub enabled: bool,
    /// Addresses and networks of the real peer that may send, beside `event_source`.
    pub allowed_ips: Vec<String>,
    /// Notes for people; nothing reads them.
    pub metadata: BTreeMap<String, String>,
}

impl WebhookTriggerInfo {
    /// Where events are posted to, below [`Doorbell::url`].
    pub fn path(&self) -> String {
        format!("/api/v1/agents/{}/webhook", self.agent_id)
    }
}

impl WebhookTrigger {
    /// A trigger of this agent, whose senders are checked by `provider` (in Datalayer's words: `secret`).
    pub fn new(agent_id: impl Into<String>, provider: Provider) -> Self {
        let info = WebhookTriggerInfo {
            agent_id: agent_id.into(),
            event_source: String::new(),
            description: "External event".into(),
            enabled: true,
            allowed_ips: Vec::new(),
            metadata: BTreeMap::new(),
        };
        Self { info, provider }
    }

    /// The URL or host that the sender has to say it is. Anybody can say so: it is no proof.
    #[must_use]
    pub fn event_source(mut self, source: impl Into<String>) -> Self {
        self.info.event_source = source.into();
        self
    }

    /// What the event is, for people.
    #[must_use]
    pub fn description(mut self, text: impl Into<String>) -> Self {
        self.info.description = text.into();
        self
    }

    /// Registered, and taking no events.
    #[must_use]
    pub fn disabled(mut self) -> Self {
        self.info.enabled = false;
        self
    }

    /// An address or a network that may send; may be said several times.
    #[must_use]
    pub fn allowed_ip(mut self, net: impl Into<String>) -> Self {
        self.info.allowed_ips.push(net.into());
        self
    }

    /// A note for people.
    #[must_use]
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.info.metadata.insert(key.into(), value.into());
        self
    }
}

/// Why nothing was registered or taken away; everything is as it was then.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The configuration has a trigger of the name that the registration would take.
    #[error("the trigger `{0}` is there already and was not registered; rename it")]
    Taken(String),
    /// What was given does not fit the rest.
    #[error(transparent)]
    Wrong(#[from] BuildError),
    /// Whether runs are unfinished could not be looked up.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Doorbell {
    /// Registers a webhook trigger, in the place of the agent's one before it. When this returns, it takes events.
    ///
    /// Registrations live as long as this Doorbell: register again after a restart. Runs that were accepted before are
    /// held until then.
    ///
    /// ```
    /// use doorbell::{Call, Doorbell, Failed, Provider, WebhookTrigger};
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let tmp = tempfile::tempdir()?;
    /// let doorbell = Doorbell::builder()
    ///     .agent("helpdesk", |call: Call| async move { Ok::<_, Failed>(call.envelope.event.id.to_string()) })
    ///     .data_dir(tmp.path())
    ///     .start()
    ///     .await?;
    /// let tickets = WebhookTrigger::new("helpdesk", Provider::bearer("a-secret-of-16-bytes"))
    ///     .description("A ticket was opened")
    ///     .allowed_ip("127.0.0.0/8");
    /// let info = doorbell.register_webhook_trigger(tickets).await?;
    /// assert_eq!(info.path(), "/api/v1/agents/helpdesk/webhook");
    /// assert_eq!(doorbell.webhook_trigger("helpdesk").await, Some(info));
    /// assert!(doorbell.unregister_webhook_trigger("helpdesk").await?);
    /// # doorbell.stop().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`RegisterError`]; everything is as it was then.
    pub async fn register_webhook_trigger(&self, trigger: WebhookTrigger) -> Result<WebhookTriggerInfo, RegisterError> {
        let mut recipe = self.recipe.lock().await;
        let mut next = recipe.clone();
        self.sweep(&mut next).await?;
        let info = next.register(trigger)?;
        let resolved = next.resolve().await?;
        self.take(&mut recipe, next, resolved);
        Ok(info)
    }

    /// Takes the agent's webhook trigger away; whether there was one. Senders get 404 from then on; runs that were accepted
    /// stay and finish.
    ///
    /// # Errors
    /// [`RegisterError`]; everything is as it was then.
    pub async fn unregister_webhook_trigger(&self, agent_id: &str) -> Result<bool, RegisterError> {
        let mut recipe = self.recipe.lock().await;
        let mut next = recipe.clone();
        self.sweep(&mut next).await?;
        if !next.unregister(agent_id) {
            return Ok(false);
        }
        let resolved = next.resolve().await?;
        self.take(&mut recipe, next, resolved);
        Ok(true)
    }

    /// What is registered for the agent.
    pub async fn webhook_trigger(&self, agent_id: &str) -> Option<WebhookTriggerInfo> {
        self.recipe.lock().await.registered.get(agent_id).cloned()
    }

    /// Nothing waits between the swap and the note of it: a caller that goes away leaves both or neither.
    fn take(&self, recipe: &mut Recipe, next: Recipe, resolved: Resolved) {
        self.app.take_config(resolved);
        *recipe = next;
    }

    /// Removes what was taken away and has no run to finish any more.
    async fn sweep(&self, recipe: &mut Recipe) -> Result<(), StoreError> {
        if recipe.retired.is_empty() {
            return Ok(());
        }
        let stats = self.house().store.stats().await?;
        let is_busy = |trigger: &String| {
            stats.iter().any(|s| s.trigger.as_str() == trigger && s.queued + s.running + s.waiting > 0)
        };
        let (busy, done): (_, BTreeSet<String>) = std::mem::take(&mut recipe.retired).into_iter().partition(is_busy);
        recipe.retired = busy;
        for trigger in done {
            recipe.kind("triggers").remove(&trigger);
            recipe.kind("sources").remove(&trigger);
        }
        Ok(())
    }
}

/// The trigger and the source of an agent's registration.
fn name_of(agent_id: &str) -> String {
    format!("webhook-{agent_id}")
}

impl Recipe {
    fn register(&mut self, trigger: WebhookTrigger) -> Result<WebhookTriggerInfo, RegisterError> {
        let WebhookTrigger { info, provider } = trigger;
        let name = name_of(&info.agent_id);
        let is_ours = self.registered.contains_key(&info.agent_id) || self.retired.contains(&name);
        let is_there = |kind: &str| self.tables.get(kind).is_some_and(|t| t.contains_key(&name));
        if !is_ours && (is_there("triggers") || is_there("sources")) {
            return Err(RegisterError::Taken(name));
        }
        let mut source = Table::new();
        source.insert(provider.key.into(), provider.word.into());
        self.secrets.remove(std::ffi::OsStr::new(&recipe::place_of(&name)));
        if let Some(secret) = provider.secret {
            source.insert("secret".into(), recipe::secret_of(&name).into());
            self.secrets.insert(recipe::place_of(&name).into(), secret.into());
        }
        self.kind("sources").insert(name.clone(), source.into());
        self.kind("triggers").insert(name.clone(), super::Trigger::new(&name, &info.agent_id).0.into());
        self.served.insert(info.agent_id.clone(), served(&name, &info).into());
        self.retired.remove(&name);
        self.registered.insert(info.agent_id.clone(), info.clone());
        Ok(info)
    }

    fn unregister(&mut self, agent_id: &str) -> bool {
        if self.registered.remove(agent_id).is_none() {
            return false;
        }
        let name = name_of(agent_id);
        self.served.remove(agent_id);
        self.secrets.remove(std::ffi::OsStr::new(&recipe::place_of(&name)));
        // Its unfinished runs need the trigger; nothing can ring it any more.
        let mut source = Table::new();
        source.insert("kind".into(), "event".into());
        source.insert("enabled".into(), false.into());
        self.kind("sources").insert(name.clone(), source.into());
        if let Some(trigger) = self.kind("triggers").get_mut(&name).and_then(Value::as_table_mut) {
            trigger.insert("enabled".into(), false.into());
        }
        self.retired.insert(name);
        true
    }
}

/// `[contracts.datalayer.serve.ID]`
fn served(trigger: &str, info: &WebhookTriggerInfo) -> Table {
    let mut table = Table::new();
    table.insert("trigger".into(), trigger.into());
    table.insert("description".into(), info.description.clone().into());
    table.insert("enabled".into(), info.enabled.into());
    if !info.event_source.is_empty() {
        table.insert("event_source".into(), info.event_source.clone().into());
    }
    if !info.allowed_ips.is_empty() {
        table.insert("allowed_ips".into(), info.allowed_ips.clone().into());
    }
    let metadata: Table = info.metadata.iter().map(|(k, v)| (k.clone(), Value::from(v.clone()))).collect();
    if !metadata.is_empty() {
        table.insert("metadata".into(), metadata.into());
    }
    table
}
