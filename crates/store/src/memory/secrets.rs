//! Sealed secrets.

use doorbell_core::Timestamp;
use doorbell_core::ports::StoreError;
use doorbell_core::seal::{Earlier, KeptSecret, NewSecret, Sealed, SecretName, VALUES_MAX};

use crate::edge::{no_secret, secret_exists, too_many_values};

/// Their table.
#[derive(Default)]
pub(super) struct Secrets {
    /// Oldest first.
    kept: Vec<KeptSecret>,
    last: u64,
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
            Earlier::Until(_) if good >= VALUES_MAX => return Err(too_many_values(&secret.name)),
            Earlier::Until(until) => {
                for kept in self.kept.iter_mut().filter(|k| k.secret.name == secret.name) {
                    kept.secret.expires_at = Some(kept.secret.expires_at.map_or(until, |at| at.min(until)));
                }
                self.kept.retain(|k| k.secret.name != secret.name || k.secret.expires_at.is_none_or(|at| now < at));
            }
            Earlier::Removed | Earlier::MustNotBe => self.kept.retain(|k| k.secret.name != secret.name),
        }
        self.last += 1;
        self.kept.push(KeptSecret { id: self.last, secret });
        Ok(())
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
