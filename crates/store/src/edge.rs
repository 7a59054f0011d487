//! What both stores say no to at the tables of the edge and of secrets, in the same words.

use doorbell_core::Name;
use doorbell_core::keys::{Key, KeyId};
use doorbell_core::ports::StoreError;
use doorbell_core::seal::{SecretName, VALUES_MAX};

/// A second key of one agent, kind and name.
pub(crate) fn key_exists(key: &Key) -> StoreError {
    let whose = key.agent.as_ref().map_or_else(|| "for all agents".to_owned(), |agent| format!("for agent `{agent}`"));
    StoreError::Conflict(format!("there is a key `{}` of type {} {whose} already", key.name, key.kind.as_str()))
}

/// A key that is not there.
pub(crate) fn no_key(id: &KeyId) -> StoreError {
    StoreError::NotFound(format!("key {id}"))
}

/// An agent that has not registered.
pub(crate) fn no_registration(agent: &Name) -> StoreError {
    StoreError::NotFound(format!("agent {agent}"))
}

/// A second value where there must be one.
pub(crate) fn secret_exists(name: &SecretName) -> StoreError {
    StoreError::Conflict(format!("there is a {name} already"))
}

/// More values of one name than are kept.
pub(crate) fn too_many_values(name: &SecretName) -> StoreError {
    StoreError::Conflict(format!(
        "the {name} has {VALUES_MAX} values that are still good: wait until an overlap is over, or set it without one"
    ))
}

/// A secret that is not there.
pub(crate) fn no_secret(name: &SecretName) -> StoreError {
    StoreError::NotFound(name.to_string())
}
