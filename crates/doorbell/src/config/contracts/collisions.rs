//! Where contracts get in each other's way, or in that of a source: two things at one place, or a secret that nobody makes.

use std::cell::RefCell;
use std::net::SocketAddr;

use doorbell_core::source::Source;
use doorbell_server::contracts::{CONTRACT, Wire};

use super::super::section::At;
use super::super::server::ServerSettings;
use super::super::written::Written;
use super::super::{Cx, agentex};
use super::Entry;

/// The addresses that are listened on, with whose they are.
pub(super) struct Listens<'a> {
    taken: RefCell<Vec<(SocketAddr, String)>>,
    server: SocketAddr,
    cx: &'a Cx<'a>,
}

impl<'a> Listens<'a> {
    pub(super) fn new(server: &ServerSettings, cx: &'a Cx<'a>) -> Self {
        // A wrong address of the server's has been told, and is not the one that stands here.
        let is_known = !cx.report.is_told("server.listen");
        let taken = is_known.then(|| (server.listen, "server.listen".to_owned()));
        Self { taken: RefCell::new(taken.into_iter().collect()), server: server.listen, cx }
    }

    /// The address of an own listener; port 0 would leave nobody knowing where it is.
    pub(super) fn take(&self, at: &Option<At<String>>, key: &str) -> Option<SocketAddr> {
        let at = at.as_ref()?;
        let key = format!("{key}.listen");
        let wrong = |problem: String, advice: &str| self.cx.report.error(at.offset, &key, problem, advice);
        let Some(address) = at.value.parse::<SocketAddr>().ok().filter(|a| a.port() != 0) else {
            wrong(format!("`{:.80}` is not an address with a port", at.value), "Write for example \"127.0.0.1:9090\".");
            return None;
        };
        if address == self.server {
            wrong("this is the server's own address".into(), "Leave `listen` out to serve the contract there.");
            return None;
        }
        let mut taken = self.taken.borrow_mut();
        // Two that are the same share one listener.
        if let Some((other, whose)) = taken.iter().find(|(other, _)| overlap(address, *other)) {
            let problem = format!("`{address}` and `{other}` of {whose} cannot both be listened on");
            wrong(problem, "One of them is all addresses of that port: use another port, or the same address.");
        }
        taken.push((address, key.clone()));
        Some(address)
    }
}

/// Whether two addresses differ and yet have an address in common.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let is_any = one.ip().is_unspecified() || other.ip().is_unspecified();
    // `[::]` takes the addresses of IPv4 too (Linux, unless it is told otherwise), and no other of IPv6 does.
    let takes = |any: SocketAddr| any.ip().is_unspecified() && any.is_ipv6();
    let is_one_kind = one.is_ipv4() == other.is_ipv4() || takes(one) || takes(other);
    one != other && one.port() == other.port() && is_one_kind && is_any
}

/// What a listener of a contract's own tells of itself (`/health`, `/status`) is of one kind, and in Aether's words it is
/// one agent's, as one of its runners is one process.
pub(super) fn check_listeners(entries: &[&Entry], sources: &[Source], cx: &Cx<'_>) {
    let agent = |e: &&Entry| {
        let mut triggers = sources.iter().flat_map(|s| &s.triggers);
        triggers.find(|t| t.name == e.served.trigger).map(|t| t.agent.clone())
    };
    for (place, entry) in entries.iter().enumerate() {
        let Some(address) = entry.served.listen else { continue };
        let mut before = entries[..place].iter().filter(|e| e.served.listen == Some(address));
        let told = match &entry.served.wire {
            Wire::Aether(_) => {
                let other =
                    before.clone().find(|e| matches!(e.served.wire, Wire::Aether(_)) && agent(e) != agent(entry));
                let problem = |e: &Entry| format!("{} serves another agent at {address}", e.key);
                let advice = "Its /ready, /status and /metrics are one agent's: give each agent a `listen` of its own.";
                let other = other.map(|e| (problem(e), advice));
                other.or_else(|| before.find(|e| matches!(e.served.wire, Wire::Promptise(_))).map(|e| both(e, address)))
            }
            Wire::Promptise(_) => before.find(|e| matches!(e.served.wire, Wire::Aether(_))).map(|e| both(e, address)),
            _ => None,
        };
        if let Some((problem, advice)) = told {
            cx.report.error(entry.offset, &entry.key, problem, advice);
        }
    }
}

