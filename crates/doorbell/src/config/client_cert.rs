//! `auth = "client-cert"`: which client certificates are let in, and how the proxy in front tells of them. Made into a
//! preset like every other way to check a sender.

use std::sync::Arc;

use doorbell_core::provider::{self, ClientCertRule, Fingerprint, Preset, San, Scheme, Told, XFCC};
use http::HeaderName;

use super::Cx;
use super::section::At;
use super::sources::Given;
use super::values::{Auth, ClientCertForm};
use super::written::ClientCertTable;

/// What the preset is called.
const ID: &str = "client-cert";

/// The preset of a source; the faults are told to the report.
pub(super) fn preset(auth: &At<Auth>, given: &Given<'_>, cx: &Cx<'_>) -> Option<Arc<Preset>> {
    let key = format!("{}.client_cert", given.key);
    let Some(At { value: table, offset }) = &given.table.client_cert else {
        if cx.report.is_told(&key) {
            return None;
        }
        let problem = "nothing says which client certificates are let in";
        let advice = "Add client_cert = { form = \"xfcc\", sans = [\"dns:partner.example\"] } or the like.";
        cx.report.error(auth.offset, &key, problem, advice);
        return None;
    };
    let told = told(table, *offset, &key, cx);
    let sans =
        each(&table.sans, &format!("{key}.sans"), "\"dns:partner.example\" or \"uri:spiffe://…\"", San::parse, cx);
    let hex = "64 hex digits, the SHA-256 of the certificate";
    let fingerprints = each(&table.fingerprints, &format!("{key}.fingerprints"), hex, Fingerprint::parse, cx);
    let subjects = each(&table.subjects, &format!("{key}.subjects"), "the whole subject", subject, cx);
    let rule = ClientCertRule { told: told?, subjects: subjects?, sans: sans?, fingerprints: fingerprints? };
    if rule.is_open()
        && ["subjects", "sans", "fingerprints"].iter().any(|list| cx.report.is_told(&format!("{key}.{list}")))
    {
        return None;
    }
    if rule.is_open() {
        let problem = "no subject, alternative name or fingerprint is listed, and every certificate would be let in";
        cx.report.error(*offset, &key, problem, "Add subjects, sans or fingerprints.");
        return None;
    }
    if let Some((list, advice)) = in_vain(&rule) {
        let problem = format!("`{list}` can never be found in what this form tells, so nobody would be let in");
        cx.report.error(*offset, &key, problem, advice);
        return None;
    }
    // Labels and the rest are those of the other general methods.
    let like = provider::get("bearer")?;
    Some(Arc::new(Preset {
        id: ID.to_owned(),
        name: "Client certificate".to_owned(),
        scheme: Scheme::ClientCert(Box::new(rule)),
        vectors: Vec::new(),
        ..(**like).clone()
    }))
}

/// Tells where a proxy has to be named that is not: without one nobody would be let in.
pub(super) fn check_proxies(preset: &Preset, given: &Given<'_>, is_any_trusted: Trusted, cx: &Cx<'_>) {
    if matches!(preset.scheme, Scheme::ClientCert(_))
        && is_any_trusted == Trusted::Nobody
        && !cx.report.is_told("server.trusted_proxies")
    {
        let offset = given.table.client_cert.as_ref().map_or(given.name.offset, |at| at.offset);
        let problem = "the proof is in a header of a proxy, and no proxy is trusted";
        let advice = "Name it in server.trusted_proxies, and have it take these headers out of what its clients send.";
        cx.report.error(offset, &format!("{}.client_cert", given.key), problem, advice);
    }
}

/// Whether there are trusted proxies.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Trusted {
    Somebody,
    Nobody,
}

