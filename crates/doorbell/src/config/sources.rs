//! `[sources.*]`, and the sources that triggers bring along: how each is verified, labelled, deduplicated and limited.
//!
//! A webhook without a check is an error unless `auth = "none"` says so by name: nothing here fails open.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use doorbell_core::allowed::Allowed;
use doorbell_core::event::OnDuplicateFailed;
use doorbell_core::limits::{Limits, Meter, Meters};
use doorbell_core::payload::{Paths, PayloadKind, PayloadRule};
use doorbell_core::ports::Retention;
use doorbell_core::provider::{JwtAlgorithm, KeyCache, KeyForm, Preset, Scheme, VerifyOptions};
use doorbell_core::seal::SecretName;
use doorbell_core::source::{DedupRule, LiveVerifier, Recipe, Respond, SecretPlace, Source, Way, Webhook};
use doorbell_core::trigger::Trigger;
use doorbell_core::{Name, Secret};
use doorbell_server::contracts::CONTRACT;
use serde_json::{Value, json};

use super::client_cert::{Trusted, check_proxies};
use super::dress::{Dress, dress};
use super::paths::Taken;
use super::provider::preset;
use super::secrets::Secrets;
use super::section::At;
use super::server::{ServerSettings, body_limit, quota, timeout};
use super::triggers::{BySource, filter};
use super::values::{AllowedSource, OnDuplicateFailedWord, RespondWord, SourceKind, lasting_text};
use super::written::{Named, SourceTable, TriggerWritten, Written};
use super::{Cx, Sender, agentex, agents};

const REPLAY_WINDOW: Duration = Duration::from_secs(600);
/// A shorter secret may be guessed.
pub(super) const SECRET_BYTES_MIN: usize = 16;
/// Most senders hang up after 30 s, many after 10.
const RESPOND_TIMEOUT: Duration = Duration::from_secs(25);

/// What a source is made with.
pub(super) struct Around<'a> {
    pub(super) written: &'a Written,
    pub(super) cx: &'a Cx<'a>,
    pub(super) secrets: &'a Secrets<'a>,
    pub(super) server: &'a ServerSettings,
    pub(super) retention: Retention,
}

/// The sources, and how to send to the webhooks among them.
pub(super) struct Made {
    pub(super) sources: Vec<Source>,
    pub(super) senders: BTreeMap<Name, Sender>,
}

/// A source as written, wherever that is.
pub(super) struct Given<'w> {
    pub(super) name: &'w At<String>,
    pub(super) table: &'w SourceTable,
    /// `sources.x` or `triggers.x`.
    pub(super) key: String,
}

pub(super) fn sources(written: &Written, mut triggers: BySource, around: &Around<'_>) -> Made {
    let own = written.sources.iter().map(|s| Given {
        name: &s.name,
        table: &s.table,
        key: format!("sources.{}", s.name.value),
    });
    // A trigger and a source of one name have been told of.
    let twin = |name: &str| written.sources.iter().any(|s| s.name.value == name);
    let brought = written
        .triggers
        .iter()
        .filter(|t| t.table.first_of_way_in.is_some() && t.table.trigger.source.is_none() && !twin(&t.name.value));
    let brought =
        brought.map(|t| Given { name: &t.name, table: &t.table.way_in, key: format!("triggers.{}", t.name.value) });
    let mut made = Made { sources: Vec::new(), senders: BTreeMap::new() };
    let mut taken = Taken::default();
    for given in own.chain(brought) {
        let what = if given.key.starts_with("sources") { "source" } else { "trigger" };
        let name = agents::name(given.name, what, around.cx);
        let listeners = name.as_ref().and_then(|n| triggers.remove(n)).unwrap_or_default();
        let wanted = written
            .triggers
            .iter()
            .any(|t| t.table.trigger.source.as_ref().is_some_and(|s| s.value == given.name.value));
        if listeners.is_empty() && !wanted && what == "source" && name.is_some() {
            let advice = format!("Add a trigger with source = \"{}\".", given.name.value);
            around.cx.report.warning(given.name.offset, &given.key, "no trigger listens to this source", advice);
        }
        let way = way(&given, &mut taken, around);
        let (Some(name), Some((way, secret))) = (name, way) else { continue };
        if let Way::Webhook(webhook) = &way {
            made.senders.insert(name.clone(), sender(&name, webhook, secret, &listeners));
        }
        made.sources.extend(source(name, way, listeners, &given, around));
    }
    made
}

