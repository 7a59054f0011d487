//! Sealed secrets, and sources that stand open for pairing.

use std::collections::BTreeMap;

use doorbell_core::ports::StoreError;
use doorbell_core::seal::{Earlier, KeepEarlier, KeptSecret, NewSecret, OpenPairing, Sealed, SecretName, VALUES_MAX};
use doorbell_core::{Name, Timestamp};

use crate::edge::{no_secret, secret_exists, too_many_values};

/// Their table.
#[derive(Default)]
pub(super) struct Secrets {
    /// Oldest first.
    kept: Vec<KeptSecret>,
    last: u64,
    pub(super) pairings: BTreeMap<Name, OpenPairing>,
}

impl Secrets {
    pub(super) fn all(&self) -> impl Iterator<Item = &KeptSecret> {
        self.kept.iter().rev()
    }

    pub(super) fn put(&mut self, secret: NewSecret, earlier: Earlier) -> Result<(), StoreError> {
        let now = secret.made_at;
        let is_mine = |k: &KeptSecret| k.secret.name == secret.name;
        let good = self.kept.iter().filter(|k| is_mine(k) && k.secret.expires_at.is_none_or(|at| now < at)).count();
        match earlier {
            Earlier::MustNotBe if good > 0 => return Err(secret_exists(&secret.name)),
            Earlier::Until(_) | Earlier::Kept if good >= VALUES_MAX => return Err(too_many_values(&secret.name)),
            Earlier::Until(until) => {
                for kept in self.kept.iter_mut().filter(|k| k.secret.name == secret.name) {
                    kept.secret.expires_at = Some(kept.secret.expires_at.map_or(until, |at| at.min(until)));
                }
                self.kept.retain(|k| k.secret.name != secret.name || k.secret.expires_at.is_none_or(|at| now < at));
            }
            Earlier::Kept => {}
            Earlier::Removed | Earlier::MustNotBe => self.kept.retain(|k| k.secret.name != secret.name),
        }
        self.last += 1;
        self.kept.push(KeptSecret { id: self.last, secret });
        Ok(())
    }

    /// Keeps what a sender handed over and closes its source, if that is open.
    pub(super) fn take(&mut self, source: &Name, secret: NewSecret) -> Result<bool, StoreError> {
        let Some(open) = self.pairings.get(source).filter(|p| secret.made_at <= p.until) else { return Ok(false) };
        let earlier = match open.earlier {
            KeepEarlier::Yes => Earlier::Kept,
            KeepEarlier::No => Earlier::Removed,
        };
        self.put(secret, earlier)?;
        self.pairings.remove(source);
        Ok(true)
    }

    pub(super) fn reseal(&mut self, id: u64, sealed: Sealed) {
        if let Some(kept) = self.kept.iter_mut().find(|k| k.id == id) {
            kept.secret.sealed = sealed;
        }
    }

    pub(super) fn remove(&mut self, name: &SecretName) -> Result<(), StoreError> {
        let before = self.kept.len();
        self.kept.retain(|k| k.secret.name != *name);
        if self.kept.len() == before { Err(no_secret(name)) } else { Ok(()) }
    }

    /// Forgets what has expired.
    pub(super) fn sweep(&mut self, now: Timestamp) {
        self.kept.retain(|k| k.secret.expires_at.is_none_or(|at| now < at));
    }
}
