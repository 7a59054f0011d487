//! Which of an agent's keys a forwarded request has to be checked with, by what it carries, the first that is there:
//! `x-agent-api-key`, `Authorization: AgentKey`, GitHub's signature, Slack's. The check itself is the provider engine's.
//!
//! A body that is not verified yet is read for one thing: the name of the key, which is no secret. What it says of itself
//! decides whose signature it has to carry, and nothing else.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use doorbell_core::Timestamp;
use doorbell_core::ingest::No;
use doorbell_core::keys::Key;
use doorbell_core::payload::{self, Paths, PayloadKind};
use doorbell_core::ports::StoreError;
use doorbell_core::provider::{self, Preset, Verifier, VerifyOptions};
use doorbell_core::vault::VaultError;
use doorbell_core::{Name, Secret};
use http::{HeaderMap, StatusCode, header};
use serde_json::Value;

use super::book::{self, Entry, KeyType};
use crate::front::Front;

/// How old a request of Slack's may be, and how far ahead: what Slack's own page says.
const SLACK_SECONDS: u64 = 300;
/// A challenge is a short word; what is longer is none.
const CHALLENGE_MAX: usize = 256;

/// What a request has to be checked with.
pub(super) struct Gate {
    pub(super) verifier: Verifier,
    pub(super) kind: KeyType,
    /// The keys, in the order of the verifier's secrets.
    pub(super) keys: Vec<Key>,
    /// Slack asks whether this address is ours: to be answered after the check.
    pub(super) challenge: Option<String>,
}

/// A no before there is anything to check.
pub(super) struct Turned {
    pub(super) no: No,
    pub(super) status: StatusCode,
    pub(super) told: Cow<'static, str>,
    pub(super) code: &'static str,
    pub(super) reason: Cow<'static, str>,
}

impl From<StoreError> for Turned {
    fn from(error: StoreError) -> Self {
        Self::from(VaultError::from(error))
    }
}

impl From<VaultError> for Turned {
    fn from(error: VaultError) -> Self {
        let no = No::Unavailable(std::time::Duration::from_secs(5));
        let reason = format!("the agent's keys cannot be read: {error}").into();
        Self { no, status: StatusCode::SERVICE_UNAVAILABLE, told: no.told().into(), code: "store_unavailable", reason }
    }
}

/// What a request that fails the check is told.
pub(super) fn mismatch(kind: KeyType, agent: &Name) -> Cow<'static, str> {
    match kind {
        KeyType::External => format!("Invalid API key for agent ID {agent}.").into(),
        KeyType::Github => "Invalid GitHub webhook signature".into(),
        KeyType::Slack => "Invalid Slack webhook signature".into(),
    }
}

fn unverified(kind: KeyType, agent: &Name, code: &'static str, reason: String) -> Turned {
    let told = mismatch(kind, agent);
    Turned { no: No::NotVerified, status: StatusCode::UNAUTHORIZED, told, code, reason: reason.into() }
}

fn unreadable(told: &'static str) -> Turned {
    Turned {
        no: No::Unreadable,
        status: StatusCode::BAD_REQUEST,
        told: told.into(),
        code: "unreadable",
        reason: told.into(),
    }
}

/// Finds what the request has to be checked with.
pub(super) async fn gate(front: &Front, agent: &Name, headers: &HeaderMap, body: &Bytes) -> Result<Gate, Turned> {
    if headers.contains_key("x-agent-api-key") {
        let offered = one(headers, "x-agent-api-key");
        return external(front, agent, offered, "x-agent-api-key", "").await;
    }
    if let Some((prefix, offered)) = one(headers, header::AUTHORIZATION.as_str()).and_then(agent_key) {
        return external(front, agent, Some(offered), "authorization", prefix).await;
    }
    if headers.contains_key("x-hub-signature-256") {
        return github(front, agent, headers, body).await;
    }
    if headers.contains_key("x-slack-signature") {
        return slack(front, agent, headers, body).await;
    }
    Err(Turned {
        no: No::NotVerified,
        status: StatusCode::FORBIDDEN,
        told: "Missing authentication for forward request.".into(),
        code: "credential_missing",
        reason: "the request carries no key and no signature that a forward is checked with".into(),
    })
}

/// What stands before a credential of the scheme `AgentKey`, and the credential; the scheme's letters may be of any case, and
/// several spaces may follow it (RFC 9110, section 11.4).
fn agent_key(value: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = value.split_once(' ')?;
    let offered = rest.trim_start_matches(' ');
    let is_one = scheme.eq_ignore_ascii_case("agentkey") && !offered.is_empty();
    is_one.then(|| value.split_at(value.len() - offered.len()))
}