fn sender(name: &Name, webhook: &Webhook, secret: Option<SecretPlace>, listeners: &[Arc<Trigger>]) -> Sender {
    Sender {
        source: name.clone(),
        path: webhook.path.clone(),
        preset: webhook.preset.clone(),
        secret,
        triggers: listeners.iter().map(|t| t.name.clone()).collect(),
    }
}

fn source(name: Name, way: Way, triggers: Vec<Arc<Trigger>>, given: &Given<'_>, around: &Around<'_>) -> Option<Source> {
    let (cx, table) = (around.cx, given.table);
    let dedup = dedup(given, cx)?;
    let replay_window = table.replay_window.as_ref().map_or(REPLAY_WINDOW, |w| w.value.0);
    if let Some(at) = table.replay_window.as_ref().filter(|_| replay_window > around.retention.dedup) {
        let problem =
            format!("replay_window is longer than retention.dedup ({})", lasting_text(around.retention.dedup));
        cx.report.error(at.offset, &given.key, problem, "Keep dedup keys longer, or make the window shorter.");
    }
    let mut paths = Paths::default();
    for trigger in &triggers {
        trigger.filter.iter().for_each(|f| paths.union(f.paths()));
        trigger.key.iter().for_each(|k| paths.union(k.paths()));
    }
    if let DedupRule::Expression(filter) = &dedup {
        paths.union(filter.paths());
    }
    if let Way::Webhook(webhook) = &way {
        webhook.preset.body_paths().iter().for_each(|path| paths.insert(path));
        if let (Some(span), true) = (webhook.preset.docs.retry_span, matches!(dedup, DedupRule::Off)) {
            let problem = format!("dedup is off, and this sender may send an event again for {}", lasting_text(span));
            let offset = table.dedup.as_ref().map_or(given.name.offset, |d| d.offset);
            cx.report.warning(offset, &given.key, problem, "Each redelivery will run the agent again.");
        }
    }
    let on_duplicate_failed = match table.on_duplicate_failed.as_ref().map(|o| o.value) {
        Some(OnDuplicateFailedWord::Retry) => OnDuplicateFailed::Retry,
        Some(OnDuplicateFailedWord::Answer) | None => OnDuplicateFailed::Answer,
    };
    let shown = shown(given, &way, replay_window);
    // In the short form `enabled` is the trigger's, which answers for itself.
    let enabled = given.key.starts_with("triggers") || table.enabled.as_ref().is_none_or(|e| e.value);
    let ignore_actors = table.ignore_actors.iter().flat_map(|l| &l.value).map(|a| a.value.clone()).collect();
    let max_hops = around.server.max_hops;
    Some(Source {
        name,
        way,
        triggers,
        paths,
        dedup,
        replay_window,
        on_duplicate_failed,
        ignore_actors,
        max_hops,
        enabled,
        shown,
    })
}

fn dedup(given: &Given<'_>, cx: &Cx<'_>) -> Option<DedupRule> {
    let Some(at) = &given.table.dedup else { return Some(DedupRule::Auto) };
    match at.value.as_str() {
        "auto" => Some(DedupRule::Auto),
        "id" => Some(DedupRule::Id),
        "body" => Some(DedupRule::Body),
        "none" => Some(DedupRule::Off),
        _ => filter(at, &format!("{}.dedup", given.key), cx).map(|f| DedupRule::Expression(Box::new(f))),
    }
}

fn way(given: &Given<'_>, taken: &mut Taken, around: &Around<'_>) -> Option<(Way, Option<SecretPlace>)> {
    let (cx, table) = (around.cx, given.table);
    let kind = table.kind.as_ref().map_or(SourceKind::Webhook, |k| k.value);
    match kind {
        SourceKind::Webhook => {
            let path = path(given, taken, cx);
            let (webhook, secret) = webhook(given, path, around)?;
            Some((Way::Webhook(Box::new(webhook)), secret))
        }
        SourceKind::Event => {
            let webhook_only = [
                ("path", table.path.as_ref().map(|a| a.offset)),
                ("provider", table.provider.as_ref().map(|a| a.offset)),
                ("auth", table.auth.as_ref().map(|a| a.offset)),
                ("secret", table.secret.as_ref().map(|a| a.offset)),
                ("client_cert", table.client_cert.as_ref().map(|a| a.offset)),
                ("custom", table.custom.as_ref().map(|a| a.offset)),
                ("allowed_sources", table.allowed_sources.as_ref().map(|a| a.offset)),
                ("rate_limit", table.rate_limit.as_ref().map(|a| a.offset)),
                ("rate_limit_per_address", table.rate_limit_per_address.as_ref().map(|a| a.offset)),
                ("failed_auth_limit", table.failed_auth_limit.as_ref().map(|a| a.offset)),
                ("respond", table.respond.as_ref().map(|a| a.offset)),
            ];
            for (word, offset) in webhook_only.into_iter().filter_map(|(w, o)| o.map(|o| (w, o))) {
                let problem = format!("`{word}` means nothing to kind = \"event\": its events come through the API");
                cx.report.error(offset, &given.key, problem, "Leave it out, or use kind = \"webhook\".");
            }
            Some((Way::Direct, None))
        }
        later => {
            let offset = table.kind.as_ref().map_or(given.name.offset, |k| k.offset);
            let problem = format!("sources of kind `{}` come in a later version", later.as_str());
            cx.report.error(offset, &format!("{}.kind", given.key), problem, "Built now: webhook, event.");
            None
        }
    }
}

