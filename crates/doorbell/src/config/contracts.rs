//! `[contracts.*]`: the wires of other systems, each with what it serves. A contract rings a trigger that stands in the
//! file; how its sender is checked is the business of that trigger's source, so no contract opens what a source closes.

use std::net::SocketAddr;

use doorbell_core::Name;
use doorbell_core::allowed::Allowed;
use doorbell_core::source::Source;
use doorbell_server::Contracts;
use doorbell_server::contracts::{
    Aether, Datalayer, Pattern, Promptise, Reading, STANDING_PATHS, Served, Wire, names_a_host,
};

use super::Cx;
use super::agentex;
use super::secrets::Secrets;
use super::section::At;
use super::server::ServerSettings;
use super::values::{ContractAuth, PatternWord};
use super::written::{ContractTable, Named, ServeTable, Written};
use doorbell_core::spelling::hint;

mod collisions;

use collisions::{Listens, check_listeners, check_made, check_twins};

/// The contracts that there are.
const KNOWN: &[&str] = &["datalayer", "promptise", "almyty", "aether", agentex::NAME];
/// The keys of its tables that each contract takes: its own, and those of `serve.ID`.
const TAKEN: &[(&str, &[&str], &[&str])] = &[
    (
        "datalayer",
        &["listen", "auth", "serve"],
        &["trigger", "listen", "enabled", "event_source", "description", "allowed_ips", "metadata"],
    ),
    ("promptise", &["listen", "auth", "serve"], &["trigger", "listen", "path"]),
    ("almyty", &["listen", "auth", "serve"], &["trigger", "listen"]),
    ("aether", &["listen", "auth", "serve"], &["trigger", "listen", "path", "pattern", "input"]),
    (agentex::NAME, &["listen", "auth", "account_id", "register", "register_networks", "agents"], &[]),
];

/// Which keys a contract's table takes, by the table's full key; none for other tables, which take all that they have.
pub(super) fn taken(key: &str) -> Option<&'static [&'static str]> {
    let mut parts = key.strip_prefix("contracts.")?.splitn(3, '.');
    let contract = parts.next()?;
    let (_, own, serve) = TAKEN.iter().find(|(name, ..)| *name == contract)?;
    match (parts.next(), parts.next()) {
        (None, _) => Some(own),
        (Some("serve"), Some(_)) if own.contains(&"serve") => Some(serve),
        _ => None,
    }
}

/// What their clients may call things: it stands in a path, as it is.
const ID_BYTES_MAX: usize = 128;

/// What one thing served is made with.
struct Serving<'a> {
    key: String,
    table: &'a ServeTable,
    /// Whether it has a listener where nothing else answers.
    is_apart: bool,
    /// None if the trigger is not there, or has faults.
    source: Option<&'a Source>,
    cx: &'a Cx<'a>,
}

/// Something served, with where it stands in the file.
struct Entry {
    served: Served,
    key: String,
    /// Where its path is written, else its table.
    offset: usize,
}

pub(super) fn contracts(
    written: &Written,
    sources: &[Source],
    server: &ServerSettings,
    secrets: &Secrets<'_>,
    cx: &Cx<'_>,
) -> Contracts {
    let (mut entries, mut with_agents) = (Vec::new(), None);
    let listens = Listens::new(server, cx);
    for named in &written.contracts {
        let contract = named.name.value.as_str();
        let key = format!("contracts.{contract}");
        if !KNOWN.contains(&contract) {
            let problem = format!("there is no contract `{contract:.80}`");
            cx.report.error(named.name.offset, &key, problem, hint(contract, KNOWN.iter().copied()));
            continue;
        }
        let listen = listens.take(&named.table.listen, &key);
        if contract == agentex::NAME {
            let around = agentex::Around { written, sources, server, secrets, cx };
            with_agents = Some(agentex::agentex(named, listen, &around));
            continue;
        }
        let reading = reading(named, &key, cx);
        let tables = named.table.serve.iter().flat_map(|at| &at.value);
        let is_told = cx.report.is_told_within(&format!("{key}.serve"));
        if !is_told && named.table.serve.as_ref().is_none_or(|at| at.value.is_empty()) {
            let problem = "this contract serves nothing";
            cx.report.error(named.name.offset, &key, problem, format!("Add [{key}.serve.ID] with a `trigger`."));
        }
        for (id, at) in tables {
            let key = format!("{key}.serve.{id}");
            let own = listens.take(&at.value.listen, &key);
            let rung = trigger(id, at, &key, (written, sources), cx);
            let listen = own.or(listen);
            let source = rung.as_ref().map(|(_, source)| *source);
            let serving = Serving { key, table: &at.value, is_apart: listen.is_some(), source, cx };
            // Looked at even where nothing can be served, so that all faults are told.
            let wire = serving.wire(contract, listen.unwrap_or(server.listen));
            let (Some((trigger, _)), Some(wire)) = (rung, wire) else { continue };
            let offset = at.value.path.as_ref().map_or(at.offset, |path| path.offset);
            let served = Served { id: id.clone(), trigger, listen, reading, wire };
            entries.push(Entry { served, key: serving.key, offset });
        }
    }
    check_made(sources, written, cx);
    // In the order of the file: what is told names the earlier one at the later.
    let mut in_order: Vec<&Entry> = entries.iter().collect();
    in_order.sort_by_key(|entry| entry.offset);
    check_twins(&in_order, sources, cx);
    check_listeners(&in_order, sources, cx);
    // `/agents/ID` is whose agent?
    let almyty = in_order.iter().find(|entry| {
        let own = with_agents.as_ref().filter(|own| own.registering.is_some());
        matches!(entry.served.wire, Wire::Almyty) && own.is_some_and(|own| own.listen == entry.served.listen)
    });
    if let Some(entry) = almyty {
        let problem = "with `contracts.agentex.register` both answer `/agents/ID` at the same address";
        cx.report.error(entry.offset, &entry.key, problem, "Give one of the two contracts a `listen` of its own.");
    }
    Contracts::new(entries.into_iter().map(|entry| entry.served).collect()).with_agentex(with_agents)
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

/// The trigger that a table names, with its source.
fn trigger<'s>(
    id: &str,
    table: &At<ServeTable>,
    key: &str,
    (written, sources): (&Written, &'s [Source]),
    cx: &Cx<'_>,
) -> Option<(Name, &'s Source)> {
    let fits = id.len() <= ID_BYTES_MAX && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b));
    if !fits || id.is_empty() {
        let problem = format!("`{id:.80}` cannot stand in a path as it is");
        cx.report.error(table.offset, key, problem, "Use letters, digits, `-`, `.`, `_` and `~`.");
    }
    let key = format!("{key}.trigger");
    let Some(at) = &table.value.trigger else {
        if !cx.report.is_told(&key) {
            let problem = "nothing says which trigger is rung";
            cx.report.error(table.offset, key.trim_end_matches(".trigger"), problem, "Add trigger = \"…\".");
        }
        return None;
    };
    rung(at, &key, (written, sources), cx).filter(|_| fits)
}

