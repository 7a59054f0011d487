//! What the wire contracts serve, as people are shown it: where their clients ring, and what answers. Asked by the API and by
//! `doorbell serve` when it starts.

use std::net::SocketAddr;

use doorbell_core::Name;
use doorbell_core::house::Catalog;
use doorbell_core::ports::StoreError;
use doorbell_core::registration::Registration;
use doorbell_core::source::Source;
use serde::Serialize;
use utoipa::ToSchema;

use super::agentex::{FORWARD, Mode};
use super::{CONTRACT, Contracts, Wire};
use crate::front::Front;

/// One thing that a contract serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Contract)]
pub struct ServedAt {
    /// Its table's name: `datalayer`, `promptise`, `almyty`, `aether`, `agentex`.
    pub contract: &'static str,
    /// What the contract's clients call it.
    pub id: String,
    /// The address of the contract's own listener; null: the server's.
    #[schema(value_type = Option<String>)]
    pub listen: Option<SocketAddr>,
    /// The path that its clients ring; what ends with `/` goes on with the agent's own.
    pub path: String,
    /// The trigger that it rings; null if requests are passed on.
    #[schema(value_type = Option<String>)]
    pub trigger: Option<Name>,
    /// The agent that the trigger starts; null if requests are passed on, or a reload took the trigger away.
    #[schema(value_type = Option<String>)]
    pub agent: Option<Name>,
    /// Where requests are passed on to; null if they become runs.
    pub forwards_to: Option<String>,
    /// Who named it: `file`, or `registered`, the agent itself by `POST /agents/register`.
    pub by: &'static str,
}

/// Named in the configuration.
const FILE: &str = "file";
/// Named itself.
const REGISTERED: &str = "registered";

impl ServedAt {
    /// `datalayer/helpdesk`: the contract and what its clients call this.
    pub fn name(&self) -> String {
        format!("{}/{}", self.contract, self.id)
    }

    /// Where its clients ring: a path of the server's own address, or one behind the address of the contract's listener.
    pub fn address(&self) -> String {
        match self.listen {
            Some(listen) => format!("{listen}{}", self.path),
            None => self.path.clone(),
        }
    }
}

impl Contracts {
    /// Everything that is served, in the order of the file.
    pub fn shown(&self, catalog: &Catalog) -> Vec<ServedAt> {
        let agent = |trigger: &Name| catalog.triggers.get(trigger).map(|t| t.agent.clone());
        let rung = self.served.iter().flat_map(|served| {
            served.paths().into_iter().map(|path| ServedAt {
                contract: served.wire.name(),
                id: served.id.clone(),
                listen: served.listen,
                path,
                trigger: Some(served.trigger.clone()),
                agent: agent(&served.trigger),
                forwards_to: None,
                by: FILE,
            })
        });
        let of_agents = self.agentex.iter().flat_map(|own| {
            own.agents.values().map(|acp| {
                let (trigger, forwards_to) = match &acp.mode {
                    Mode::Forward(forward) => (None, Some(without_user(&forward.acp_url))),
                    Mode::Queue(trigger) => (Some(trigger.clone()), None),
                };
                ServedAt {
                    contract: "agentex",
                    id: acp.name.to_string(),
                    listen: own.listen,
                    path: format!("{FORWARD}{}/", acp.name),
                    agent: trigger.as_ref().and_then(agent),
                    trigger,
                    forwards_to,
                    by: FILE,
                }
            })
        });
        rung.chain(of_agents).collect()
    }

    /// The agents that registered themselves, as [`Self::shown`] shows those of the file, which stand before them.
    pub(crate) fn registered(&self, kept: Vec<Registration>) -> Vec<ServedAt> {
        let Some(own) = self.agentex.as_ref().filter(|own| own.registering.is_some()) else { return Vec::new() };
        let kept = kept.into_iter().filter(|agent| !own.agents.contains_key(&agent.name));
        let shown = kept.map(|agent| ServedAt {
            contract: "agentex",
            path: format!("{FORWARD}{}/", agent.name),
            id: agent.name.to_string(),
            listen: own.listen,
            trigger: None,
            agent: None,
            // It was a URL when it was taken.
            forwards_to: agent.acp_url.parse().ok().map(|url| without_user(&url)),
            by: REGISTERED,
        });
        shown.collect()
    }

    /// The listener where agents may register themselves, none in it being the main one; none if they may not.
    pub fn registers_at(&self) -> Option<Option<SocketAddr>> {
        self.agentex.as_ref().filter(|own| own.registering.is_some()).map(|own| own.listen)
    }

    /// Whether requests to an agent of this name are the contract `agentex`'s: of the file, or, with what the store
    /// `kept` of it, registered.
    pub(crate) fn has_agent(&self, name: &Name, kept: Option<&Registration>) -> bool {
        let own = self.agentex.as_ref();
        own.is_some_and(|own| own.agents.contains_key(name) || (own.registering.is_some() && kept.is_some()))
    }
}

/// Everything that is served, the agents that registered themselves with it.
///
/// # Errors
/// If the store cannot be read.
pub(crate) async fn all(front: &Front) -> Result<Vec<ServedAt>, StoreError> {
    let contracts = front.contracts.load_full();
    let mut served = contracts.shown(&front.house.catalog());
    if contracts.registers_at().is_some() {
        served.extend(contracts.registered(front.house.store.registrations().await?));
    }
    Ok(served)
}

/// Where the events of a source come in: its own path, unless only contracts let anybody in, and those of contracts.
pub fn addresses(source: &Source, served: &[ServedAt]) -> Vec<String> {
    let own = source.webhook().filter(|webhook| webhook.preset.id != CONTRACT).map(|webhook| webhook.path.clone());
    own.into_iter().chain(of_source(source, served).map(ServedAt::address)).collect()
}

/// What of the contracts rings a trigger of this source.
pub fn of_source<'s>(source: &'s Source, served: &'s [ServedAt]) -> impl Iterator<Item = &'s ServedAt> {
    served.iter().filter(|s| s.trigger.as_ref().is_some_and(|name| source.triggers.iter().any(|t| t.name == *name)))
}

/// A URL without what may be a password in it.
fn without_user(url: &http::Uri) -> String {
    let authority = url.authority().map(|a| a.as_str()).unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{}://{host}{}", url.scheme_str().unwrap_or("http"), url.path())
}

impl Wire {
    fn name(&self) -> &'static str {
        match self {
            Self::Datalayer(_) => "datalayer",
            Self::Aether(_) => "aether",
            Self::Almyty => "almyty",
            Self::Promptise(_) => "promptise",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_an_agents_url_is_not_shown() {
        assert_eq!(without_user(&"http://u:p@10.0.0.5:8000/a".parse().unwrap()), "http://10.0.0.5:8000/a");
        assert_eq!(without_user(&"https://agent.example/".parse().unwrap()), "https://agent.example/");
    }
}