fn path(given: &Given<'_>, taken: &mut Taken, cx: &Cx<'_>) -> String {
    let (path, offset) = match &given.table.path {
        Some(at) => (at.value.clone(), at.offset),
        None => (format!("/hooks/{}", given.name.value), given.name.offset),
    };
    // A name that is wrong has been told; its path would be wrong for the same reason.
    if given.table.path.is_some() || Name::new(&given.name.value).is_ok() {
        taken.take(&path, &given.key, (offset, &format!("{}.path", given.key)), cx);
    }
    path
}

fn webhook(given: &Given<'_>, path: String, around: &Around<'_>) -> Option<(Webhook, Option<SecretPlace>)> {
    let (cx, table) = (around.cx, given.table);
    let preset = preset(given, cx);
    let dresses = dresses(given, around);
    let respond = respond(given, &dresses, cx);
    let own_limit =
        table.max_body.as_ref().map(|m| body_limit(m.value.0, m.offset, &format!("{}.max_body", given.key), cx));
    let tolerance = timeout(&table.tolerance, &format!("{}.tolerance", given.key), cx);
    let secret_key = format!("{}.secret", given.key);
    let secrets = match &table.secret {
        Some(list) => around.secrets.several(list, &secret_key)?,
        None => Vec::new(),
    };
    let preset = match preset? {
        made if made.reply.is_some() && matches!(respond, Respond::Result(_)) => {
            let offset = table.respond.as_ref().map_or(given.name.offset, |r| r.offset);
            let problem = format!("{} takes one text alone for a yes, and no result", made.name);
            cx.report.error(offset, &format!("{}.respond", given.key), problem, "Leave `respond` out.");
            return None;
        }
        made if made.id == CONTRACT && dresses.iter().any(|d| d.is_of_agents) => agentex::queued(cx)?,
        preset => preset,
    };
    let trusted = if around.server.trusted_proxies.is_empty() { Trusted::Nobody } else { Trusted::Somebody };
    check_proxies(&preset, given, trusted, cx);
    if preset.signs_public_url() && around.server.public_url.is_none() {
        let problem =
            format!("`{}` signs the URL that it knows us by, so each of its deliveries is refused", preset.id);
        let advice = "Set server.public_url to the address that you give to the sender, without the path.";
        cx.report.warning(given.name.offset, &given.key, problem, advice);
    }
    let newest = secrets.first().cloned();
    let secrets = places(given, &preset, secrets, cx);
    check_length(given, &preset, &secrets, cx);
    check_retention(given, &preset, around);
    let verify_token = match &table.verify_token {
        Some(at) => Some(around.secrets.one(at, &format!("{}.verify_token", given.key))?),
        None => None,
    };
    let audience = audience(given, &preset, around);
    let place = table.secret.as_ref().map_or(given.name.offset, |s| s.offset);
    let options = VerifyOptions { tolerance, verify_token, audience };
    let verifier = LiveVerifier::new(Recipe { preset: preset.clone(), secrets, options });
    let verifier = verifier.map_err(|bad| cx.report.error(place, &secret_key, bad.to_string(), "")).ok()?;
    let provider_limit = preset.payload.max_body.and_then(|m| usize::try_from(m).ok());
    let webhook = Webhook {
        public_url: around.server.public_url.as_ref().map(|base| format!("{base}{path}")),
        path,
        keys: preset.scheme.fetches_keys().then(|| Arc::new(KeyCache::new(cx.world.fetch.clone()))),
        payload: payload(&preset, &dresses),
        secret_in_body: preset.has_secret_in_body(),
        kept_headers: preset.kept_headers(),
        verifier,
        allowed: allowed(given, cx),
        limits: Limits {
            source: quota(&table.rate_limit).or_else(|| dresses.iter().find_map(Dress::rate)).map(Meter::new),
            address: quota(&table.rate_limit_per_address).map(Meters::new),
            server: around.server.rate_limit.clone(),
            failures: quota(&table.failed_auth_limit).map(Meters::new),
        },
        max_body: own_limit.flatten().or(provider_limit).unwrap_or(around.server.max_body),
        respond,
        preset,
    };
    Some((webhook, newest))
}

