//! The agents' keys as they are kept: rows of the key table, so that making, listing and revoking have one place. What is
//! compared (external keys) is kept as a hash; what signs (GitHub's and Slack's secrets) is kept sealed.
//!
//! A row's name is `agentex TYPE NAME`, so that its index makes a name unique for each agent and type, and a key of another
//! purpose is never taken for one of these. The rows have no rights: they open nothing of the API.

use std::str::FromStr;

use doorbell_core::keys::{self, Key, Kind, NAME_MAX};
use doorbell_core::ports::StoreError;
use doorbell_core::seal::{Earlier, SecretName};
use doorbell_core::vault::VaultError;
use doorbell_core::{Name, Secret};

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
