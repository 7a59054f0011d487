//! `[contracts.agentex]`: agents that are HTTP servers, each with a door of its own (limits, addresses, the longest body). What
//! checks their senders are keys, which are made over HTTP and stand in no file.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use doorbell_core::allowed;
use doorbell_core::event::OnDuplicateFailed;
use doorbell_core::limits::{Limits, Meter, Meters};
use doorbell_core::payload::{Paths, PayloadRule};
use doorbell_core::ports::Reach;
use doorbell_core::provider::{Preset, Verifier, VerifyOptions};
use doorbell_core::source::{DedupRule, Respond, Source, Way, Webhook};
use doorbell_core::{Name, Secret};
use doorbell_net::guard::Allowed;
use doorbell_server::contracts::CONTRACT;
use doorbell_server::contracts::agentex::{
    AGENTS, Access, AcpAgent, Agentex, FORWARD, Forward, KEYS, Mode, Places, Registering,
};
use http::Uri;
use ipnet::IpNet;

use super::Cx;
use super::agents;
use super::contracts::rung;
use super::secrets::Secrets;
use super::section::At;
use super::server::{ServerSettings, above_zero, body_limit, quota, timeout};
use super::sources::SECRET_BYTES_MIN;
use super::values::{ContractAuth, RegisterWord};
use super::written::{AcpAgentTable, ContractTable, Named, TriggerWritten, Written};

/// The name in the file.
pub(super) const NAME: &str = "agentex";
/// What theirs waits for an agent (`WEBHOOK_REQUEST_TIMEOUT`).
const TIME_LIMIT: Duration = Duration::from_secs(15);
/// What GitHub sends at most.
const MAX_BODY: usize = 25 << 20;
/// Each holds a body and a connection; an agent that hangs must not hold all there are.
const MAX_CONCURRENT: u32 = 100;

/// How the events of an agent with a trigger are labelled, whoever of the senders that the contract knows has sent them. Its
/// check lets nobody in: the contract brings one for each request.
const QUEUED: &str = r#"
id = "contract"
name = "Wire contract"
keep_headers = ["x-github-event", "x-github-delivery", "x-slack-retry-num", "x-event-type", "idempotency-key"]
secrets = ["body:token"]
[verify]
scheme = "hmac"
hash = "sha256"
secret = "raw"
signature = "header:x-hub-signature-256"
prefix = "sha256="
encoding = "hex"
signed = "{body}"
[event]
id = ["header:x-github-delivery", "body:event_id", "body:trigger_id", "header:idempotency-key"]
type = ["header:x-github-event", "body:event.type", "body:command", "header:x-event-type", "body:type"]
subject = [
  "{body:repository.full_name}#{body:number}", "{body:repository.full_name}#{body:issue.number}",
  "{body:repository.full_name}#{body:pull_request.number}", "body:repository.full_name", "body:organization.login",
  "body:event.channel", "body:channel_id", "body:channel.id",
]
actor = ["body:sender.login", "body:event.user", "body:user_id", "body:user.id"]
[payload]
format = "auto"
form_json = "payload"
"#;

/// The preset of a trigger with `auth = "contract"` that an agent of this contract rings.
pub(super) fn queued(cx: &Cx<'_>) -> Option<Arc<Preset>> {
    let parsed = Preset::parse(QUEUED, "contract.toml");
    parsed
        .map_err(|faults| faults.iter().for_each(|f| cx.report.error(0, "contracts", &f.message, "")))
        .ok()
        .map(Arc::new)
}

/// Whether an agent of this contract rings the trigger.
pub(super) fn rings(written: &Written, trigger: &str) -> bool {
    let tables = written.contracts.iter().filter(|c| c.name.value == NAME);
    let mut agents = tables.flat_map(|c| c.table.agents.iter().flat_map(|a| a.value.values()));
    agents.any(|a| a.value.trigger.as_ref().is_some_and(|t| t.value == trigger))
}

/// What the table is resolved with.
pub(super) struct Around<'a> {
    pub(super) written: &'a Written,
    pub(super) sources: &'a [Source],
    pub(super) server: &'a ServerSettings,
    pub(super) secrets: &'a Secrets<'a>,
    pub(super) cx: &'a Cx<'a>,
}

