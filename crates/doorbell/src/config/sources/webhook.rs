//! A webhook source: its check, its secrets, its limits and its answer.

use std::sync::Arc;
use std::time::Duration;

use doorbell_core::allowed::Allowed;
use doorbell_core::limits::{Limits, Meter, Meters};
use doorbell_core::payload::{PayloadKind, PayloadRule};
use doorbell_core::provider::{BadSecret, JwtAlgorithm, KeyCache, KeyForm, Preset, Scheme, VerifyOptions};
use doorbell_core::seal::SecretName;
use doorbell_core::source::{LiveVerifier, Recipe, Respond, SecretPlace, Webhook};
use doorbell_core::{Name, Secret};
use doorbell_server::contracts::CONTRACT;

use super::super::client_cert::{Trusted, check_proxies};
use super::super::dress::{Dress, dress};
use super::super::fault::in_two;
use super::super::provider::preset;
use super::super::server::{body_limit, quota, timeout};
use super::super::values::{AllowedSource, RespondWord, lasting_text};
use super::super::{Cx, agentex};
use super::{Around, Given};

/// A shorter secret may be guessed.
pub(in super::super) const SECRET_BYTES_MIN: usize = 16;
/// Most senders hang up after 30 s, many after 10.
const RESPOND_TIMEOUT: Duration = Duration::from_secs(25);

