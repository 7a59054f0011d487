//! Where contracts get in each other's way, or in that of a source: two things at one place, or a secret that nobody makes.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use doorbell_core::source::Source;
use doorbell_server::contracts::{CONTRACT, Served, Wire};

use super::super::written::Written;
use super::super::{Cx, agentex};

/// What a listener of a contract's own tells of itself (`/health`, `/status`) is of one kind, and in Aether's words it is
/// one agent's, as one of its runners is one process.
pub(super) fn check_listeners(served: &[Served], sources: &[Source], written: &Written, cx: &Cx<'_>) {
    let offset = written.contracts.first().map_or(0, |c| c.name.offset);
    let agent = |s: &Served| {
        let mut triggers = sources.iter().flat_map(|s| &s.triggers);
        triggers.find(|t| t.name == s.trigger).map(|t| t.agent.clone())
    };
    let listens: BTreeSet<SocketAddr> = served.iter().filter_map(|s| s.listen).collect();
    for address in listens {
        let here = || served.iter().filter(|s| s.listen == Some(address));
        let aethers = || here().filter(|s| matches!(s.wire, Wire::Aether(_)));
        let agents: BTreeSet<_> = aethers().filter_map(agent).collect();
        if agents.len() > 1 {
            let problem = format!("the contract aether serves {} agents at {address}", agents.len());
            let advice = "Its /ready, /status and /metrics are one agent's: give each agent a `listen` of its own.";
            cx.report.error(offset, "contracts.aether", problem, advice);
        }
        if aethers().next().is_some() && here().any(|s| matches!(s.wire, Wire::Promptise(_))) {
            let problem = format!("the contracts aether and promptise both tell /health and /status at {address}");
            cx.report.error(offset, "contracts", problem, "Give one of them a `listen` of its own.");
        }
    }
}

/// A secret that is made by a contract needs the contract that makes it; without one nobody could ever ring.
pub(super) fn check_made(served: &[Served], sources: &[Source], written: &Written, cx: &Cx<'_>) {
    // What the contract `agentex` rings is checked with the keys of its agents.
    let by_agentex = |s: &Source| s.triggers.iter().any(|t| agentex::rings(written, t.name.as_str()));
    let makes = |s: &&Source| s.webhook().is_some_and(|w| w.preset.id == CONTRACT);
    for source in sources.iter().filter(makes) {
        let is_rung =
            |s: &Served| matches!(s.wire, Wire::Almyty) && source.triggers.iter().any(|t| t.name == s.trigger);
        if !served.iter().any(is_rung) && !by_agentex(source) {
            let own = written.sources.iter().map(|s| &s.name).chain(written.triggers.iter().map(|t| &t.name));
            let offset = own.into_iter().find(|n| n.value == source.name.as_str()).map_or(0, |n| n.offset);
            let problem = "auth = \"contract\", and no contract that makes secrets rings it";
            cx.report.error(
                offset,
                source.name.as_str(),
                problem,
                "Add [contracts.almyty.serve.ID] or [contracts.agentex.agents.NAME] with this trigger.",
            );
        }
    }
}

/// Two things served at the same place, and paths of sources that lie where a contract answers.
pub(super) fn check_twins(served: &[Served], sources: &[Source], written: &Written, cx: &Cx<'_>) {
    let offset = written.contracts.first().map_or(0, |c| c.name.offset);
    let mut seen = BTreeSet::new();
    for one in served {
        for path in one.paths() {
            let owner = sources.iter().find(|s| s.webhook().is_some_and(|w| w.path == path));
            if let (None, Some(owner)) = (one.listen, owner) {
                let problem = format!("`{path}` is the path of source `{}` already", owner.name);
                cx.report.error(offset, "contracts", problem, "Give the contract a `listen` of its own.");
            }
            if !seen.insert((one.listen, path.clone())) {
                let problem = format!("`{path}` is served twice at the same address");
                cx.report.error(offset, "contracts", problem, "Give one of them a `listen` of its own.");
            }
        }
    }
}
