//! `[contracts.*]`: the wires of other systems, each with what it serves. A contract rings a trigger that stands in the
//! file; how its sender is checked is the business of that trigger's source, so no contract opens what a source closes.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use doorbell_core::Name;
use doorbell_core::allowed::Allowed;
use doorbell_core::source::Source;
use doorbell_server::Contracts;
use doorbell_server::contracts::{
    Aether, CONTRACT, Datalayer, Pattern, Promptise, Reading, STANDING_PATHS, Served, Wire, names_a_host,
};

use super::Cx;
use super::agentex;
use super::agents::unknown;
use super::fault::suggest;
use super::secrets::Secrets;
use super::section::At;
use super::server::ServerSettings;
use super::values::{ContractAuth, PatternWord};
use super::written::{ContractTable, Named, ServeTable, Written};

/// The contracts that there are.
const KNOWN: &[&str] = &["datalayer", "promptise", "almyty", "aether", agentex::NAME];
/// What their clients may call things: it stands in a path, as it is.
const ID_BYTES_MAX: usize = 128;

/// What one thing served is made with.
struct Serving<'a> {
    contract: &'a str,
    key: String,
    table: &'a At<ServeTable>,
    source: &'a Source,
    cx: &'a Cx<'a>,
}

pub(super) fn contracts(
    written: &Written,
    sources: &[Source],
    server: &ServerSettings,
    secrets: &Secrets<'_>,
    cx: &Cx<'_>,
) -> Contracts {
    let (mut served, mut with_agents) = (Vec::new(), None);
    for named in &written.contracts {
        let contract = named.name.value.as_str();
        let key = format!("contracts.{contract}");
        if !KNOWN.contains(&contract) {
            let problem = format!("there is no contract `{contract:.80}`");
            cx.report.error(named.name.offset, &key, problem, suggest(contract, KNOWN.iter().copied()));
            continue;
        }
        let listen = listen(&named.table.listen, &key, server, cx);
        if contract == agentex::NAME {
            let around = agentex::Around { sources, server, secrets, cx };
            with_agents = Some(agentex::agentex(named, listen, &around));
            continue;
        }
        check_not_agents(named, &key, cx);
        let reading = reading(named, &key, cx);
        let entries = named.table.serve.iter().flat_map(|at| &at.value);
        if named.table.serve.as_ref().is_none_or(|at| at.value.is_empty()) {
            let problem = "this contract serves nothing";
            cx.report.error(named.name.offset, &key, problem, format!("Add [{key}.serve.ID] with a `trigger`."));
        }
        for (id, table) in entries {
            let key = format!("{key}.serve.{id}");
            let own = self::listen(&table.value.listen, &key, server, cx);
            let Some((trigger, source)) = trigger(id, table, &key, sources, cx) else { continue };
            let serving = Serving { contract, key, table, source, cx };
            let listen = own.or(listen);
            let Some(wire) = serving.wire(listen.unwrap_or(server.listen)) else { continue };
            served.push(Served { id: id.clone(), trigger, listen, reading, wire });
        }
    }
    check_made(&served, sources, written, cx);
    check_twins(&served, sources, written, cx);
    check_listeners(&served, sources, written, cx);
    // `/agents/ID` is whose agent?
    if let Some(own) = with_agents.as_ref().filter(|own| own.registering.is_some())
        && served.iter().any(|s| matches!(s.wire, Wire::Almyty) && s.listen == own.listen)
    {
        let offset = written.contracts.first().map_or(0, |c| c.name.offset);
        let problem =
            "with `register` the contracts `agentex` and `almyty` both answer `/agents/ID` at the same address";
        cx.report.error(offset, "contracts", problem, "Give one of them a `listen` of its own.");
    }
    Contracts::new(served).with_agentex(with_agents)
}

/// Tells of keys that only the contract with agents takes.
fn check_not_agents(named: &Named<ContractTable>, key: &str, cx: &Cx<'_>) {
    let given = [
        ("agents", named.table.agents.as_ref().map(|a| a.offset)),
        ("account_id", named.table.account_id.as_ref().map(|a| a.offset)),
        ("register", named.table.register.as_ref().map(|a| a.offset)),
        ("register_networks", named.table.register_networks.as_ref().map(|a| a.offset)),
    ];
    for (word, offset) in given.into_iter().filter_map(|(word, at)| Some((word, at?))) {
        let problem = format!("`{word}` means nothing to the contract `{}`", named.name.value);
        cx.report.error(offset, key, problem, "Leave it out.");
    }
}