/// The one value of a header.
fn one<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut all = headers.get_all(name).iter();
    match (all.next(), all.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

async fn external(
    front: &Front,
    agent: &Name,
    offered: Option<&str>,
    header: &str,
    prefix: &str,
) -> Result<Gate, Turned> {
    let kind = KeyType::External;
    let Some(offered) = offered else {
        let reason = format!("`{header}` stands there more than once or is no text");
        return Err(unverified(kind, agent, "credential_malformed", reason));
    };
    let now = front.house.clock.now();
    let entries = book::of(front, agent).await?;
    let found = entries.into_iter().find(|e| e.kind == kind && e.key.admits(offered, now));
    let Some(Entry { key, .. }) = found else {
        let reason = format!("agent `{agent}` has no external key with this value");
        return Err(unverified(kind, agent, "credential_mismatch", reason));
    };
    // Only a hash is kept, and what was offered makes it: so the door can make its own check of it again.
    let preset = preset("api-key", &[("header", header), ("prefix", prefix)]);
    made(preset, vec![Secret::new(offered)], kind, vec![key], None)
}

fn preset(id: &str, settings: &[(&str, &str)]) -> Option<Preset> {
    provider::get(id)?.with_settings(settings).ok()
}

fn made(
    preset: Option<Preset>,
    secrets: Vec<Secret>,
    kind: KeyType,
    keys: Vec<Key>,
    challenge: Option<String>,
) -> Result<Gate, Turned> {
    let verifier = preset.and_then(|p| Verifier::new(Arc::new(p), &secrets, VerifyOptions::default()).ok());
    verifier.map(|verifier| Gate { verifier, kind, keys, challenge }).ok_or_else(|| Turned {
        no: No::NotVerified,
        status: StatusCode::UNAUTHORIZED,
        told: No::NotVerified.told().into(),
        code: "key_unusable",
        reason: "the agent's key cannot be used for this check; make it anew".into(),
    })
}

async fn github(front: &Front, agent: &Name, headers: &HeaderMap, body: &Bytes) -> Result<Gate, Turned> {
    if body.is_empty() {
        return Err(unreadable("Empty payload in GitHub webhook."));
    }
    const PATHS: &[&[&str]] = &[
        &["repository"],
        &["organization", "login"],
        &["enterprise", "slug"],
        &["installation", "account", "login"],
        &["sponsorship", "sponsorable", "login"],
    ];
    let view =
        view(headers, body, PATHS).ok_or_else(|| unreadable("Failed to parse GitHub webhook payload as JSON."))?;
    let names = Some(github_names(&view)?);
    signed(front, agent, Signer { kind: KeyType::Github, names, challenge: None }).await
}

/// What the key may be called: the repository; its organisation, where that is the repository's owner; and where there is no
/// repository, whoever the delivery is about. A key vouches for no more than what it is called after.
fn github_names(view: &Value) -> Result<Vec<String>, Turned> {
    let text = |pointer: &str| view.pointer(pointer).and_then(Value::as_str).filter(|t| !t.is_empty());
    let organisation = text("/organization/login");
    match (view.get("repository").is_some_and(Value::is_object), text("/repository/full_name")) {
        (true, None) => Err(unreadable("GitHub webhook payload missing repository name.")),
        (_, Some(full)) => {
            let owner = full.split_once('/').map(|(owner, _)| owner);
            let owning = organisation.filter(|o| owner.is_some_and(|owner| owner.eq_ignore_ascii_case(o)));
            Ok([Some(full), owning].into_iter().flatten().map(str::to_owned).collect())
        }
        (false, None) => {
            let others = ["/enterprise/slug", "/installation/account/login", "/sponsorship/sponsorable/login"];
            let found = organisation.or_else(|| others.iter().find_map(|pointer| text(pointer)));
            let found = found.ok_or_else(|| unreadable("GitHub webhook payload missing repository info."))?;
            Ok(vec![found.to_owned()])
        }
    }
}

async fn slack(front: &Front, agent: &Name, headers: &HeaderMap, body: &Bytes) -> Result<Gate, Turned> {
    check_time(headers, front.house.clock.now())?;
    const PATHS: &[&[&str]] = &[&["api_app_id"], &["type"], &["challenge"]];
    let view = view(headers, body, PATHS).ok_or_else(|| unreadable("Invalid Slack verification request."))?;
    let text = |name: &str| view.get(name).and_then(Value::as_str).filter(|t| !t.is_empty()).map(str::to_owned);
    if text("type").as_deref() == Some("url_verification") {
        let challenge = text("challenge").filter(|c| c.len() <= CHALLENGE_MAX);
        let challenge = challenge.ok_or_else(|| unreadable("Invalid Slack verification request."))?;
        // It names no app: any of the agent's apps may ask.
        return signed(front, agent, Signer { kind: KeyType::Slack, names: None, challenge: Some(challenge) }).await;
    }
    let app = text("api_app_id").ok_or_else(|| unreadable("Slack webhook payload missing API app ID."))?;
    signed(front, agent, Signer { kind: KeyType::Slack, names: Some(vec![app]), challenge: None }).await
}

fn check_time(headers: &HeaderMap, now: Timestamp) -> Result<(), Turned> {
    if !headers.contains_key("x-slack-request-timestamp") {
        return Err(Turned {
            no: No::NotVerified,
            status: StatusCode::UNAUTHORIZED,
            told: "Missing X-Slack-Request-Timestamp header.".into(),
            code: "timestamp_missing",
            reason: "the request has no X-Slack-Request-Timestamp".into(),
        });
    }
    let said = one(headers, "x-slack-request-timestamp").and_then(|text| text.parse::<i64>().ok());
    let said = said.ok_or_else(|| unreadable("Invalid X-Slack-Request-Timestamp header value."))?;
    if said.abs_diff(now.secs()) > SLACK_SECONDS {
        return Err(Turned {
            no: No::NotVerified,
            status: StatusCode::BAD_REQUEST,
            told: "Slack webhook request has bad timestamp.".into(),
            code: "timestamp_stale",
            reason: format!("its time is {} s from ours; {SLACK_SECONDS} are let by", said.abs_diff(now.secs())).into(),
        });
    }
    Ok(())
}

/// What stands at these places of a JSON body, or of the JSON or the fields of a form; none if it cannot be read.
fn view(headers: &HeaderMap, body: &Bytes, paths: &[&[&str]]) -> Option<Value> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let is_form = content_type
        .is_some_and(|t| t.trim_start().to_ascii_lowercase().starts_with("application/x-www-form-urlencoded"));
    let kind = if is_form { PayloadKind::Form } else { PayloadKind::Json };
    let rule = payload::PayloadRule { kind, form_json: Some("payload".to_owned()) };
    let mut wanted = Paths::default();
    paths.iter().for_each(|path| wanted.insert(path));
    let view = payload::Body::read(body.clone(), content_type, &rule).and_then(|body| body.project(&wanted)).ok()?;
    view.is_object().then_some(view)
}

