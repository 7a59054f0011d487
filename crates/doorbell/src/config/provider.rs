//! How a webhook's sender is checked: a built-in provider, a general method (`auth`), or one of the file's own (`custom`).
//! Exactly one of them, and never by silence none.

use std::sync::Arc;

use doorbell_core::provider::{self, Confidence, Preset, Scheme};

use doorbell_server::contracts::CONTRACT;

use super::Cx;
use super::fault::in_two;
use super::section::At;
use super::sources::Given;
use super::values::Auth;
use super::written::SourceTable;
use doorbell_core::spelling::nearest;

/// Built-in presets that are general methods: reached by `auth`, so that none of them is chosen by a slip.
const METHODS: &[&str] = &["api-key", "basic", "bearer", "hmac", "none", "path-token"];

pub(super) fn preset(given: &Given<'_>, cx: &Cx<'_>) -> Option<Arc<Preset>> {
    let table = given.table;
    let is_told = |part: &str| cx.report.is_told(&format!("{}.{part}", given.key));
    let is_client_cert = table.auth.as_ref().is_some_and(|a| a.value == Auth::ClientCert) || is_told("auth");
    if let Some(at) = table.client_cert.as_ref().filter(|_| !is_client_cert) {
        let problem = "`client_cert` does nothing without auth = \"client-cert\"";
        cx.report.error(at.offset, &given.key, problem, "Add it, or leave `client_cert` out.");
    }
    let preset = match (&table.provider, &table.auth, &table.custom) {
        (Some(name), None, None) => built_in(name, given, cx)?,
        (None, Some(auth), None) => method(auth, given, cx)?,
        (None, None, Some(custom)) => Arc::new(*custom.value.0.clone()?),
        (None, None, None) if ["provider", "auth", "custom"].iter().any(|part| is_told(part)) => return None,
        (None, None, None) => {
            let problem = "nothing says how the sender is verified";
            let advice = "Add provider = \"…\" (see `doorbell providers`) or auth = \"hmac\", \"bearer\", \"basic\", \"api-key\" or \"path-token\", with a secret.";
            cx.report.error(given.name.offset, &given.key, problem, advice);
            return None;
        }
        (_, auth, custom) => {
            let second = auth.as_ref().map(|a| a.offset).or(custom.as_ref().map(|c| c.offset));
            let problem = "`provider`, `auth` and `custom` do not go together";
            cx.report.error(second.unwrap_or(given.name.offset), &given.key, problem, "Keep one of them.");
            return None;
        }
    };
    if matches!(preset.scheme, Scheme::None) {
        let offset = table.auth.as_ref().map_or(given.name.offset, |a| a.offset);
        let problem = "this way in takes events from anybody who can reach it";
        cx.report.warning(offset, &given.key, problem, "Use a provider or another `auth` if the sender can sign.");
    }
    if let Some(custom) = table.custom.as_ref().filter(|_| preset.leaves_body_unsigned()) {
        let problem = "the signature does not cover the body, so whoever sees one request can send any body with it";
        let advice = "If the sender signs it, add {body} to `signed`.";
        cx.report.warning(custom.offset, &format!("{}.custom", given.key), problem, advice);
    }
    if preset.confidence == Confidence::Secondary {
        let offset = table.provider.as_ref().map_or(given.name.offset, |p| p.offset);
        let problem = format!(
            "how {} signs is known from third parties only, and was not tried against its own code",
            preset.name
        );
        let advice =
            "Send a real delivery and look at `doorbell decisions`: a rule that is wrong refuses, it lets nobody in.";
        cx.report.warning(offset, &format!("{}.provider", given.key), problem, advice);
    }
    set(preset, given, cx)
}

fn built_in(name: &At<String>, given: &Given<'_>, cx: &Cx<'_>) -> Option<Arc<Preset>> {
    let key = format!("{}.provider", given.key);
    let word = name.value.as_str();
    if METHODS.contains(&word) {
        let problem = format!("`{word}` is a method, not a provider");
        cx.report.error(name.offset, &key, problem, format!("Write auth = \"{word}\" instead."));
        return None;
    }
    let found = provider::get(word);
    if found.is_none() {
        let ids = provider::files().iter().filter_map(|(file, _)| file.strip_suffix(".toml"));
        let known = ids.filter(|id| !METHODS.contains(id));
        let advice = match nearest(word, known) {
            Some(near) => format!("Did you mean `{near}`? `doorbell providers` lists all."),
            None => "`doorbell providers` lists all; for any other sender there are `auth` and `custom`.".to_owned(),
        };
        cx.report.error(name.offset, &key, format!("there is no provider `{word:.80}`"), advice);
    }
    found.cloned()
}

fn method(auth: &At<Auth>, given: &Given<'_>, cx: &Cx<'_>) -> Option<Arc<Preset>> {
    match auth.value {
        Auth::Contract => return contract(given, cx),
        Auth::ClientCert => return super::client_cert::preset(auth, given, cx),
        _ => {}
    }
    let found = provider::get(auth.value.as_str());
    if found.is_none() {
        let problem = format!("auth = \"{}\" is not in this build", auth.value.as_str());
        cx.report.error(auth.offset, &format!("{}.auth", given.key), problem, "");
    }
    found.cloned()
}

/// The check of a trigger whose secret a wire contract makes: at its own path it lets nobody in.
fn contract(given: &Given<'_>, cx: &Cx<'_>) -> Option<Arc<Preset>> {
    if let Some(at) = &given.table.secret {
        let problem = "auth = \"contract\" takes no secret of the file: the contract makes one";
        cx.report.error(at.offset, &format!("{}.secret", given.key), problem, "Leave it out.");
        return None;
    }
    let changed = provider::get("hmac")?.with_settings(&[("header", "x-webhook-signature")]).ok()?;
    Some(Arc::new(Preset { id: CONTRACT.to_owned(), name: "Wire contract".to_owned(), ..changed }))
}

/// Applies the source's own header, prefix and so on.
fn set(preset: Arc<Preset>, given: &Given<'_>, cx: &Cx<'_>) -> Option<Arc<Preset>> {
    let settings = settings(given.table);
    if settings.is_empty() {
        return Some(preset);
    }
    let mut changed = Some((*preset).clone());
    for (key, at) in settings {
        let set = changed.as_ref().unwrap_or(&preset).with_settings(&[(key, &at.value)]);
        match set {
            Ok(next) => changed = changed.map(|_| next),
            Err(faults) => {
                changed = None;
                for fault in &faults {
                    let (problem, advice) = in_two(fault);
                    cx.report.error(at.offset, &format!("{}.{key}", given.key), problem, advice);
                }
            }
        }
    }
    // With a fault the file is not taken; the rest of the source is looked at with what it would be without the setting.
    Some(changed.map_or(preset, Arc::new))
}

fn settings(table: &SourceTable) -> Vec<(&'static str, &At<String>)> {
    let all = [
        ("header", &table.header),
        ("prefix", &table.prefix),
        ("encoding", &table.encoding),
        ("hash", &table.hash),
        ("id_header", &table.id_header),
        ("type_header", &table.type_header),
    ];
    all.into_iter().filter_map(|(key, at)| at.as_ref().map(|at| (key, at))).collect()
}