pub(super) fn agentex(named: &Named<ContractTable>, listen: Option<SocketAddr>, around: &Around<'_>) -> Agentex {
    let (cx, key) = (around.cx, format!("contracts.{NAME}"));
    let access = match &named.table.auth {
        None => Access::Token,
        Some(at) if at.value == ContractAuth::Loopback => {
            let problem = "whoever can open a connection on this machine may make keys for the agents";
            cx.report.warning(at.offset, &format!("{key}.auth"), problem, "");
            Access::Loopback
        }
        Some(at) => {
            let problem = "keys are not shown to everybody";
            cx.report.error(at.offset, &format!("{key}.auth"), problem, "Write \"loopback\", or leave it out.");
            Access::Token
        }
    };
    let written = named.table.agents.iter().flat_map(|at| &at.value);
    let registering = registering(named, &key, around);
    let is_told = cx.report.is_told_within(&format!("{key}.agents")) || named.table.register.is_some();
    if !is_told && named.table.agents.as_ref().is_none_or(|at| at.value.is_empty()) {
        let advice = format!("Add [{key}.agents.NAME] with an `acp_url`.");
        cx.report.error(named.name.offset, &key, "this contract has no agents", advice);
    }
    let mut made = BTreeMap::new();
    for (name, table) in written {
        let at = At { value: name.clone(), offset: table.offset };
        let Some(name) = agents::name(&at, &format!("{key}.agent"), cx) else { continue };
        if let Some(agent) = agent(&name, table, around) {
            made.insert(name, Arc::new(agent));
        }
    }
    if listen.is_none() {
        check_paths(named, around);
    }
    Agentex {
        listen,
        access,
        account: named.table.account_id.as_ref().map(|a| a.value.clone()).filter(|a| !a.is_empty()),
        public_url: around.server.public_url.clone(),
        agents: made,
        registering,
    }
}

/// How agents register themselves: with the same door as one of the file has that sets nothing.
fn registering(named: &Named<ContractTable>, key: &str, around: &Around<'_>) -> Option<Registering> {
    let (cx, table) = (around.cx, &named.table);
    let networks: Vec<IpNet> = table.register_networks.iter().flat_map(|at| &at.value).map(|net| net.value.0).collect();
    let Some(word) = &table.register else {
        if let Some(at) = &table.register_networks {
            let problem = "`register_networks` means nothing without `register`";
            cx.report.error(at.offset, key, problem, "Add register = \"token\", or leave it out.");
        }
        return None;
    };
    let access = match word.value {
        RegisterWord::Token => Access::Token,
        RegisterWord::Loopback => {
            let problem = "whoever can open a connection on this machine may register agents";
            cx.report.warning(word.offset, &format!("{key}.register"), problem, "");
            Access::Loopback
        }
    };
    let Some(fetch) = cx.world.fetch.reaching(&networks) else {
        cx.report.error(word.offset, &format!("{key}.register"), "there is no guarded way out to such agents", "");
        return None;
    };
    let allowed = Allowed::also(&networks);
    let judge = move |text: &str| {
        let url = base(text).map_err(|(problem, advice)| format!("{problem}. {advice}"))?;
        let host = url.host().unwrap_or_default();
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
        match literal.map(|ip| allowed.call(ip)) {
            Some(Err(what)) => Err(format!("it is {what}, and `register_networks` does not name its network")),
            _ => Ok(url),
        }
    };
    let parts = Parts::of(&AcpAgentTable::default(), (key, word.offset), around)?;
    let door = move |name: &Name| parts.door(name, &AcpAgentTable::default());
    Some(Registering::new(access, fetch, Box::new(judge), Box::new(door)))
}

/// On the server's own address no source may lie where the contract answers.
fn check_paths(named: &Named<ContractTable>, around: &Around<'_>) {
    for source in around.sources {
        let Some(path) = source.webhook().map(|w| w.path.as_str()) else { continue };
        let of_agents = path == AGENTS || path.starts_with(&format!("{AGENTS}/"));
        if path.starts_with(FORWARD)
            || path == KEYS
            || path.starts_with(&format!("{KEYS}/"))
            || (named.table.register.is_some() && of_agents)
        {
            let problem = format!("`{path}` of source `{}` lies where this contract answers", source.name);
            let key = format!("contracts.{NAME}");
            around.cx.report.error(named.name.offset, &key, problem, "Give the contract a `listen` of its own.");
        }
    }
}