fn both(other: &Entry, address: SocketAddr) -> (String, &'static str) {
    let problem = format!("this and {} both tell /health and /status at {address}", other.key);
    (problem, "Give one of the contracts a `listen` of its own.")
}

/// A secret that is made by a contract needs the contract that makes it; without one nobody could ever ring.
pub(super) fn check_made(sources: &[Source], written: &Written, cx: &Cx<'_>) {
    // A trigger that cannot be read may be the one that is missing.
    let mut named = written.contracts.iter().flat_map(|c| {
        let (key, table) = (format!("contracts.{}", c.name.value), &c.table);
        let serve = table.serve.iter().flat_map(|at| at.value.keys()).map(|id| format!("serve.{id}"));
        let agents = table.agents.iter().flat_map(|at| at.value.keys()).map(|id| format!("agents.{id}"));
        let of_tables = serve.chain(agents).map(|table| format!("{key}.{table}.trigger"));
        of_tables.chain(["serve", "agents"].map(|part| format!("{key}.{part}"))).collect::<Vec<_>>()
    });
    if cx.report.is_told("contracts") || named.any(|key| cx.report.is_told(&key)) {
        return;
    }
    let makers = written.contracts.iter().filter(|c| c.name.value == "almyty");
    let served: Vec<_> = makers.flat_map(|c| c.table.serve.iter().flat_map(|at| &at.value)).collect();
    let by_almyty = |trigger: &str| {
        served.iter().any(|(_, at)| at.value.trigger.as_ref().is_some_and(|named| named.value == trigger))
    };
    for source in sources.iter().filter(|s| s.webhook().is_some_and(|w| w.preset.id == CONTRACT)) {
        // What the contract `agentex` rings is checked with the keys of its agents.
        let is_rung = |trigger: &str| by_almyty(trigger) || agentex::rings(written, trigger);
        // As written: a trigger with faults is rung all the same once they are mended.
        if written.triggers.iter().any(|t| t.listens_to(source.name.as_str()) && is_rung(&t.name.value)) {
            continue;
        }
        let own = written.sources.iter().find(|s| s.name.value == source.name.as_str()).map(|s| ("sources", &s.name));
        let short =
            || written.triggers.iter().find(|t| t.name.value == source.name.as_str()).map(|t| ("triggers", &t.name));
        let (table, offset) = own.or_else(short).map_or(("sources", 0), |(table, name)| (table, name.offset));
        let problem = "auth = \"contract\", and no contract that makes secrets rings it";
        let advice = "Add [contracts.almyty.serve.ID] or [contracts.agentex.agents.NAME] with this trigger.";
        cx.report.error(offset, &format!("{table}.{}", source.name), problem, advice);
    }
}

/// Two things served at the same place, and paths of sources that lie where a contract answers.
pub(super) fn check_twins(entries: &[&Entry], sources: &[Source], cx: &Cx<'_>) {
    let mut seen: Vec<(Option<SocketAddr>, String, &str)> = Vec::new();
    for entry in entries {
        let listen = entry.served.listen;
        for path in entry.served.paths() {
            let owner = sources.iter().find(|s| s.webhook().is_some_and(|w| w.path == path));
            if let (None, Some(owner)) = (listen, owner) {
                let problem = format!("`{path}` is the path of source `{}` already", owner.name);
                cx.report.error(entry.offset, &entry.key, problem, "Give the contract a `listen` of its own.");
            }
            match seen.iter().find(|(at, taken, _)| *at == listen && *taken == path) {
                Some((_, _, other)) => {
                    let problem = format!("`{path}` is served by {other} already, at the same address");
                    cx.report.error(entry.offset, &entry.key, problem, "Give one of them a `listen` of its own.");
                }
                None => seen.push((listen, path, &entry.key)),
            }
        }
    }
}
