//! What the edge keeps: how breakers stand, API keys, and agents that registered themselves.

use std::collections::BTreeMap;

use doorbell_core::Name;
use doorbell_core::Timestamp;
use doorbell_core::breaker::Standing;
use doorbell_core::keys::{Key, KeyHash, KeyId};
use doorbell_core::ports::StoreError;
use doorbell_core::registration::Registration;

/// Its tables.
#[derive(Default)]
pub(super) struct Edge {
    pub(super) breakers: BTreeMap<Name, Standing>,
    /// In the order in which they were made.
    pub(super) keys: Vec<Key>,
    pub(super) registrations: BTreeMap<Name, Registration>,
}

impl Edge {
    pub(super) fn add_key(&mut self, key: Key) -> Result<(), StoreError> {
        if self.keys.iter().any(|k| (&k.agent, &k.name, k.kind) == (&key.agent, &key.name, key.kind) || k.id == key.id)
        {
            return Err(crate::edge::key_exists(&key));
        }
        self.keys.push(key);
        Ok(())
    }

    pub(super) fn rotate_key(&mut self, id: &KeyId, hash: KeyHash, until: Timestamp) -> Result<Key, StoreError> {
        let key = self.keys.iter_mut().find(|k| k.id == *id).ok_or_else(|| crate::edge::no_key(id))?;
        key.before = Some((key.hash, until));
        key.hash = hash;
        Ok(key.clone())
    }

    pub(super) fn remove_key(&mut self, id: &KeyId) -> Result<(), StoreError> {
        let at = self.keys.iter().position(|k| k.id == *id).ok_or_else(|| crate::edge::no_key(id))?;
        self.keys.remove(at);
        Ok(())
    }

    pub(super) fn put_registration(&mut self, mut agent: Registration) -> Registration {
        if let Some(before) = self.registrations.get(&agent.name) {
            agent.created_at = before.created_at;
        }
        self.registrations.insert(agent.name.clone(), agent.clone());
        agent
    }

    pub(super) fn remove_registration(&mut self, agent: &Name) -> Result<(), StoreError> {
        self.registrations.remove(agent).map(|_| ()).ok_or_else(|| crate::edge::no_registration(agent))
    }

    pub(super) fn key_used(&mut self, id: &KeyId, at: Timestamp) {
        if let Some(key) = self.keys.iter_mut().find(|k| k.id == *id) {
            key.last_used_at = key.last_used_at.max(Some(at));
        }
    }
}
