//! How the server is reached from outside, and what does not fit together there: warnings, since a network may be closed in
//! ways that no file tells. Called when the whole file is resolved.

use doorbell_core::agent::Agent;

use super::Cx;
use super::fault::Severity;
use super::server::{ServerSettings, either};
use super::written::ServerTable;

/// Tells what a sender or an agent would stumble over.
pub(super) fn check(written: &ServerTable, server: &ServerSettings, agents: &[Agent], cx: &Cx<'_>) {
    in_clear(written, server, cx);
    called_back(written, server, agents, cx);
}

/// Without TLS here or in a proxy, tokens and events can be read on their way.
fn in_clear(written: &ServerTable, server: &ServerSettings, cx: &Cx<'_>) {
    let is_told = |key: &str| cx.report.is_told_within(key);
    let is_meant = written.tls.is_some() || is_told("server.tls") || is_told("server.trusted_proxies");
    if server.listen.ip().is_loopback() || is_meant || !server.trusted_proxies.is_empty() {
        return;
    }
    let Some((text, place)) = either("DOORBELL_LISTEN", written.listen.as_ref(), "server.listen", cx) else { return };
    let problem =
        format!("other machines reach `{text}` without TLS, so tokens and events can be read and changed on their way");
    let advice = "Set `tls`, or listen on 127.0.0.1 behind a proxy that speaks TLS. A proxy elsewhere goes into `trusted_proxies`.";
    place.tell(Severity::Warning, problem, advice, cx);
}

/// An agent behind a URL is told where the API is. By default that is an address, and certificates are made for names.
fn called_back(written: &ServerTable, server: &ServerSettings, agents: &[Agent], cx: &Cx<'_>) {
    let Some(at) = written.tls.as_ref().filter(|_| server.tls.is_some()) else { return };
    if server.public_url.is_some() || cx.report.is_told("server.public_url") {
        return;
    }
    let called: Vec<&str> =
        agents.iter().filter(|agent| agent.kind == "http").map(|agent| agent.name.as_str()).collect();
    if called.is_empty() {
        return;
    }
    let url = crate::app::url_of(server.listen, true);
    let problem = format!(
        "http agents ({}) are told that the API is at {url} (`doorbell-api`), and hardly accept the certificate for that \
         address: one that calls back cannot",
        called.join(", ")
    );
    let advice = "Set public_url to the name that the certificate is for, such as \"https://door.example.com\".";
    cx.report.warning(at.offset, "server.tls", problem, advice);
}
