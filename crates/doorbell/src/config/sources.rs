//! `[sources.*]`, and the sources that triggers bring along: how each is verified, labelled, deduplicated and limited.
//!
//! A webhook without a check is an error unless `auth = "none"` says so by name: nothing here fails open.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use doorbell_core::Name;
use doorbell_core::event::OnDuplicateFailed;
use doorbell_core::filter::Filter;
use doorbell_core::payload::Paths;
use doorbell_core::ports::Retention;
use doorbell_core::provider::Scheme;
use doorbell_core::source::{DedupRule, Respond, SecretPlace, Source, Way, Webhook};
use doorbell_core::trigger::Trigger;
use serde_json::{Value, json};

use super::paths::Taken;
use super::secrets::Secrets;
use super::section::At;
use super::server::ServerSettings;
use super::triggers::{BySource, expression};
use super::values::{OnDuplicateFailedWord, SourceKind, lasting_text};
use super::written::{SourceTable, Written};
use super::{Cx, Sender, agents};
use doorbell_core::spelling::hint;

mod webhook;

pub(super) use webhook::SECRET_BYTES_MIN;
use webhook::webhook;

const REPLAY_WINDOW: Duration = Duration::from_secs(600);

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
    // A trigger whose source cannot be read may be the one that is missed.
    let is_unread = |key: String| around.cx.report.is_told(&key);
    let may_be_wanted = is_unread("triggers".into())
        || written.triggers.iter().any(|t| is_unread(format!("triggers.{}.source", t.name.value)));
    for given in own.chain(brought) {
        let what = if given.key.starts_with("sources") { "source" } else { "trigger" };
        let name = agents::name(given.name, what, around.cx);
        let listeners = name.as_ref().and_then(|n| triggers.remove(n)).unwrap_or_default();
        let wanted = written
            .triggers
            .iter()
            .any(|t| t.table.trigger.source.as_ref().is_some_and(|s| s.value == given.name.value));
        if listeners.is_empty() && !wanted && !may_be_wanted && what == "source" && name.is_some() {
            let advice = format!("Add a trigger with source = \"{}\".", given.name.value);
            around.cx.report.warning(given.name.offset, &given.key, "no trigger listens to this source", advice);
        }
        // All of it is looked at, so that all faults are told.
        let (dedup, replay_window) = (dedup(&given, around.cx), replay_window(&given, around));
        let way = way(&given, &mut taken, around);
        let (Some(name), Some((way, secret)), Some(dedup)) = (name, way, dedup) else { continue };
        if let Way::Webhook(webhook) = &way {
            made.senders.insert(name.clone(), sender(&name, webhook, secret, &listeners));
        }
        made.sources.push(source((name, way, listeners), (dedup, replay_window), &given, around));
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

/// For how long the same body is the same event: no longer than its key is kept.
fn replay_window(given: &Given<'_>, around: &Around<'_>) -> Duration {
    let window = given.table.replay_window.as_ref().map_or(REPLAY_WINDOW, |w| w.value.0);
    let kept = around.retention.dedup;
    let at =
        given.table.replay_window.as_ref().filter(|_| window > kept && !around.cx.report.is_told("retention.dedup"));
    if let Some(at) = at {
        let problem = format!("this is longer than retention.dedup ({})", lasting_text(kept));
        let advice = "Keep dedup keys longer, or make the window shorter.";
        around.cx.report.error(at.offset, &format!("{}.replay_window", given.key), problem, advice);
    }
    window
}

fn source(
    (name, way, triggers): (Name, Way, Vec<Arc<Trigger>>),
    (dedup, replay_window): (DedupRule, Duration),
    given: &Given<'_>,
    around: &Around<'_>,
) -> Source {
    let (cx, table) = (around.cx, given.table);
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
    Source {
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
    }
}

/// What `dedup` may be beside an expression.
const DEDUP_WORDS: &[&str] = &["auto", "id", "body", "none"];

/// Whether a text is one word and no variable: an expression that reads nothing.
fn is_slip(text: &str) -> bool {
    let is_word = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-' || b == b'_');
    is_word && !["event", "data", "headers", "query"].contains(&text)
}

fn dedup(given: &Given<'_>, cx: &Cx<'_>) -> Option<DedupRule> {
    let Some(at) = &given.table.dedup else { return Some(DedupRule::Auto) };
    match at.value.as_str() {
        "auto" => Some(DedupRule::Auto),
        "id" => Some(DedupRule::Id),
        "body" => Some(DedupRule::Body),
        "none" => Some(DedupRule::Off),
        word if is_slip(word) => {
            let advice = hint(word, DEDUP_WORDS.iter().copied());
            let problem = format!("`{word:.80}` is neither a word for this nor an expression");
            cx.report.error(at.offset, &format!("{}.dedup", given.key), problem, advice);
            None
        }
        _ => {
            let read = expression(at, &format!("{}.dedup", given.key), Filter::compile_text, cx);
            read.map(|filter| DedupRule::Expression(Box::new(filter)))
        }
    }
}

fn way(given: &Given<'_>, taken: &mut Taken, around: &Around<'_>) -> Option<(Way, Option<SecretPlace>)> {
    let (cx, table) = (around.cx, given.table);
    let kind = table.kind.as_ref().map_or(SourceKind::Webhook, |k| k.value);
    // What a source of an unknown kind needs is not known either.
    let is_bare = table.provider.is_none() && table.auth.is_none() && table.custom.is_none();
    if table.kind.is_none() && is_bare && cx.report.is_told(&format!("{}.kind", given.key)) {
        return None;
    }
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
                ("max_body", table.max_body.as_ref().map(|a| a.offset)),
                ("respond", table.respond.as_ref().map(|a| a.offset)),
                ("respond_timeout", table.respond_timeout.as_ref().map(|a| a.offset)),
                ("tolerance", table.tolerance.as_ref().map(|a| a.offset)),
                ("verify_token", table.verify_token.as_ref().map(|a| a.offset)),
                ("audience", table.audience.as_ref().map(|a| a.offset)),
                ("header", table.header.as_ref().map(|a| a.offset)),
                ("prefix", table.prefix.as_ref().map(|a| a.offset)),
                ("encoding", table.encoding.as_ref().map(|a| a.offset)),
                ("hash", table.hash.as_ref().map(|a| a.offset)),
                ("id_header", table.id_header.as_ref().map(|a| a.offset)),
                ("type_header", table.type_header.as_ref().map(|a| a.offset)),
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
    // A name that is wrong has been told; its path would be wrong for the same reason. So has a path that cannot be read.
    if cx.report.is_told(&format!("{}.path", given.key)) {
        return path;
    }
    if given.table.path.is_some() || Name::new(&given.name.value).is_ok() {
        taken.take(&path, &given.key, (offset, &format!("{}.path", given.key)), cx);
    }
    path
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
