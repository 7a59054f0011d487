//! The agents' keys as they are kept: rows of the key table, so that making, listing and revoking have one place. What is
//! compared (external keys) is kept as a hash; what signs (GitHub's and Slack's secrets) is kept sealed.
//!
//! A row's name is `agentex TYPE NAME`, so that its index makes a name unique for each agent and type, and a key of another
//! purpose is never taken for one of these. The rows have no rights: they open nothing of the API.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::time::Duration;

use doorbell_core::house::House;
use doorbell_core::keys::{self, Key, Kind, NAME_MAX};
use doorbell_core::ports::StoreError;
use doorbell_core::seal::{Earlier, SecretName};
use doorbell_core::vault::{SecretInfo, VaultError};
use doorbell_core::{Name, Secret, Timestamp};

use super::registry;
use crate::front::Front;

const PREFIX: &str = "agentex ";
/// How long a name may be, so that the row's name fits.
pub(super) const KEY_NAME_MAX: usize = NAME_MAX - 24;

/// What a key is checked against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyType {
    /// The value itself, in a header.
    External,
    /// GitHub's signature.
    Github,
    /// Slack's signature.
    Slack,
}

impl KeyType {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::External => "external",
            Self::Github => "github",
            Self::Slack => "slack",
        }
    }
}

impl FromStr for KeyType {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::External, Self::Github, Self::Slack].into_iter().find(|k| k.as_str() == text).ok_or(())
    }
}

/// One key of an agent.
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) agent: Name,
    pub(super) kind: KeyType,
    pub(super) name: String,
}

impl Entry {
    fn of(key: Key) -> Option<Self> {
        let (kind, name) = key.name.strip_prefix(PREFIX)?.split_once(' ')?;
        let (kind, name, agent) = (kind.parse().ok()?, name.to_owned(), key.agent.clone()?);
        // One that a person made under such a name is not ours: it has rights.
        key.rights.is_empty().then_some(Self { key, agent, kind, name })
    }
}

/// All keys of this contract, oldest first.
pub(super) async fn all(front: &Front) -> Result<Vec<Entry>, StoreError> {
    Ok(front.house.store.keys().await?.into_iter().filter_map(Entry::of).collect())
}

/// The keys of an agent that are not over. Read each time: one that was removed opens nothing from then on.
pub(super) async fn of(front: &Front, agent: &Name) -> Result<Vec<Entry>, StoreError> {
    let now = front.house.clock.now();
    let mut entries = all(front).await?;
    entries.retain(|e| e.agent == *agent && e.key.expires_at.is_none_or(|at| now < at));
    Ok(entries)
}

/// A key to make.
pub(super) struct New<'n> {
    pub(super) agent: &'n Name,
    pub(super) kind: KeyType,
    pub(super) name: &'n str,
    /// Its value; none: one is made.
    pub(super) value: Option<Secret>,
}

