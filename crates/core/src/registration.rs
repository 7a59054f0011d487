//! Agents that have registered themselves over a wire contract (`agentex`): where their server is, and what they say of
//! themselves. Kept by the store, so that they are reached after a restart; the configuration's own agents are not among them.

use crate::clock::Timestamp;
use crate::ids::Name;

/// One such agent. Nothing in it is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Its name, which is its id too.
    pub name: Name,
    /// The base of its URLs. Whoever registered it named it, so it is called with the guard for addresses.
    pub acp_url: String,
    /// How it is spoken to, as the contract words it.
    pub acp_type: String,
    /// What it is for.
    pub description: String,
    /// What it takes, as the contract words it.
    pub input_type: Option<String>,
    /// What it says of its build: a JSON object.
    pub metadata: Option<String>,
    /// When it registered first.
    pub created_at: Timestamp,
    /// When it registered last.
    pub registered_at: Timestamp,
}