/// The address of an own listener; port 0 would leave nobody knowing where it is.
fn listen(at: &Option<At<String>>, key: &str, server: &ServerSettings, cx: &Cx<'_>) -> Option<SocketAddr> {
    let at = at.as_ref()?;
    let key = format!("{key}.listen");
    let Some(address) = at.value.parse::<SocketAddr>().ok().filter(|a| a.port() != 0) else {
        let problem = format!("`{:.80}` is not an address with a port", at.value);
        cx.report.error(at.offset, &key, problem, "Write for example \"127.0.0.1:9090\".");
        return None;
    };
    if address == server.listen {
        let problem = "this is the server's own address";
        cx.report.error(at.offset, &key, problem, "Leave `listen` out to serve the contract there.");
        return None;
    }
    Some(address)
}

fn reading(named: &Named<ContractTable>, key: &str, cx: &Cx<'_>) -> Reading {
    match &named.table.auth {
        None => Reading::Token,
        Some(at) if at.value == ContractAuth::None => {
            let problem = "what this contract tells about its endpoints is shown to everybody who can reach it";
            cx.report.warning(at.offset, &format!("{key}.auth"), problem, "");
            Reading::Open
        }
        Some(at) => {
            let problem = "a contract's `auth` is \"none\" or not there";
            let advice = "How senders are checked is said by the trigger's source.";
            cx.report.error(at.offset, &format!("{key}.auth"), problem, advice);
            Reading::Token
        }
    }
}

fn trigger<'s>(
    id: &str,
    table: &At<ServeTable>,
    key: &str,
    sources: &'s [Source],
    cx: &Cx<'_>,
) -> Option<(Name, &'s Source)> {
    if id.len() > ID_BYTES_MAX || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b)) {
        let problem = format!("`{id:.80}` cannot stand in a path as it is");
        cx.report.error(table.offset, key, problem, "Use letters, digits, `-`, `.`, `_` and `~`.");
        return None;
    }
    let Some(at) = &table.value.trigger else {
        cx.report.error(table.offset, key, "nothing says which trigger is rung", "Add trigger = \"…\".");
        return None;
    };
    let found = sources.iter().find_map(|source| {
        let trigger = source.triggers.iter().find(|t| t.name.as_str() == at.value)?;
        Some((trigger.name.clone(), source))
    });
    match found {
        None => {
            let known: Vec<&str> = sources.iter().flat_map(|s| &s.triggers).map(|t| t.name.as_str()).collect();
            let (problem, advice) = unknown("trigger", &at.value, &known);
            cx.report.error(at.offset, &format!("{key}.trigger"), problem, advice);
            None
        }
        Some((_, source)) if source.webhook().is_none() => {
            let problem = format!("the source of trigger `{}` takes no webhooks", at.value);
            cx.report.error(at.offset, &format!("{key}.trigger"), problem, "Name a trigger of a webhook source.");
            None
        }
        found => found,
    }
}

