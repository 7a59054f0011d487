//! Which headers go with a forwarded request, and which come back with the answer.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::loop_guard;

/// Of one connection, not of the message (RFC 9110, section 7.6.1), and what the client that sends on writes itself.
const OF_THE_HOP: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What opens a door here, or says on whose behalf one is opened: the agent gets our proof in its place.
const CREDENTIALS: &[&str] = &[
    "authorization",
    "cookie",
    "x-agent-api-key",
    "x-agent-identity",
    "x-api-key",
    "x-hub-signature",
    "x-hub-signature-256",
    "x-selected-account-id",
    "x-slack-signature",
];

/// What we write, or what a sender could use to pass for us or for a proxy.
const OURS: &[&str] = &["content-digest", "forwarded", "signature", "signature-input", "via", "x-real-ip"];
const OURS_BEGIN: &[&str] = &["doorbell-", "x-acting-", "x-forwarded-"];

/// The headers that go on: all but those of the connection, the credentials and what is ours to say. Adds who sent it and
/// how many runs it comes from.
pub fn onward(headers: &HeaderMap, remote: Option<IpAddr>, hops: u32) -> HeaderMap {
    let is_ours = |name: &str| {
        // CGI and WSGI servers write `_` for `-`: there `doorbell_agent` would stand in the place of ours.
        let name = &*name.replace('_', "-");
        OURS.contains(&name)
            || CREDENTIALS.contains(&name)
            || OURS_BEGIN.iter().any(|begin| name.starts_with(begin))
            || [header::HOST, header::CONTENT_LENGTH, header::EXPECT].iter().any(|h| h.as_str() == name)
    };
    let mut onward = without_hop(headers, is_ours);
    if let Some(Ok(from)) = remote.map(|ip| HeaderValue::try_from(ip.to_string())) {
        onward.insert("x-forwarded-for", from);
    }
    onward.insert(loop_guard::HEADER, HeaderValue::from(loop_guard::next(hops)));
    onward
}

/// The headers that come back: all but those of the connection. The body comes as it is, so its coding and length do too; not a
/// length beside chunks, which does not count (RFC 9112, section 6.3), nor of an answer that has no body.
pub fn back(status: StatusCode, headers: &HeaderMap) -> HeaderMap {
    let has_no_length = headers.contains_key(header::TRANSFER_ENCODING) || status == StatusCode::NO_CONTENT;
    without_hop(headers, |name| has_no_length && name == header::CONTENT_LENGTH.as_str())
}

fn without_hop(headers: &HeaderMap, also: impl Fn(&str) -> bool) -> HeaderMap {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let stays =
        |name: &HeaderName| !OF_THE_HOP.contains(&name.as_str()) && !named.contains(name) && !also(name.as_str());
    headers.iter().filter(|(name, _)| stays(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn credentials_and_what_is_ours_to_say_stay_here() {
        let came = map(&[
            ("x-agent-api-key", "k"),
            ("authorization", "AgentKey k"),
            ("cookie", "c"),
            ("x-hub-signature-256", "s"),
            ("x-slack-signature", "s"),
            ("x-api-key", "k"),
            ("x-selected-account-id", "a"),
            ("x-agent-identity", "me"),
            ("x-acting-user-api-key", "k"),
            ("doorbell-agent", "another"),
            ("doorbell-hops", "1"),
            ("doorbell_agent", "another"),
            ("x_forwarded_for", "10.0.0.1"),
            ("x-api_key", "k"),
            ("signature", "s"),
            ("signature-input", "s"),
            ("content-digest", "d"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-host", "evil"),
            ("host", "here"),
            ("content-length", "3"),
            ("expect", "100-continue"),
            ("x-github-event", "push"),
            ("x-twice", "1"),
            ("x-twice", "2"),
        ]);
        let onward = onward(&came, "192.0.2.7".parse().ok(), 1);
        let mut wanted = map(&[("x-github-event", "push"), ("x-twice", "1"), ("x-twice", "2")]);
        wanted.extend(map(&[("x-forwarded-for", "192.0.2.7"), ("doorbell-hops", "2")]));
        assert_eq!(onward, wanted);
    }

    #[test]
    fn what_belongs_to_the_connection_ends_with_it_also_by_name() {
        let came = map(&[
            ("connection", "close, X-Secret"),
            ("connection", "upgrade"),
            ("x-secret", "s"),
            ("upgrade", "websocket"),
            ("te", "trailers"),
            ("content-encoding", "gzip"),
            ("content-length", "37"),
        ]);
        let ok = StatusCode::OK;
        assert_eq!(back(ok, &came), map(&[("content-encoding", "gzip"), ("content-length", "37")]));
        assert_eq!(back(StatusCode::NO_CONTENT, &came), map(&[("content-encoding", "gzip")]));
        let both = map(&[("transfer-encoding", "chunked"), ("content-length", "1"), ("x-a", "b")]);
        assert_eq!(back(ok, &both), map(&[("x-a", "b")]));
    }
}