/// Whose signature a request has to carry.
struct Signer {
    kind: KeyType,
    /// What the key may be called; none: any key of the kind.
    names: Option<Vec<String>>,
    challenge: Option<String>,
}

async fn signed(front: &Front, agent: &Name, signer: Signer) -> Result<Gate, Turned> {
    let Signer { kind, names, challenge } = signer;
    let fits = |e: &Entry| e.kind == kind && names.as_ref().is_none_or(|names| names.contains(&e.name));
    let (mut secrets, mut keys) = (Vec::new(), Vec::new());
    for entry in book::of(front, agent).await?.into_iter().filter(fits) {
        for secret in book::secrets(front, &entry).await? {
            secrets.push(secret);
            keys.push(entry.key.clone());
        }
    }
    if secrets.is_empty() {
        let names = names.map_or_else(|| "of any name".to_owned(), |names| format!("named `{}`", names.join("` or `")));
        let names: String = names.chars().take(200).flat_map(char::escape_default).collect();
        let reason = format!("agent `{agent}` has no {} key {names}", kind.as_str());
        return Err(unverified(kind, agent, "no_key", reason));
    }
    // The presets are called as the kinds are.
    made(provider::get(kind.as_str()).map(|p| (**p).clone()), secrets, kind, keys, challenge)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_key_vouches_for_no_more_than_what_it_is_called_after() {
        let of = |body: Value| github_names(&body).map_err(|t| t.told.into_owned());
        let names = |list: &[&str]| Ok(list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        assert_eq!(of(json!({"repository": {"full_name": "acme/x"}})), names(&["acme/x"]));
        let both = |org: &str| json!({"repository": {"full_name": "acme/x"}, "organization": {"login": org}});
        assert_eq!(of(both("Acme")), names(&["acme/x", "Acme"]));
        assert_eq!(of(both("evil")), names(&["acme/x"]));
        assert_eq!(of(json!({"organization": {"login": "acme"}})), names(&["acme"]));
        assert_eq!(of(json!({"installation": {"account": {"login": "acme"}}})), names(&["acme"]));
        assert_eq!(of(json!({"repository": {}})), Err("GitHub webhook payload missing repository name.".into()));
        assert_eq!(
            of(json!({"repository": {}, "organization": {"login": "acme"}})),
            Err("GitHub webhook payload missing repository name.".into())
        );
        assert_eq!(of(json!({"repository": 1})), Err("GitHub webhook payload missing repository info.".into()));
    }
}
