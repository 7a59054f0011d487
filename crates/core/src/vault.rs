//! The sealed secrets of the store, by name: puts them in, opens them, takes them out. Whoever keeps a secret for later (the
//! configuration's `{ stored = … }`, pairing, a wire contract) does it here, so that no secret reaches the store open.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::{Clock, Timestamp};
use crate::ports::{Store, StoreError};
use crate::seal::{Earlier, KeptSecret, MasterKeyId, MasterKeys, NewSecret, SealError, Sealed, SecretName};
use crate::secret::Secret;

/// Why the vault could not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum VaultError {
    /// The store says no.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A secret could not be sealed or opened.
    #[error("the {name}: {why}")]
    Seal {
        /// Which one.
        name: SecretName,
        /// Why.
        why: SealError,
    },
    /// The store holds secrets that none of the given keys opens.
    #[error("{}", other_keys(.sealed_with, .given))]
    OtherKeys {
        /// How many secrets each key that is missing has sealed.
        sealed_with: BTreeMap<MasterKeyId, usize>,
        /// The keys that are there.
        given: Vec<MasterKeyId>,
    },
}

fn other_keys(sealed_with: &BTreeMap<MasterKeyId, usize>, given: &[MasterKeyId]) -> String {
    let missing: Vec<String> = sealed_with.iter().map(|(id, count)| format!("{id} ({count} of them)")).collect();
    let given: Vec<String> = given.iter().map(ToString::to_string).collect();
    format!(
        "stored secrets were sealed with another master key: {}; given is {}. Put that key back, beside the present one \
         in a list if both are needed",
        missing.join(", "),
        given.join(", ")
    )
}

/// Looks whether the keys open all that is kept; opens nothing.
///
/// # Errors
/// [`VaultError::OtherKeys`] if one of the keys that sealed them is missing.
pub fn check_keys(kept: &[KeptSecret], keys: &MasterKeys) -> Result<(), VaultError> {
    let given = keys.ids();
    let mut sealed_with = BTreeMap::new();
    for id in kept.iter().map(|k| k.secret.sealed.key()).filter(|id| !given.contains(id)) {
        *sealed_with.entry(id).or_default() += 1;
    }
    if sealed_with.is_empty() { Ok(()) } else { Err(VaultError::OtherKeys { sealed_with, given }) }
}

/// What is known of a stored secret without opening it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretInfo {
    /// What it is called.
    pub name: SecretName,
    /// When its newest value was made.
    pub made_at: Timestamp,
    /// When the newest value expires.
    pub expires_at: Option<Timestamp>,
    /// Until when earlier values are good, one each.
    pub earlier_until: Vec<Timestamp>,
}

/// See the module.
pub struct Vault {
    store: Arc<dyn Store>,
    clock: Clock,
    keys: Arc<MasterKeys>,
    changed: AtomicU64,
}

impl Vault {
    /// Looks whether the keys open what the store holds, and seals anew with the first key what another one sealed: after
    /// this the others are no longer needed.
    ///
    /// # Errors
    /// [`VaultError::OtherKeys`] if a key is missing, before anything is changed.
    pub async fn open(store: Arc<dyn Store>, clock: Clock, keys: Arc<MasterKeys>) -> Result<Self, VaultError> {
        let kept = store.secrets().await?;
        check_keys(&kept, &keys)?;
        let given = keys.ids();
        let mut moved: usize = 0;
        for KeptSecret { id, secret } in &kept {
            let name = &secret.name;
            let again =
                keys.rewrap(name, &secret.sealed).map_err(|why| VaultError::Seal { name: name.clone(), why })?;
            if let Some(sealed) = again {
                store.reseal_secret(*id, sealed).await?;
                moved += 1;
            }
        }
        if moved > 0 {
            tracing::info!(moved, key = %given[0], "Stored secrets were sealed anew with the first master key; the others are no longer needed");
        }
        Ok(Self { store, clock, keys, changed: AtomicU64::new(0) })
    }

    /// Keeps a secret under a name; on disk when this returns.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] where [`Earlier::MustNotBe`] is not met, or with too many values of one name.
    pub async fn put(&self, name: &SecretName, secret: &Secret, earlier: Earlier) -> Result<(), VaultError> {
        let secret = self.seal(name, secret)?;
        self.store.put_secret(secret, earlier).await?;
        self.tell();
        Ok(())
    }

    /// A secret sealed, for a method of the store that keeps it together with something else.
    ///
    /// # Errors
    /// [`VaultError::Seal`].
    pub fn seal(&self, name: &SecretName, secret: &Secret) -> Result<NewSecret, VaultError> {
        let sealed = self.keys.seal(name, secret).map_err(|why| VaultError::Seal { name: name.clone(), why })?;
        Ok(NewSecret { name: name.clone(), sealed, made_at: self.clock.now(), expires_at: None })
    }

    /// The values of a name that are good now, newest first; none if there is no such secret. One indexed read.
    ///
    /// # Errors
    /// What the store says, and [`VaultError::Seal`] if one of them does not open.
    pub async fn get(&self, name: &SecretName) -> Result<Vec<Secret>, VaultError> {
        self.get_until(name).await.map(|(values, _)| values)
    }

    /// The same, and when the first of them expires.
    ///
    /// # Errors
    /// As [`Vault::get`].
    pub async fn get_until(&self, name: &SecretName) -> Result<(Vec<Secret>, Option<Timestamp>), VaultError> {
        let now = self.clock.now();
        let kept = self.store.secret(name.clone()).await?;
        let good: Vec<KeptSecret> = kept.into_iter().filter(|k| is_good(k, now)).collect();
        let values = good.iter().map(|k| self.open_one(name, &k.secret.sealed)).collect::<Result<_, _>>()?;
        Ok((values, good.iter().filter_map(|k| k.secret.expires_at).min()))
    }

    /// What is kept in a namespace, by name; no value.
    ///
    /// # Errors
    /// What the store says.
    pub async fn list(&self, namespace: &str) -> Result<Vec<SecretInfo>, VaultError> {
        let now = self.clock.now();
        let mut found: BTreeMap<SecretName, SecretInfo> = BTreeMap::new();
        for kept in self.store.secrets().await?.into_iter().filter(|k| is_good(k, now)) {
            let NewSecret { name, made_at, expires_at, .. } = kept.secret;
            if name.within(namespace).is_none() {
                continue;
            }
            match found.get_mut(&name) {
                Some(info) => info.earlier_until.extend(expires_at),
                None => {
                    let info = SecretInfo { name: name.clone(), made_at, expires_at, earlier_until: Vec::new() };
                    found.insert(name, info);
                }
            }
        }
        Ok(found.into_values().collect())
    }

    /// Takes every value of a name out.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn remove(&self, name: &SecretName) -> Result<(), VaultError> {
        self.store.remove_secret(name.clone()).await?;
        self.tell();
        Ok(())
    }

    /// Counts up whenever a secret was put in or taken out.
    pub fn version(&self) -> u64 {
        self.changed.load(Ordering::Acquire)
    }

    /// For whoever changed a secret in the store by another way.
    pub fn tell(&self) {
        self.changed.fetch_add(1, Ordering::AcqRel);
    }

    fn open_one(&self, name: &SecretName, sealed: &Sealed) -> Result<Secret, VaultError> {
        self.keys.open(name, sealed).map_err(|why| VaultError::Seal { name: name.clone(), why })
    }
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault").field("keys", &self.keys.ids()).finish_non_exhaustive()
    }
}

fn is_good(kept: &KeptSecret, now: Timestamp) -> bool {
    kept.secret.expires_at.is_none_or(|at| now < at)
}