/// Where the source's secrets are, newest first.
fn places(given: &Given<'_>, preset: &Preset, mut written: Vec<SecretPlace>, cx: &Cx<'_>) -> Vec<SecretPlace> {
    // What nobody is told lets nobody in: its requests come through the contract, which brings a verifier of its own.
    if preset.id == CONTRACT {
        let text = (0..4).map(|_| format!("{:016x}", cx.world.clock.random())).collect::<String>();
        return vec![SecretPlace::Given(Secret::new(text))];
    }
    // What the sender hands over is in the store, once the owner has opened the source for that.
    if preset.pairing.is_some()
        && let Ok(name) = Name::new(&given.name.value)
    {
        written.insert(0, SecretPlace::Stored(SecretName::pairing(&name)));
    }
    written
}

/// Whom tokens are meant for, where the sender's are meant for somebody; without it every delivery would be refused.
fn audience(given: &Given<'_>, preset: &Preset, around: &Around<'_>) -> Option<String> {
    let key = format!("{}.audience", given.key);
    let is_meant = matches!(&preset.scheme, Scheme::Jwt(rule) if rule.key_set.is_some() && rule.url.is_some());
    match &given.table.audience {
        Some(at) if !is_meant => {
            let problem = format!("provider `{}` has no tokens that are meant for somebody", preset.id);
            around.cx.report.error(at.offset, &key, problem, "Leave `audience` out.");
        }
        Some(at) if at.value.is_empty() => {
            around.cx.report.error(at.offset, &key, "an empty audience is nobody", "Write what is set at the sender.");
        }
        None if is_meant && around.server.public_url.is_none() => {
            let problem = "nothing says whom the sender's tokens are meant for";
            let advice = "Set server.public_url, or `audience` to what is set at the sender.";
            around.cx.report.error(given.name.offset, &key, problem, advice);
        }
        _ => {}
    }
    given.table.audience.as_ref().map(|at| at.value.clone())
}

/// How bodies are read: as the preset says, unless a contract promises more.
fn payload(preset: &Preset, dresses: &[Dress]) -> PayloadRule {
    let mut rule = preset.payload.rule();
    if dresses.iter().any(|d| d.is_json_or_text) {
        rule.kind = PayloadKind::JsonOrText;
    } else if rule == PayloadRule::default() && dresses.iter().any(|d| d.is_json) {
        rule.kind = PayloadKind::Json;
    }
    rule
}

/// What contracts promise of the triggers that listen to this source.
fn dresses(given: &Given<'_>, around: &Around<'_>) -> Vec<Dress> {
    let listens = |t: &&Named<TriggerWritten>| match &t.table.trigger.source {
        Some(source) => source.value == given.name.value,
        None => t.name.value == given.name.value,
    };
    let listeners = around.written.triggers.iter().filter(listens);
    listeners.map(|t| dress(around.written, &t.name.value)).collect()
}

fn allowed(given: &Given<'_>, cx: &Cx<'_>) -> Allowed {
    let (mut nets, mut hosts) = (Vec::new(), Vec::new());
    if let Some(at) = given.table.allowed_sources.as_ref().filter(|l| l.value.is_empty()) {
        let problem = "an empty list of senders would let everybody in";
        let key = format!("{}.allowed_sources", given.key);
        cx.report.error(at.offset, &key, problem, "Name at least one, or leave it out.");
    }
    for at in given.table.allowed_sources.iter().flat_map(|l| &l.value) {
        match &at.value {
            AllowedSource::Net(net) => nets.push(*net),
            AllowedSource::Host(name) => hosts.push(name.clone()),
        }
    }
    Allowed::new(nets, hosts)
}

