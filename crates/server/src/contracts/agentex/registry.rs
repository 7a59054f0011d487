//! Agents that register themselves: where they are kept, and how a forward finds them. What the configuration names comes
//! first, and no registration stands in its place.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use doorbell_core::ports::{Fetch, Reach, StoreError};
use doorbell_core::registration::Registration;
use doorbell_core::seal::{Earlier, SecretName};
use doorbell_core::source::Source;
use doorbell_core::vault::VaultError;
use doorbell_core::{Name, Secret};
use http::Uri;

use super::places::Places;
use super::{Access, AcpAgent, Agentex, Forward, Mode};
use crate::front::Front;

/// Whether a URL may be an agent's; else why not.
pub type Judge = Box<dyn Fn(&str) -> Result<Uri, String> + Send + Sync>;
/// The door of the agent of a name.
pub type DoorOf = Box<dyn Fn(&Name) -> Option<Source> + Send + Sync>;

/// How agents that register themselves are taken and reached.
pub struct Registering {
    /// Who may register one.
    pub access: Access,
    /// The way to them: guarded, since whoever registers names the address.
    pub fetch: Arc<dyn Fetch>,
    /// Whether a URL may be one of theirs; else why not. Names are judged when they are resolved, by [`Self::fetch`].
    pub judge: Judge,
    /// The door of the agent of this name.
    pub door: DoorOf,
    /// For the head of an answer, and between two pieces of it.
    pub time_limit: Duration,
    /// Requests at once, each agent.
    pub places: u32,
    doors: Mutex<BTreeMap<Name, Door>>,
}

/// What of an agent lives between its requests.
#[derive(Clone)]
struct Door {
    source: Arc<Source>,
    places: Arc<Places>,
}

impl Registering {
    /// With a guarded way out, and defaults for what is not set.
    pub fn new(access: Access, fetch: Arc<dyn Fetch>, judge: Judge, door: DoorOf) -> Self {
        Self { access, fetch, judge, door, time_limit: Duration::from_secs(15), places: 100, doors: Mutex::default() }
    }

    fn door(&self, name: &Name) -> Option<Door> {
        let mut doors = self.doors.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(door) = doors.get(name) {
            return Some(door.clone());
        }
        let door = Door { source: Arc::new((self.door)(name)?), places: Arc::new(Places::new(self.places)) };
        Some(doors.entry(name.clone()).or_insert(door).clone())
    }

    /// Goes on where the limits before stand.
    pub(super) fn adopt(&self, old: &Self) {
        let before = old.doors.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (name, old) in before {
            let Some(new) = self.door(&name) else { continue };
            new.source.adopt(&old.source);
            new.places.adopt(&old.places);
        }
    }

    /// Forgets an agent that is gone.
    pub(super) fn forget(&self, name: &Name) {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

/// The agent of a name: the configuration's, or one that registered itself.
pub(super) async fn find(front: &Front, own: &Agentex, name: &str) -> Result<Option<Arc<AcpAgent>>, VaultError> {
    if let Some(agent) = own.agents.get(name) {
        return Ok(Some(Arc::clone(agent)));
    }
    let (Some(registering), Ok(name)) = (&own.registering, Name::new(name)) else { return Ok(None) };
    let Some(kept) = front.house.store.registration(name.clone()).await? else { return Ok(None) };
    let Ok(acp_url) = (registering.judge)(&kept.acp_url) else {
        // A reload took its network out of what may be reached.
        return Ok(None);
    };
    let secrets = front.house.vault().get(&place(&name)?).await?;
    if secrets.is_empty() {
        // Unsigned, the agent could not tell ours from anybody's.
        let why = format!("the key of agent `{name}` is not in the store: it has to register again");
        return Err(StoreError::Unavailable(why).into());
    }
    let Some(Door { source, places }) = registering.door(&name) else { return Ok(None) };
    let forward = Forward {
        acp_url,
        secrets,
        time_limit: registering.time_limit,
        places,
        fetch: Arc::clone(&registering.fetch),
        reach: Reach::Public,
    };
    Ok(Some(Arc::new(AcpAgent { name, source, mode: Mode::Forward(forward) })))
}

/// Every agent that requests may be for.
pub(super) async fn names(front: &Front, own: &Agentex) -> Result<BTreeSet<Name>, StoreError> {
    let mut names: BTreeSet<Name> = own.agents.keys().cloned().collect();
    if own.registering.is_some() {
        names.extend(front.house.store.registrations().await?.into_iter().map(|agent| agent.name));
    }
    Ok(names)
}

/// Keeps an agent, and makes the secret that it is shown at each registration: forwards to it are signed with that.
pub(super) async fn keep(front: &Front, agent: Registration) -> Result<(Registration, Secret), VaultError> {
    let (vault, place) = (front.house.vault(), place(&agent.name)?);
    let mut secrets = vault.get(&place).await?;
    if secrets.is_empty() {
        let bytes = (0..4).map(|_| format!("{:016x}", front.house.clock.random()));
        match vault.put(&place, &Secret::new(bytes.collect::<String>()), Earlier::MustNotBe).await {
            // Of two that register at once the later one is told the first one's.
            Ok(()) | Err(VaultError::Store(StoreError::Conflict(_))) => {}
            Err(error) => return Err(error),
        }
        secrets = vault.get(&place).await?;
    }
    let secret = secrets.into_iter().next();
    let secret = secret.ok_or_else(|| StoreError::Conflict("the agent's key was removed meanwhile".into()))?;
    Ok((front.house.store.put_registration(agent).await?, secret))
}

/// Forgets an agent, with all that opens it.
pub(super) async fn remove(front: &Front, registering: &Registering, name: &Name) -> Result<(), VaultError> {
    front.house.store.remove_registration(name.clone()).await?;
    registering.forget(name);
    forget_secret(front, name).await
}

/// Takes the secret that a name's forwards were signed with, if one is left.
pub(super) async fn forget_secret(front: &Front, name: &Name) -> Result<(), VaultError> {
    match front.house.vault().remove(&place(name)?).await {
        Ok(()) | Err(VaultError::Store(StoreError::NotFound(_))) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Where the secret of an agent that registered itself is kept.
pub(super) fn place(name: &Name) -> Result<SecretName, StoreError> {
    SecretName::new(format!("agentex/{name}/internal/registered")).map_err(|bad| StoreError::Corrupt(bad.to_string()))
}