/// Makes a key; the value is to be shown this one time.
pub(super) async fn add(front: &Front, new: New<'_>) -> Result<(Entry, Secret), VaultError> {
    let house = &front.house;
    let id = keys::new_id(&house.clock);
    let (made, of_made) = keys::new_secret(&id, &house.clock);
    let (value, hash) = match (new.kind, new.value) {
        (KeyType::External, Some(given)) => {
            let hash = keys::given_secret(given.expose());
            (given, hash)
        }
        // What signs has its own place: the hash of a value that nobody has.
        (KeyType::Github | KeyType::Slack, Some(given)) => (given, of_made),
        (KeyType::External, None) => (made, of_made),
        (KeyType::Github | KeyType::Slack, None) => {
            // Another value than the one whose hash is kept, for the same reason.
            let (signs, _) = keys::new_secret(&id, &house.clock);
            (signs, of_made)
        }
    };
    let key = Key {
        id: id.clone(),
        agent: Some(new.agent.clone()),
        name: format!("{PREFIX}{} {}", new.kind.as_str(), new.name),
        kind: Kind::External,
        rights: Vec::new(),
        created_at: house.clock.now(),
        expires_at: None,
        last_used_at: None,
        hash,
        before: None,
    };
    let entry = Entry { key: key.clone(), agent: new.agent.clone(), kind: new.kind, name: new.name.to_owned() };
    let is_sealed = new.kind != KeyType::External;
    if is_sealed {
        house.vault().put(&place(&entry)?, &value, Earlier::MustNotBe).await?;
    }
    if let Err(error) = house.store.add_key(key).await {
        // Of two that are made at once one is too late; its secret is nobody's.
        if is_sealed && let Err(left) = house.vault().remove(&place(&entry)?).await {
            tracing::warn!(error = %left, "A secret without a key could not be removed");
        }
        return Err(error.into());
    }
    tracing::info!(key = %entry.key.id, agent = %entry.agent, r#type = entry.kind.as_str(), "An agent's key was made");
    Ok((entry, value))
}

/// What another value of a key is.
pub(crate) struct Rotation {
    /// The next one, where somebody else makes it; none: one is made.
    pub(crate) value: Option<Secret>,
    /// Until when the present one is good beside it.
    pub(crate) until: Timestamp,
}

/// Why a key that signs was not rotated.
pub(crate) enum NotRotated {
    /// The value is missing, or not one.
    Bad(String),
    /// The vault or the store says no.
    Vault(VaultError),
}

impl From<VaultError> for NotRotated {
    fn from(error: VaultError) -> Self {
        Self::Vault(error)
    }
}

impl From<StoreError> for NotRotated {
    fn from(error: StoreError) -> Self {
        Self::Vault(error.into())
    }
}

/// Gives a key that signs another secret, and its row another time; none if it is no such key.
pub(crate) async fn rotate(front: &Front, key: &Key, how: Rotation) -> Option<Result<(Key, Secret), NotRotated>> {
    let entry = Entry::of(key.clone()).filter(|entry| entry.kind != KeyType::External)?;
    Some(rotated(front, &entry, how).await)
}

async fn rotated(front: &Front, entry: &Entry, how: Rotation) -> Result<(Key, Secret), NotRotated> {
    let value = match (how.value, entry.kind) {
        (Some(value), kind) => {
            super::keys::good_value(kind, value.expose()).map_err(|_| {
                NotRotated::Bad("`key` is no secret that signs: 8 to 4096 printable ASCII characters".into())
            })?;
            value
        }
        (None, KeyType::Slack) => {
            return Err(NotRotated::Bad("Slack makes its signing secret itself: send the next one as `key`".into()));
        }
        (None, _) => keys::new_secret(&entry.key.id, &front.house.clock).0,
    };
    front.house.vault().put(&place(entry)?, &value, Earlier::Until(how.until)).await?;
    // The row keeps the hash of a value that nobody has: it tells nothing of the secret.
    let (_, of_nobody) = keys::new_secret(&entry.key.id, &front.house.clock);
    let key = front.house.store.rotate_key(entry.key.id.clone(), of_nobody, how.until).await?;
    Ok((key, value))
}

/// Ends a key that was made here, with what it signs with; none if it was not.
pub(crate) async fn revoke(front: &Front, key: &Key) -> Option<Result<(), VaultError>> {
    let entry = Entry::of(key.clone())?;
    Some(remove(front, &entry).await)
}

/// How long a secret may be without a key: that is made after it.
const ORPHAN_AGE: Duration = Duration::from_secs(3600);

/// Removes sealed secrets whose key or agent is gone: a crash between the two, or a store that was restored. Says how many.
///
/// # Errors
/// What the store says.
pub async fn sweep(house: &House) -> Result<usize, VaultError> {
    let now = house.clock.now();
    let old = |info: &SecretInfo| now.since(info.made_at) >= ORPHAN_AGE && info.made_at <= now;
    // Before the keys: one that is made meanwhile is too young.
    let mut left: Vec<SecretName> =
        house.vault().list("agentex").await?.into_iter().filter(old).map(|info| info.name).collect();
    if left.is_empty() {
        return Ok(0);
    }
    let of_keys = house.store.keys().await?.into_iter().filter_map(Entry::of).map(|entry| place(&entry));
    let of_agents = house.store.registrations().await?.into_iter().map(|agent| registry::place(&agent.name));
    let owned: BTreeSet<SecretName> = of_keys.chain(of_agents).collect::<Result<_, _>>()?;
    left.retain(|name| !owned.contains(name));
    for name in &left {
        match house.vault().remove(name).await {
            Ok(()) | Err(VaultError::Store(StoreError::NotFound(_))) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(left.len())
}

/// What a key signs with, newest first; nothing for one that is compared.
pub(super) async fn secrets(front: &Front, entry: &Entry) -> Result<Vec<Secret>, VaultError> {
    front.house.vault().get(&place(entry)?).await
}

/// Ends a key, at once and for good.
pub(super) async fn remove(front: &Front, entry: &Entry) -> Result<(), VaultError> {
    // The row first: without it the secret opens nothing, whatever happens next.
    front.house.store.remove_key(entry.key.id.clone()).await?;
    if entry.kind != KeyType::External {
        match front.house.vault().remove(&place(entry)?).await {
            Ok(()) | Err(VaultError::Store(StoreError::NotFound(_))) => {}
            Err(error) => return Err(error),
        }
    }
    tracing::info!(key = %entry.key.id, agent = %entry.agent, "An agent's key was deleted");
    Ok(())
}

/// Where a key's secret is kept: under its id, so that no other key's can stand in its place.
fn place(entry: &Entry) -> Result<SecretName, StoreError> {
    let name = format!("agentex/{}/{}/{}", entry.agent, entry.kind.as_str(), entry.key.id);
    SecretName::new(name).map_err(|bad| StoreError::Corrupt(bad.to_string()))
}
