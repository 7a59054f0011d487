//! What the edge keeps: how breakers stand.

use std::collections::BTreeMap;

use doorbell_core::Name;
use doorbell_core::breaker::Standing;

/// Its tables.
#[derive(Default)]
pub(super) struct Edge {
    pub(super) breakers: BTreeMap<Name, Standing>,
}
