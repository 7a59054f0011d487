//! What both stores say no to at the edge's tables, in the same words.

use doorbell_core::keys::{Key, KeyId};
use doorbell_core::ports::StoreError;

/// A second key of one agent, kind and name.
pub(crate) fn key_exists(key: &Key) -> StoreError {
    let whose = key.agent.as_ref().map_or_else(|| "for all agents".to_owned(), |agent| format!("for agent `{agent}`"));
    StoreError::Conflict(format!("there is a key `{}` of type {} {whose} already", key.name, key.kind.as_str()))
}

/// A key that is not there.
pub(crate) fn no_key(id: &KeyId) -> StoreError {
    StoreError::NotFound(format!("key {id}"))
}
