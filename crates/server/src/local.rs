//! Whether somebody on this machine asks. Some things are open to such a caller without a token, and many who are elsewhere
//! look like one: whoever comes through a proxy on this machine, and a browser on it that was led here by a stranger's page.

use std::net::IpAddr;

use doorbell_core::provider::Via;
use http::{HeaderMap, HeaderValue, Uri, header};

/// Headers that proxies and what stands before them add for their own callers, who are elsewhere.
const OF_PROXIES: &[&str] = &["forwarded", "via", "true-client-ip", "fastly-client-ip", "x-real-ip", "x-client-ip"];
const OF_PROXIES_BEGIN: &[&str] = &["x-forwarded", "x-envoy-", "x-original-", "cf-"];

/// Whether the caller is this machine itself: by the socket, by the name it asked for (else a stranger's name that leads here
/// would do), and through no proxy.
pub(crate) fn is_on_this_machine(socket: IpAddr, via: Via, uri: &Uri, headers: &HeaderMap) -> bool {
    let is_proxied =
        |name: &str| OF_PROXIES.contains(&name) || OF_PROXIES_BEGIN.iter().any(|begin| name.starts_with(begin));
    let host = uri.authority().map(|a| a.as_str()).or_else(|| {
        let mut all = headers.get_all(header::HOST).iter();
        all.next().filter(|_| all.next().is_none())?.to_str().ok()
    });
    socket.to_canonical().is_loopback()
        && via == Via::Anybody
        && !headers.keys().any(|name| is_proxied(name.as_str()))
        && host.and_then(|h| h.parse::<Uri>().ok()).is_some_and(|uri| is_loopback_host(&uri))
}

/// What browsers say of where a request comes from. Programs are no pages, so any of it counts, also of this machine: on
/// another port of it anything may run.
pub(crate) fn is_from_a_page(headers: &HeaderMap) -> bool {
    let mut sites = headers.get_all("sec-fetch-site").iter().map(HeaderValue::as_bytes);
    headers.contains_key(header::ORIGIN) || sites.any(|site| site != b"none")
}

/// Whether a host is this machine by its name or address.
pub(crate) fn is_loopback_host(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local_via(via: Via, socket: &str, headers: &[(&'static str, &str)]) -> bool {
        let mut request = http::Request::get("/agent_api_keys");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        is_on_this_machine(socket.parse().unwrap(), via, &head.uri, &head.headers) && !is_from_a_page(&head.headers)
    }

    fn local(socket: &str, headers: &[(&'static str, &str)]) -> bool {
        local_via(Via::Anybody, socket, headers)
    }

    #[test]
    fn only_a_caller_on_this_machine_that_is_no_page_is_let_by_without_a_token() {
        for host in ["localhost:5003", "127.0.0.1", "[::1]:5003", "LOCALHOST"] {
            assert!(local("127.0.0.1", &[("host", host)]) && local("::ffff:127.0.0.1", &[("host", host)]), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "192.0.2.1", "127.0.0.1.nip.io", ""] {
            assert!(!local("127.0.0.1", &[("host", host)]), "{host}");
        }
        assert!(!local("192.0.2.1", &[("host", "localhost")]) && !local("127.0.0.1", &[]));
        for (name, value) in [
            ("origin", "https://evil.example"),
            ("origin", "http://localhost:3000"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("forwarded", "for=127.0.0.1"),
            ("cf-connecting-ip", "127.0.0.1"),
            ("true-client-ip", "127.0.0.1"),
            ("via", "1.1 proxy"),
            ("host", "localhost"),
        ] {
            assert!(!local("127.0.0.1", &[("host", "localhost"), (name, value)]), "{name}: {value}");
        }
        let twice = [("host", "localhost"), ("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")];
        assert!(!local("127.0.0.1", &twice));
        assert!(!local_via(Via::TrustedProxy, "127.0.0.1", &[("host", "localhost")]), "a proxy asks for somebody");
    }
}
