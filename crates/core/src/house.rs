//! The house: the configuration as it stands (swapped whole on a reload), the switches people set, and the store. Every
//! request and every attempt takes what it needs from here once, so that it sees one configuration to its end.

mod breakers;
mod pairings;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, MutexGuard, watch};

use crate::agent::Agent;
use crate::clock::Clock;
use crate::ids::Name;
use crate::ports::{Flag, Retention, Store, StoreError};
use crate::run_token::RunTokens;
use crate::source::{Source, Way};
use crate::trigger::Trigger;
use crate::vault::Vault;

/// The configuration, resolved: what exists.
#[derive(Debug, Default)]
pub struct Catalog {
    /// Who can be run.
    pub agents: BTreeMap<Name, Arc<Agent>>,
    /// The ways in.
    pub sources: BTreeMap<Name, Arc<Source>>,
    /// Which events start whom.
    pub triggers: BTreeMap<Name, Arc<Trigger>>,
    /// How long things are kept.
    pub retention: Retention,
    by_path: HashMap<String, Name>,
}

impl Catalog {
    /// Joins the parts. Sources carry their triggers already.
    pub fn new(agents: Vec<Agent>, sources: Vec<Source>, retention: Retention) -> Self {
        let mut catalog = Self { retention, ..Self::default() };
        for agent in agents {
            catalog.agents.insert(agent.name.clone(), Arc::new(agent));
        }
        for source in sources {
            if let Way::Webhook(webhook) = &source.way {
                catalog.by_path.insert(webhook.path.clone(), source.name.clone());
            }
            for trigger in &source.triggers {
                catalog.triggers.insert(trigger.name.clone(), Arc::clone(trigger));
            }
            catalog.sources.insert(source.name.clone(), Arc::new(source));
        }
        catalog
    }

    /// Goes on where the limits of the configuration before stand.
    fn adopt(&self, old: &Self) {
        for (name, source) in &self.sources {
            if let Some(old) = old.sources.get(name) {
                source.adopt(old);
            }
        }
        for (name, trigger) in &self.triggers {
            let twin = old.triggers.get(name).and_then(|t| t.storm_cap.as_ref());
            if let (Some(new), Some(old)) = (&trigger.storm_cap, twin) {
                new.adopt(old);
            }
        }
    }

    /// The source that listens on `path`, or whose token is the last part of it.
    pub fn source_at(&self, path: &str) -> Option<&Arc<Source>> {
        let at = |path: &str| self.by_path.get(path).and_then(|name| self.sources.get(name));
        let takes_token = |s: &&Arc<Source>| s.webhook().is_some_and(|w| w.preset.has_token_in_path());
        at(path).or_else(|| at(path.rsplit_once('/')?.0).filter(takes_token))
    }
}

/// The switches that people set; what was never set is as the file says.
#[derive(Debug, Default)]
pub struct Flags(HashMap<Flag, bool>);

/// See the module.
pub struct House {
    /// Where everything is kept.
    pub store: Arc<dyn Store>,
    /// The hour and the dice.
    pub clock: Clock,
    catalog: ArcSwap<Catalog>,
    flags: ArcSwap<Flags>,
    changed: watch::Sender<u64>,
    tokens: RunTokens,
    vault: Vault,
    breakers: breakers::Breakers,
    pairings: pairings::Pairings,
    turns: Mutex<()>,
}

/// A request's turn at a count that it is about to change.
pub(crate) type Turn<'h> = MutexGuard<'h, ()>;

impl House {
    /// Loads the flags, the breakers and the open pairings from the store.
    ///
    /// # Errors
    /// What the store says if it cannot be read.
    pub async fn open(
        store: Arc<dyn Store>,
        clock: Clock,
        catalog: Catalog,
        vault: Vault,
    ) -> Result<Arc<Self>, StoreError> {
        let flags = Flags(store.flags().await?.into_iter().collect());
        let tokens = RunTokens::new(&store.token_key(), store.tag());
        let breakers = breakers::Breakers::new(store.breakers().await?);
        let pairings = pairings::Pairings::new(store.pairings().await?);
        Ok(Arc::new(Self {
            tokens,
            pairings,
            turns: Mutex::default(),
            vault,
            breakers,
            store,
            clock,
            catalog: ArcSwap::from_pointee(catalog),
            flags: ArcSwap::from_pointee(flags),
            changed: watch::Sender::new(0),
        }))
    }

    /// Makes and reads run tokens.
    pub fn tokens(&self) -> &RunTokens {
        &self.tokens
    }

    /// Waits for the turn of a request that is let in only if a count in the store is low enough: held until it is counted, so
    /// that of many at once none is let in by a count that another has used.
    pub(crate) async fn turn(&self) -> Turn<'_> {
        self.turns.lock().await
    }

    /// The sealed secrets of the store.
    pub fn vault(&self) -> &Vault {
        &self.vault
    }

    /// The configuration now.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.catalog.load_full()
    }

    /// Puts a new configuration in the old one's place, its limits where the old ones stand. Runs under way keep theirs.
    pub fn swap_catalog(&self, catalog: Catalog) {
        catalog.adopt(&self.catalog.load());
        self.catalog.store(Arc::new(catalog));
        self.changed.send_modify(|n| *n += 1);
    }

    /// Sets a switch, durably.
    ///
    /// # Errors
    /// What the store says if it cannot be written; then nothing changed.
    pub async fn set_flag(&self, flag: Flag, value: bool) -> Result<(), StoreError> {
        self.store.set_flag(flag, value, self.clock.now()).await?;
        self.reload_flags().await
    }

    /// Reads the switches again: another node may have set one.
    ///
    /// # Errors
    /// What the store says if it cannot be read.
    pub async fn reload_flags(&self) -> Result<(), StoreError> {
        let flags = Flags(self.store.flags().await?.into_iter().collect());
        self.flags.store(Arc::new(flags));
        self.changed.send_modify(|n| *n += 1);
        Ok(())
    }

    /// Whether the agent's runs are held.
    pub fn is_paused(&self, agent: &Agent) -> bool {
        let flags = self.flags.load();
        if flags.0.is_empty() {
            return agent.paused;
        }
        flags.0.get(&Flag::AgentPaused(agent.name.clone())).copied().unwrap_or(agent.paused)
    }

    /// Whether the trigger takes events.
    pub fn is_enabled(&self, trigger: &Trigger) -> bool {
        let flags = self.flags.load();
        if flags.0.is_empty() {
            return trigger.enabled;
        }
        flags.0.get(&Flag::TriggerDisabled(trigger.name.clone())).map_or(trigger.enabled, |off| !off)
    }

    /// Counts up whenever the configuration or a switch changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

impl std::fmt::Debug for House {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("House").finish_non_exhaustive()
    }
}