fn agent(name: &Name, at: &At<AcpAgentTable>, around: &Around<'_>) -> Option<AcpAgent> {
    let (cx, table) = (around.cx, &at.value);
    let key = format!("contracts.{NAME}.agents.{name}");
    let door = door(name, at, &key, around);
    let mode = match (&table.acp_url, &table.trigger) {
        (Some(url), None) => forward(url, at, &key, around).map(Mode::Forward),
        (None, Some(trigger)) => queue(trigger, table, &key, around).map(Mode::Queue),
        (None, None) if ["acp_url", "trigger"].iter().any(|part| cx.report.is_told(&format!("{key}.{part}"))) => None,
        (None, None) => {
            let advice = "Add acp_url = \"http://…\" to pass requests on, or trigger = \"…\" to queue them.";
            cx.report.error(at.offset, &key, "nothing says what becomes of requests", advice);
            None
        }
        (Some(_), Some(trigger)) => {
            let problem = "requests are passed on or queued, not both";
            cx.report.error(trigger.offset, &key, problem, "Keep one of `acp_url` and `trigger`.");
            None
        }
    };
    let twin = around.sources.iter().find(|s| s.name == *name);
    // As written: a trigger with faults is the agent's own all the same.
    let named = |t: &Named<TriggerWritten>| table.trigger.as_ref().is_some_and(|at| at.value == t.name.value);
    let is_told = cx.report.is_told(&format!("{key}.trigger"));
    let own_trigger =
        |s: &Source| is_told || around.written.triggers.iter().any(|t| named(t) && t.listens_to(s.name.as_str()));
    if let Some(source) = twin.filter(|s| !own_trigger(s)) {
        let problem = format!("`{}` is the name of a source, and decisions are told apart by it", source.name);
        cx.report.error(at.offset, &key, problem, "Give one of them another name.");
    }
    Some(AcpAgent { name: name.clone(), source: Arc::new(door?), mode: mode? })
}

fn forward(url: &At<String>, at: &At<AcpAgentTable>, key: &str, around: &Around<'_>) -> Option<Forward> {
    let (cx, table) = (around.cx, &at.value);
    let secrets = match &table.secret {
        Some(list) => around.secrets.given(list, &format!("{key}.secret"))?,
        None => {
            let problem = "the agent cannot tell forwarded requests from others: they are not signed";
            cx.report.warning(at.offset, key, problem, "Add secret = { env = \"…\" }, and have the agent check it.");
            Vec::new()
        }
    };
    if let Some(list) = table.secret.as_ref().filter(|_| secrets.iter().any(|s| s.expose().len() < SECRET_BYTES_MIN)) {
        let problem = format!("a secret is shorter than {SECRET_BYTES_MIN} bytes, so it may be guessed");
        cx.report.warning(list.offset, &format!("{key}.secret"), problem, "Make one with: openssl rand -hex 32");
    }
    let places = above_zero(&table.max_concurrent, &format!("{key}.max_concurrent"), cx).unwrap_or(MAX_CONCURRENT);
    let time_limit = timeout(&table.timeout, &format!("{key}.timeout"), cx).unwrap_or(TIME_LIMIT);
    let acp_url = acp_url(url, &format!("{key}.acp_url"), cx)?;
    let (places, fetch) = (Arc::new(Places::new(places)), cx.world.fetch.clone());
    Some(Forward { acp_url, secrets, time_limit, places, fetch, reach: Reach::Any })
}

/// The value is not repeated in the faults: it may hold a secret.
fn acp_url(at: &At<String>, key: &str, cx: &Cx<'_>) -> Option<Uri> {
    base(&at.value).map_err(|(problem, advice)| cx.report.error(at.offset, key, problem, advice)).ok()
}

/// Whether a path climbs, also as it may be written for a URL: what is called would not be what was signed.
fn has_dots(path: &str) -> bool {
    path.to_ascii_lowercase().replace("%2e", ".").split('/').any(|part| part == "." || part.contains(".."))
}

/// What an agent's paths lie below; else what is wrong and what to do.
fn base(text: &str) -> Result<Uri, (&'static str, &'static str)> {
    let example = "Write for example \"http://10.0.0.5:8000\".";
    let url = text.parse::<Uri>().map_err(|_| ("this is not a URL", example))?;
    let authority = url.authority().ok_or(("this names no host", example))?;
    if !matches!(url.scheme_str(), Some("http" | "https")) {
        return Err(("an agent is reached over http or https", example));
    }
    if authority.as_str().contains('@') {
        return Err(("a URL that carries a name or password is told in logs", "Leave them out."));
    }
    if url.query().is_some() || doorbell_core::forward::target(&url, "", None).is_err() || has_dots(url.path()) {
        return Err(("the base of an agent's paths has no query and no dots", example));
    }
    Ok(url)
}