pub(super) fn webhook(given: &Given<'_>, path: String, around: &Around<'_>) -> Option<(Webhook, Option<SecretPlace>)> {
    let (cx, table) = (around.cx, given.table);
    // Everything is read before the first `?`, so that all faults are told.
    let preset = preset(given, cx);
    let dresses = dresses(given, around);
    let respond = respond(given, &dresses, cx);
    let own_limit =
        table.max_body.as_ref().map(|m| body_limit(m.value.0, m.offset, &format!("{}.max_body", given.key), cx));
    let tolerance = timeout(&table.tolerance, &format!("{}.tolerance", given.key), cx);
    let secrets = secrets(given, around);
    let allowed = allowed(given, cx);
    let verify_token = table.verify_token.as_ref();
    let verify_token = verify_token.map(|at| around.secrets.one(at, &format!("{}.verify_token", given.key)));
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
    check_url(given, &preset, around);
    check_idle(given, &preset, cx);
    check_retention(given, &preset, around);
    let audience = audience(given, &preset, around);
    let secrets = secrets?;
    let newest = secrets.first().cloned();
    let secrets = places(given, &preset, secrets, cx);
    check_length(given, &preset, &secrets, cx);
    let verify_token = match verify_token {
        Some(read) => Some(read?),
        None => None,
    };
    let options = VerifyOptions { tolerance, verify_token, audience };
    let recipe = Recipe { preset: preset.clone(), secrets, options };
    let verifier = LiveVerifier::new(recipe.clone());
    let verifier = verifier.map_err(|bad| tell_secrets(given, recipe, &bad, cx)).ok()?;
    let provider_limit = preset.payload.max_body.and_then(|m| usize::try_from(m).ok());
    let webhook = Webhook {
        public_url: around.server.public_url.as_ref().map(|base| format!("{base}{path}")),
        path,
        keys: preset.scheme.fetches_keys().then(|| Arc::new(KeyCache::new(cx.world.fetch.clone()))),
        payload: payload(&preset, &dresses),
        secret_in_body: preset.has_secret_in_body(),
        kept_headers: preset.kept_headers(),
        verifier,
        allowed,
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

/// Where the file says that the secrets are; none if that has faults.
fn secrets(given: &Given<'_>, around: &Around<'_>) -> Option<Vec<SecretPlace>> {
    let key = format!("{}.secret", given.key);
    match &given.table.secret {
        Some(list) => around.secrets.several(list, &key),
        None => (!around.cx.report.is_told(&key)).then(Vec::new),
    }
}

/// Tells of every secret that the check cannot use, each at its place.
fn tell_secrets(given: &Given<'_>, recipe: Recipe, bad: &BadSecret, cx: &Cx<'_>) {
    let key = format!("{}.secret", given.key);
    let tell = |offset: usize, bad: &str| {
        let (problem, advice) = in_two(bad);
        cx.report.error(offset, &key, problem, advice);
    };
    let written = given.table.secret.as_ref().map(|list| &list.value.0).filter(|list| list.len() > 1);
    // What a sender hands over or a contract makes stands in no list.
    let Some(written) = written.filter(|list| list.len() == recipe.secrets.len()) else {
        let offset = given.table.secret.as_ref().map_or(given.name.offset, |s| s.offset);
        return tell(offset, &bad.to_string());
    };
    for (number, (at, secret)) in (1..).zip(written.iter().zip(&recipe.secrets)) {
        let alone = Recipe { secrets: vec![secret.clone()], ..recipe.clone() };
        if let Err(bad) = LiveVerifier::new(alone) {
            tell(at.offset, &bad.to_string().replacen("secret 1 ", &format!("secret {number} "), 1));
        }
    }
}

/// Warns where the sender signs our URL and nothing says what it is.
fn check_url(given: &Given<'_>, preset: &Preset, around: &Around<'_>) {
    let is_known = around.server.public_url.is_some() || around.cx.report.is_told("server.public_url");
    if preset.signs_public_url() && !is_known {
        let problem =
            format!("`{}` signs the URL that it knows us by, so each of its deliveries is refused", preset.id);
        let advice = "Set server.public_url to the address that you give to the sender, without the path.";
        around.cx.report.warning(given.name.offset, &given.key, problem, advice);
    }
}

/// Tells of what this sender has no use for, and warns where it asks for a token that is not there.
fn check_idle(given: &Given<'_>, preset: &Preset, cx: &Cx<'_>) {
    let key = format!("{}.verify_token", given.key);
    match (&given.table.verify_token, preset.verify_token().is_some()) {
        (Some(at), false) => {
            let problem = format!("`{}` asks for no verify token", preset.id);
            cx.report.error(at.offset, &key, problem, "Leave `verify_token` out.");
        }
        (None, true) if !cx.report.is_told(&key) => {
            let problem = format!(
                "`{}` asks whether this address is ours, and without `verify_token` the answer is no",
                preset.id
            );
            let advice = "Add verify_token = { env = \"NAME\" }: what the sender shows then, as it was set up there.";
            cx.report.warning(given.name.offset, &given.key, problem, advice);
        }
        _ => {}
    }
    let is_timed = match &preset.scheme {
        Scheme::Signed(signed) => signed.timestamp.is_some(),
        Scheme::Jwt(_) => true,
        _ => false,
    };
    if let Some(at) = given.table.tolerance.as_ref().filter(|_| !is_timed) {
        let problem = format!("`{}` signs no time, so there is nothing to be tolerant of", preset.id);
        cx.report.error(at.offset, &format!("{}.tolerance", given.key), problem, "Leave `tolerance` out.");
    }
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
        None if around.cx.report.is_told(&key) || around.cx.report.is_told("server.public_url") => {}
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
    let listeners = around.written.triggers.iter().filter(|t| t.listens_to(&given.name.value));
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
        (None, _) if cx.report.is_told(&format!("{}.respond", given.key)) => Respond::Accepted,
        (_, Some(at)) => {
            let problem = "`respond_timeout` does nothing without respond = \"result\"";
            cx.report.error(at.offset, &given.key, problem, "Add respond = \"result\", or leave it out.");
            Respond::Accepted
        }
        _ => Respond::Accepted,
    }
}

fn check_retention(given: &Given<'_>, preset: &Preset, around: &Around<'_>) {
    let is_told = around.cx.report.is_told("retention.dedup");
    let span = preset.docs.retry_span.filter(|span| *span > around.retention.dedup && !is_told);
    let Some(span) = span else { return };
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