fn told(table: &ClientCertTable, offset: usize, key: &str, cx: &Cx<'_>) -> Option<Told> {
    let Some(form) = &table.form else {
        if cx.report.is_told(&format!("{key}.form")) {
            return None;
        }
        let problem = "nothing says how the proxy tells of the certificate";
        cx.report.error(offset, key, problem, "Add form = \"xfcc\", \"headers\" or \"certificate\".");
        return None;
    };
    let own = [
        ("header", &table.header, form.value != ClientCertForm::Headers),
        ("verify_header", &table.verify_header, form.value == ClientCertForm::Headers),
        ("verify_value", &table.verify_value, form.value == ClientCertForm::Headers),
        ("subject_header", &table.subject_header, form.value == ClientCertForm::Headers),
        ("fingerprint_header", &table.fingerprint_header, form.value == ClientCertForm::Headers),
    ];
    for (word, at, is_meant) in own {
        if let (Some(at), false) = (at, is_meant) {
            let problem = format!("`{word}` means nothing with form = \"{}\"", form.value.as_str());
            cx.report.error(at.offset, key, problem, "Leave it out.");
        }
    }
    let name = |at: &Option<At<String>>, word: &str, default: &'static str| {
        let Some(at) = at else { return Some(HeaderName::from_static(default)) };
        let read = HeaderName::from_bytes(at.value.as_bytes());
        let told = |_| {
            let problem = format!("`{:.80}` cannot be the name of a header", at.value);
            cx.report.error(at.offset, &format!("{key}.{word}"), problem, "");
        };
        read.map_err(told).ok()
    };
    match form.value {
        ClientCertForm::Xfcc => name(&table.header, "header", XFCC).map(Told::Xfcc),
        ClientCertForm::Certificate => name(&table.header, "header", "x-client-cert").map(Told::Certificate),
        ClientCertForm::Headers => {
            let good = table.verify_value.as_ref().map_or_else(|| "SUCCESS".to_owned(), |at| at.value.clone());
            let verified = name(&table.verify_header, "verify_header", "x-ssl-client-verify");
            let subject = name(&table.subject_header, "subject_header", "x-ssl-client-s-dn");
            let fingerprint = name(&table.fingerprint_header, "fingerprint_header", "x-ssl-client-fingerprint");
            if let Some(at) = table.verify_value.as_ref().filter(|at| at.value.is_empty()) {
                let problem = "an empty word would be found where no certificate came";
                cx.report.error(at.offset, &format!("{key}.verify_value"), problem, "Write what the proxy says.");
            }
            Some(Told::Fields { verified: (verified?, good), subject: subject?, fingerprint: fingerprint? })
        }
    }
}

/// A list that the form says nothing about.
fn in_vain(rule: &ClientCertRule) -> Option<(&'static str, &'static str)> {
    let is_sha1 = rule.fingerprints.iter().any(|f| !f.is_sha256());
    match &rule.told {
        Told::Xfcc(_) if is_sha1 => Some(("fingerprints", "Envoy tells SHA-256: write 64 hex digits.")),
        Told::Certificate(_) if is_sha1 => Some(("fingerprints", "Write the SHA-256, 64 hex digits.")),
        Told::Certificate(_) if !rule.subjects.is_empty() => Some(("subjects", "List fingerprints instead.")),
        Told::Certificate(_) | Told::Fields { .. } if !rule.sans.is_empty() => {
            Some(("sans", "Use form = \"xfcc\", or list subjects or fingerprints."))
        }
        _ => None,
    }
}

fn subject(text: &str) -> Option<String> {
    (!text.trim().is_empty()).then(|| text.to_owned())
}

/// Reads every item; none if one is wrong.
fn each<T>(
    list: &Option<At<Vec<At<String>>>>,
    key: &str,
    wanted: &str,
    read: impl Fn(&str) -> Option<T>,
    cx: &Cx<'_>,
) -> Option<Vec<T>> {
    let all: Vec<Option<T>> = list
        .iter()
        .flat_map(|at| &at.value)
        .map(|at| {
            let found = read(&at.value);
            if found.is_none() {
                let problem = format!("`{:.80}` cannot be read", at.value);
                cx.report.error(at.offset, key, problem, format!("Write {wanted}."));
            }
            found
        })
        .collect();
    all.into_iter().collect()
}