fn queue(trigger: &At<String>, table: &AcpAgentTable, key: &str, around: &Around<'_>) -> Option<Name> {
    let cx = around.cx;
    let of_the_trigger = [
        ("secret", table.secret.as_ref().map(|a| a.offset)),
        ("timeout", table.timeout.as_ref().map(|a| a.offset)),
        ("max_concurrent", table.max_concurrent.as_ref().map(|a| a.offset)),
        ("max_body", table.max_body.as_ref().map(|a| a.offset)),
        ("allowed_sources", table.allowed_sources.as_ref().map(|a| a.offset)),
        ("rate_limit", table.rate_limit.as_ref().map(|a| a.offset)),
        ("rate_limit_per_address", table.rate_limit_per_address.as_ref().map(|a| a.offset)),
        ("failed_auth_limit", table.failed_auth_limit.as_ref().map(|a| a.offset)),
    ];
    for (word, offset) in of_the_trigger.into_iter().filter_map(|(word, at)| Some((word, at?))) {
        let problem = format!("`{word}` means nothing to an agent with a trigger");
        cx.report.error(offset, key, problem, "Set it on the trigger, its source or its agent, or leave it out.");
    }
    rung(trigger, &format!("{key}.trigger"), (around.written, around.sources), cx).map(|(name, _)| name)
}

/// The agent's door.
fn door(name: &Name, at: &At<AcpAgentTable>, key: &str, around: &Around<'_>) -> Option<Source> {
    let (cx, table) = (around.cx, &at.value);
    if let Some(at) = table.allowed_sources.as_ref().filter(|l| l.value.is_empty()) {
        let problem = "an empty list of senders would let everybody in";
        cx.report.error(at.offset, &format!("{key}.allowed_sources"), problem, "Name at least one, or leave it out.");
    }
    Parts::of(table, (key, at.offset), around)?.door(name, table)
}

/// What a door is made of that does not depend on whose it is.
struct Parts {
    preset: Arc<Preset>,
    nobody: Secret,
    max_body: usize,
    max_hops: u32,
    rate_limit: Option<Arc<Meter>>,
}

impl Parts {
    /// Its own check lets nobody in: the contract brings one for each request.
    fn of(table: &AcpAgentTable, (key, offset): (&str, usize), around: &Around<'_>) -> Option<Self> {
        let (cx, server) = (around.cx, around.server);
        let preset = queued(cx)?;
        let nobody = Secret::new((0..4).map(|_| format!("{:016x}", cx.world.clock.random())).collect::<String>());
        let max_body = match &table.max_body {
            Some(m) => body_limit(m.value.0, m.offset, &format!("{key}.max_body"), cx)?,
            None => server.max_body.max(MAX_BODY),
        };
        if max_body > server.max_body_memory {
            let problem = format!("a body may be {max_body} bytes long, and so much is never free");
            cx.report.error(offset, key, problem, "Raise server.max_body_memory, or set a smaller `max_body`.");
        }
        let rate_limit = server.rate_limit.clone();
        Some(Self { preset, nobody, max_body, max_hops: server.max_hops, rate_limit })
    }

    fn door(&self, name: &Name, table: &AcpAgentTable) -> Option<Source> {
        let nobody = std::slice::from_ref(&self.nobody);
        let verifier = Verifier::new(self.preset.clone(), nobody, VerifyOptions::default()).ok()?;
        let webhook = Webhook {
            path: format!("{FORWARD}{name}/"),
            public_url: None,
            verifier: verifier.into(),
            keys: None,
            payload: PayloadRule::default(),
            secret_in_body: false,
            kept_headers: self.preset.kept_headers(),
            allowed: allowed::Allowed::new(
                table.allowed_sources.iter().flat_map(|l| &l.value).map(|n| n.value.0).collect(),
                Vec::new(),
            ),
            limits: Limits {
                source: quota(&table.rate_limit).map(Meter::new),
                address: quota(&table.rate_limit_per_address).map(Meters::new),
                server: self.rate_limit.clone(),
                failures: quota(&table.failed_auth_limit).map(Meters::new),
            },
            max_body: self.max_body,
            respond: Respond::Accepted,
            preset: Arc::new(Preset { id: CONTRACT.to_owned(), ..(*self.preset).clone() }),
        };
        Some(Source {
            name: name.clone(),
            way: Way::Webhook(Box::new(webhook)),
            triggers: Vec::new(),
            paths: Paths::default(),
            dedup: DedupRule::Auto,
            replay_window: Duration::ZERO,
            on_duplicate_failed: OnDuplicateFailed::Answer,
            ignore_actors: Vec::new(),
            max_hops: self.max_hops,
            enabled: true,
            shown: serde_json::Value::Null,
        })
    }
}
