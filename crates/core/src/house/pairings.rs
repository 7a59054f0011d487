//! Sources that stand open for pairing: in the store, and in memory so that a stranger's request costs it nothing. The API
//! opens and closes, the door takes; and which sources have no secret yet, for `/ready` and the log.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::House;
use crate::ids::Name;
use crate::ports::StoreError;
use crate::seal::{KeepEarlier, OpenPairing, SecretName};
use crate::secret::Secret;
use crate::source::NotReady;
use crate::vault::VaultError;

/// Those that were opened and not closed.
#[derive(Debug, Default)]
pub(super) struct Pairings(Mutex<BTreeMap<Name, OpenPairing>>);

impl Pairings {
    pub(super) fn new(kept: Vec<OpenPairing>) -> Self {
        Self(Mutex::new(kept.into_iter().map(|p| (p.source.clone(), p)).collect()))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, OpenPairing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl House {
    /// How the source stands open, if its time is not over.
    pub fn open_for_pairing(&self, source: &Name) -> Option<OpenPairing> {
        let now = self.clock.now();
        self.pairings.lock().get(source).filter(|p| now <= p.until).cloned()
    }

    /// Opens a source for pairing, durably.
    ///
    /// # Errors
    /// What the store says; then nothing changed.
    pub async fn open_pairing(
        &self,
        source: &Name,
        span: Duration,
        earlier: KeepEarlier,
    ) -> Result<OpenPairing, StoreError> {
        let pairing = OpenPairing { source: source.clone(), until: self.clock.now() + span, earlier };
        self.store.open_pairing(pairing.clone()).await?;
        self.pairings.lock().insert(source.clone(), pairing.clone());
        Ok(pairing)
    }

    /// Closes a source for pairing, durably.
    ///
    /// # Errors
    /// What the store says; in memory it is closed all the same.
    pub async fn close_pairing(&self, source: &Name) -> Result<(), StoreError> {
        self.pairings.lock().remove(source);
        self.store.close_pairing(source.clone()).await
    }

    /// Keeps what the sender handed over, if the source is open; says whether it was.
    pub(crate) async fn take_paired(&self, source: &Name, secret: &Secret) -> Result<bool, VaultError> {
        let sealed = self.vault.seal(&SecretName::pairing(source), secret)?;
        let taken = self.store.take_paired(source.clone(), sealed).await?;
        if taken {
            self.pairings.lock().remove(source);
            self.vault.tell();
        }
        Ok(taken)
    }

    /// Sources that cannot check anybody now, and why; and those that go without a stored secret that the file names.
    pub async fn sources_without_secret(&self) -> Vec<(Name, NotReady)> {
        let catalog = self.catalog();
        let now = self.clock.now();
        let mut found = Vec::new();
        for source in catalog.sources.values().filter(|s| s.enabled) {
            let Some(webhook) = source.webhook() else { continue };
            let present = webhook.verifier.now(&self.vault, now).await;
            let why = match (present.verifier(), present.missing()) {
                (Err(why), _) => why.clone(),
                (Ok(_), [name, ..]) => {
                    let short = name.within("user").unwrap_or(name.as_str());
                    let reason = format!("the stored secret `{short}` is not there; its others are used");
                    NotReady { code: "secret_missing", reason }
                }
                (Ok(_), []) => continue,
            };
            found.push((source.name.clone(), why));
        }
        found
    }
}