/// A secret that a person chose may be too short: whoever sees one signed request can try all short ones. (Those that
/// the sender makes in a form of its own, and public keys, are as long as they have to be.)
fn check_length(given: &Given<'_>, preset: &Preset, secrets: &[SecretPlace], cx: &Cx<'_>) {
    let here = |place: &SecretPlace| match place {
        SecretPlace::Given(secret) => Some(secret.clone()),
        SecretPlace::Stored(_) => None,
    };
    let chosen = |secret: Secret| match &preset.scheme {
        // What tells this source's events from others is no secret.
        scheme if scheme.fetches_keys() => None,
        Scheme::Signed(signed) => (signed.key == KeyForm::Raw).then(|| secret.expose().len()),
        Scheme::Token { .. } => Some(secret.expose().len()),
        Scheme::Basic => secret.expose().split_once(':').map(|(_, password)| password.len()),
        Scheme::Jwt(rule) => (rule.algorithm == JwtAlgorithm::Hs256).then(|| secret.expose().len()),
        Scheme::Sns | Scheme::ClientCert(_) | Scheme::None => None,
    };
    if secrets.iter().filter_map(here).filter_map(chosen).any(|length| length < SECRET_BYTES_MIN) {
        let offset = given.table.secret.as_ref().map_or(given.name.offset, |s| s.offset);
        let problem = format!("a secret is shorter than {SECRET_BYTES_MIN} bytes, so it may be guessed");
        let advice =
            "Make one with: openssl rand -hex 32. Give it to the sender too; a list takes both while you change it.";
        cx.report.warning(offset, &format!("{}.secret", given.key), problem, advice);
    }
}

fn respond(given: &Given<'_>, dresses: &[Dress], cx: &Cx<'_>) -> Respond {
    let table = given.table;
    let limit = timeout(&table.respond_timeout, &format!("{}.respond_timeout", given.key), cx);
    let promised = dresses.iter().find_map(|d| d.respond);
    match (table.respond.as_ref().map(|r| r.value), &table.respond_timeout) {
        (Some(RespondWord::Result), _) => Respond::Result(limit.unwrap_or(RESPOND_TIMEOUT)),
        (None, _) if promised.is_some() => limit.or(promised).map_or(Respond::Accepted, Respond::Result),
        (_, Some(at)) => {
            let problem = "`respond_timeout` does nothing without respond = \"result\"";
            cx.report.error(at.offset, &given.key, problem, "Add respond = \"result\", or leave it out.");
            Respond::Accepted
        }
        _ => Respond::Accepted,
    }
}

fn check_retention(given: &Given<'_>, preset: &Preset, around: &Around<'_>) {
    let Some(span) = preset.docs.retry_span.filter(|span| *span > around.retention.dedup) else { return };
    let problem = format!(
        "{} may send an event again for {}, and dedup keys are kept for {}",
        preset.name,
        lasting_text(span),
        lasting_text(around.retention.dedup)
    );
    around.cx.report.warning(
        given.name.offset,
        &given.key,
        problem,
        "Raise [retention] dedup, or late redeliveries run again.",
    );
}

/// What the API shows: no secrets, not even their places.
fn shown(given: &Given<'_>, way: &Way, replay_window: Duration) -> Value {
    let table = given.table;
    let mut shown = json!({
        "dedup": table.dedup.as_ref().map_or("auto", |d| &d.value),
        "replay_window": lasting_text(replay_window),
        "ignore_actors": table.ignore_actors.iter().flat_map(|l| &l.value).map(|a| &a.value).collect::<Vec<_>>(),
    });
    if let Way::Webhook(webhook) = way {
        shown["path"] = json!(webhook.path);
        shown["url"] = json!(webhook.public_url);
        shown["provider"] = json!(webhook.preset.id);
        shown["verified"] = json!(!matches!(webhook.preset.scheme, Scheme::None));
        shown["allowed_sources"] = json!(webhook.allowed.texts());
        let limits = &webhook.limits;
        shown["rate_limit"] = json!(limits.source.as_ref().map(|m| m.quota().as_str()));
        shown["rate_limit_per_address"] = json!(limits.address.as_ref().map(|m| m.quota().as_str()));
        shown["failed_auth_limit"] = json!(limits.failures.as_ref().map(|m| m.quota().as_str()));
        shown["max_body"] = json!(webhook.max_body);
        shown["respond"] = match webhook.respond {
            Respond::Accepted => json!("accepted"),
            Respond::Result(_) => json!("result"),
        };
    }
    shown
}