impl Serving<'_> {
    fn wire(&self, address: SocketAddr) -> Option<Wire> {
        let (taken, wire): (&[&str], _) = match self.contract {
            "datalayer" => (&["enabled", "event_source", "description", "allowed_ips", "metadata"], self.datalayer()),
            "almyty" => (&[], Some(Wire::Almyty)),
            "promptise" => (&["path"], self.promptise(address)),
            "aether" => (&["path", "pattern", "input"], self.aether()),
            _ => return None,
        };
        self.check_keys(taken);
        wire
    }

    /// Tells of keys that mean nothing to this contract.
    fn check_keys(&self, taken: &[&str]) {
        let table = &self.table.value;
        let given = [
            ("enabled", table.enabled.as_ref().map(|a| a.offset)),
            ("event_source", table.event_source.as_ref().map(|a| a.offset)),
            ("description", table.description.as_ref().map(|a| a.offset)),
            ("allowed_ips", table.allowed_ips.as_ref().map(|a| a.offset)),
            ("metadata", table.metadata.as_ref().map(|a| a.offset)),
            ("path", table.path.as_ref().map(|a| a.offset)),
            ("pattern", table.pattern.as_ref().map(|a| a.offset)),
            ("input", table.input.as_ref().map(|a| a.offset)),
        ];
        for (word, offset) in given.into_iter().filter_map(|(word, at)| at.map(|at| (word, at))) {
            if !taken.contains(&word) {
                let problem = format!("`{word}` means nothing to the contract `{}`", self.contract);
                self.cx.report.error(offset, &self.key, problem, "Leave it out.");
            }
        }
    }

    fn datalayer(&self) -> Option<Wire> {
        let table = &self.table.value;
        if let Some(at) = table.event_source.as_ref().filter(|at| !at.value.is_empty()) {
            let key = format!("{}.event_source", self.key);
            if !names_a_host(&at.value) {
                let problem = format!("`{:.80}` names no host", at.value);
                self.cx.report.error(
                    at.offset,
                    &key,
                    problem,
                    "Write \"https://helpdesk.example.com\" or the host alone.",
                );
                return None;
            }
            let is_checked = self.source.shown["verified"].as_bool().unwrap_or(false);
            if !is_checked {
                let problem = "`event_source` is compared with what the request says of itself, which anybody can say";
                self.cx.report.warning(at.offset, &key, problem, "Give the trigger a secret, or name allowed_ips.");
            }
        }
        if let Some(at) = table.allowed_ips.as_ref().filter(|at| at.value.is_empty() && table.event_source.is_none()) {
            let problem = "an empty list of senders would let everybody in";
            let key = format!("{}.allowed_ips", self.key);
            self.cx.report.error(at.offset, &key, problem, "Name at least one, or leave it out.");
        }
        let nets = table.allowed_ips.iter().flat_map(|l| &l.value).map(|n| n.value.0).collect();
        Some(Wire::Datalayer(Datalayer {
            event_source: table.event_source.as_ref().map(|a| a.value.clone()).filter(|text| !text.is_empty()),
            description: table.description.as_ref().map_or_else(|| "External event".to_owned(), |a| a.value.clone()),
            enabled: table.enabled.as_ref().is_none_or(|a| a.value),
            allowed: Allowed::new(nets, Vec::new()),
        }))
    }
}

impl Serving<'_> {
    fn promptise(&self, address: SocketAddr) -> Option<Wire> {
        let path = self.path("/webhook")?;
        Some(Wire::Promptise(Promptise { path, port: address.port(), is_loopback: address.ip().is_loopback() }))
    }

    fn aether(&self) -> Option<Wire> {
        let table = &self.table.value;
        let (pattern, path) = match table.pattern.as_ref().map(|at| at.value) {
            None | Some(PatternWord::Trigger) => (Pattern::Trigger, "/trigger"),
            Some(PatternWord::Github) => (Pattern::Github, "/github"),
        };
        if let Some(at) = table.input.as_ref().filter(|at| !is_input_name(&at.value)) {
            let problem = format!("`{:.80}` is not a name for an input", at.value);
            let advice = "Use up to 64 letters, digits and `_`, as in \"webhookEvent\".";
            self.cx.report.error(at.offset, &format!("{}.input", self.key), problem, advice);
            return None;
        }
        Some(Wire::Aether(Aether { path: self.path(path)?, pattern }))
    }

    /// Where it listens; none if that cannot be.
    fn path(&self, default: &str) -> Option<String> {
        let Some(at) = &self.table.value.path else { return Some(default.to_owned()) };
        let standing = || {
            let is_standing = STANDING_PATHS.contains(&at.value.as_str());
            is_standing
                .then(|| (format!("`{}` is what a contract's listener tells of itself", at.value), "Use another path."))
        };
        if let Some((problem, advice)) = super::paths::wrong(&at.value).or_else(standing) {
            self.cx.report.error(at.offset, &format!("{}.path", self.key), problem, advice);
            return None;
        }
        Some(at.value.clone())
    }
}

fn is_input_name(text: &str) -> bool {
    let is_word = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    is_word && (1..=64).contains(&text.len())
}

/// What a listener of a contract's own tells of itself (`/health`, `/status`) is of one kind, and in Aether's words it is
/// one agent's, as one of its runners is one process.
fn check_listeners(served: &[Served], sources: &[Source], written: &Written, cx: &Cx<'_>) {
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
fn check_made(served: &[Served], sources: &[Source], written: &Written, cx: &Cx<'_>) {
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
fn check_twins(served: &[Served], sources: &[Source], written: &Written, cx: &Cx<'_>) {
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