/// The trigger of this name, with its source; none if there is none, or if its own faults have been told.
pub(super) fn rung<'s>(
    at: &At<String>,
    key: &str,
    (written, sources): (&Written, &'s [Source]),
    cx: &Cx<'_>,
) -> Option<(Name, &'s Source)> {
    let known: Vec<&str> = written.triggers.iter().map(|t| t.name.value.as_str()).collect();
    if !known.contains(&at.value.as_str()) {
        super::agents::tell_unknown("trigger", at, key, &known, cx);
        return None;
    }
    let found = sources.iter().find_map(|source| {
        let trigger = source.triggers.iter().find(|t| t.name.as_str() == at.value)?;
        Some((trigger.name.clone(), source))
    });
    if found.as_ref().is_some_and(|(_, source)| source.webhook().is_none()) {
        let problem = format!("the source of trigger `{:.80}` takes no webhooks", at.value);
        cx.report.error(at.offset, key, problem, "Name a trigger of a webhook source.");
        return None;
    }
    found
}

impl Serving<'_> {
    fn wire(&self, contract: &str, address: SocketAddr) -> Option<Wire> {
        match contract {
            "datalayer" => self.datalayer(),
            "almyty" => Some(Wire::Almyty),
            "promptise" => self.promptise(address),
            "aether" => self.aether(),
            _ => None,
        }
    }

    fn datalayer(&self) -> Option<Wire> {
        let table = self.table;
        if let Some(at) = table.event_source.as_ref().filter(|at| !at.value.is_empty()) {
            let key = format!("{}.event_source", self.key);
            if !names_a_host(&at.value) {
                let problem = format!("`{:.80}` names no host", at.value);
                let advice = "Write \"https://helpdesk.example.com\" or the host alone.";
                self.cx.report.error(at.offset, &key, problem, advice);
            }
            if self.source.is_some_and(|source| !source.shown["verified"].as_bool().unwrap_or(false)) {
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
        let table = self.table;
        let (pattern, path) = match table.pattern.as_ref().map(|at| at.value) {
            None | Some(PatternWord::Trigger) => (Pattern::Trigger, "/trigger"),
            Some(PatternWord::Github) => (Pattern::Github, "/github"),
        };
        if let Some(at) = table.input.as_ref().filter(|at| !is_input_name(&at.value)) {
            let problem = format!("`{:.80}` is not a name for an input", at.value);
            let advice = "Use up to 64 letters, digits and `_`, as in \"webhookEvent\".";
            self.cx.report.error(at.offset, &format!("{}.input", self.key), problem, advice);
        }
        Some(Wire::Aether(Aether { path: self.path(path)?, pattern }))
    }

    /// Where it listens; none if that cannot be.
    fn path(&self, default: &str) -> Option<String> {
        let Some(at) = &self.table.path else { return Some(default.to_owned()) };
        let wrong = if self.is_apart { super::paths::odd } else { super::paths::wrong };
        let standing = || {
            let is_standing = STANDING_PATHS.contains(&at.value.as_str());
            is_standing
                .then(|| (format!("`{}` is what a contract's listener tells of itself", at.value), "Use another path."))
        };
        if let Some((problem, advice)) = wrong(&at.value).or_else(standing) {
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
