//! Whether somebody on this machine asks. Some things are open to such a caller without a token, and many who are elsewhere
//! look like one: whoever comes through a proxy on this machine, and a browser on it that was led here by a stranger's page.

use std::net::IpAddr;

use doorbell_core::provider::Via;
use http::{HeaderMap, HeaderValue, Uri, Version, header};

/// Headers that proxies and what stands before them add for their own callers, who are elsewhere.
const OF_PROXIES: &[&str] =
    &["forwarded", "via", "true-client-ip", "fastly-client-ip", "x-real-ip", "x-client-ip", "x-cluster-client-ip"];
const OF_PROXIES_BEGIN: &[&str] = &["x-forwarded", "x-envoy-", "x-original-", "x-azure-", "cf-"];

/// Whether the caller is this machine itself: by the socket, by the name it asked for (else a stranger's name that leads here
/// would do), and through no proxy.
pub(crate) fn is_on_this_machine(
    socket: IpAddr,
    via: Via,
    (uri, version): (&Uri, Version),
    headers: &HeaderMap,
) -> bool {
    let is_proxied =
        |name: &str| OF_PROXIES.contains(&name) || OF_PROXIES_BEGIN.iter().any(|begin| name.starts_with(begin));
    // Programs speak HTTP/1.1 since long; proxies that say nothing of whom they ask for still speak 1.0 (nginx, as it comes).
    let is_old = version < Version::HTTP_11;
    let host = uri.authority().map(|a| a.as_str()).or_else(|| {
        let mut all = headers.get_all(header::HOST).iter();
        all.next().filter(|_| all.next().is_none())?.to_str().ok()
    });
    socket.to_canonical().is_loopback()
        && via == Via::Anybody
        && !is_old
        && !headers.keys().any(|name| is_proxied(name.as_str()))
        && host
            .filter(|h| !h.contains('@'))
            .and_then(|h| h.parse::<Uri>().ok())
            .is_some_and(|uri| is_loopback_host(&uri))
}

/// What browsers say of where a request comes from. Programs are no pages, so any of it counts, also of this machine: on
/// another port of it anything may run.
pub(crate) fn is_from_a_page(headers: &HeaderMap) -> bool {
    let mut sites = headers.get_all("sec-fetch-site").iter().map(HeaderValue::as_bytes);
    headers.contains_key(header::ORIGIN) || sites.any(|site| site != b"none")
}

/// Whether a page of a browser on this machine asks that does not come from this machine: led here by a stranger, and no
/// sender. Where nobody is checked, nothing else would stop it.
pub(crate) fn is_a_strange_page(remote: IpAddr, via: Via, headers: &HeaderMap) -> bool {
    let is_ours = |origin: &HeaderValue| {
        let uri = origin.to_str().ok().and_then(|text| text.parse::<Uri>().ok());
        uri.is_some_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && is_loopback_host(&uri))
    };
    remote.to_canonical().is_loopback()
        && via == Via::Anybody
        && headers.get_all(header::ORIGIN).iter().any(|origin| !is_ours(origin))
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
        is_on_this_machine(socket.parse().unwrap(), via, (&head.uri, head.version), &head.headers)
            && !is_from_a_page(&head.headers)
    }

    fn local(socket: &str, headers: &[(&'static str, &str)]) -> bool {
        local_via(Via::Anybody, socket, headers)
    }

    #[test]
    fn a_page_of_another_site_is_told_from_a_sender() {
        let strange = |remote: &str, via, origin: Option<&'static str>| {
            let origin = origin.map(|text| (header::ORIGIN, HeaderValue::from_static(text)));
            is_a_strange_page(remote.parse().unwrap(), via, &origin.into_iter().collect())
        };
        for origin in ["http://evil.io", "null", "https://127.0.0.1.nip.io", "file://localhost", "chrome-extension://x"]
        {
            assert!(strange("127.0.0.1", Via::Anybody, Some(origin)), "{origin}");
            assert!(
                !strange("192.0.2.1", Via::Anybody, Some(origin))
                    && !strange("127.0.0.1", Via::TrustedProxy, Some(origin))
            );
        }
        for origin in [None, Some("http://localhost:3000"), Some("https://[::1]")] {
            assert!(!strange("::1", Via::Anybody, origin), "{origin:?}");
        }
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
        assert!(!local("127.0.0.1", &[("host", "evil@localhost")]));
        let (mut old, ()) = http::Request::get("/ready").header("host", "127.0.0.1").body(()).unwrap().into_parts();
        old.version = Version::HTTP_10;
        let (at, via) = ("127.0.0.1".parse().unwrap(), Via::Anybody);
        assert!(!is_on_this_machine(at, via, (&old.uri, old.version), &old.headers), "a proxy that says nothing");
        assert!(!local_via(Via::TrustedProxy, "127.0.0.1", &[("host", "localhost")]), "a proxy asks for somebody");
    }
}
