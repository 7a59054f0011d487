//! Who really asks: the socket's peer, unless that is a proxy the operator trusts; then the right-most address of
//! `X-Forwarded-For` that is no trusted proxy. What stands further left was written by somebody nobody vouches for.

use std::net::{IpAddr, SocketAddr};

use doorbell_core::provider::Via;
use http::HeaderMap;
use ipnet::IpNet;

/// The two addresses of a request, for the API's handlers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    /// The socket's; grants things (loopback may read metrics).
    pub socket: IpAddr,
    /// The one to record.
    pub remote: IpAddr,
}

/// The address to record and to check against `allowed_sources`.
pub(crate) fn real(socket: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let socket = socket.to_canonical();
    if !is_trusted(socket, trusted) {
        return socket;
    }
    let mut last = socket;
    for value in headers.get_all("x-forwarded-for").iter().rev() {
        // A header that is not text ends the chain of those who can be believed.
        let Ok(text) = value.to_str() else { return last };
        for part in text.rsplit(',') {
            let Some(ip) = address(part.trim()) else { return last };
            last = ip;
            if !is_trusted(ip, trusted) {
                return ip;
            }
        }
    }
    last
}

/// Whether the socket's peer is a proxy that may say of its client what only a proxy can know.
pub(crate) fn via(socket: IpAddr, trusted: &[IpNet]) -> Via {
    if is_trusted(socket.to_canonical(), trusted) { Via::TrustedProxy } else { Via::Anybody }
}

fn is_trusted(ip: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|net| net.contains(&ip))
}

/// An address with or without port, as proxies write it.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    let ip = bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|a| a.ip()));
    ip.map(|ip: IpAddr| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(socket: &str, forwarded: &[&str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let trusted: Vec<IpNet> = trusted.iter().map(|t| t.parse().unwrap()).collect();
        real(socket.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn only_a_trusted_proxy_is_believed_and_only_as_far_as_the_chain_is_trusted() {
        let table: &[(&str, &[&str], &[&str], &str)] = &[
            ("203.0.113.9", &["1.2.3.4"], &[], "203.0.113.9"),
            ("203.0.113.9", &["1.2.3.4"], &["10.0.0.0/8"], "203.0.113.9"),
            ("10.0.0.1", &["1.2.3.4"], &["10.0.0.0/8"], "1.2.3.4"),
            ("10.0.0.1", &["6.6.6.6, 1.2.3.4"], &["10.0.0.0/8"], "1.2.3.4"),
            ("10.0.0.1", &["6.6.6.6, 1.2.3.4, 10.0.0.7"], &["10.0.0.0/8"], "1.2.3.4"),
            ("10.0.0.1", &["6.6.6.6", "1.2.3.4"], &["10.0.0.0/8"], "1.2.3.4"),
            ("10.0.0.1", &["1.2.3.4, nonsense"], &["10.0.0.0/8"], "10.0.0.1"),
            ("10.0.0.1", &["\u{e9}"], &["10.0.0.0/8"], "10.0.0.1"),
            ("10.0.0.1", &[], &["10.0.0.0/8"], "10.0.0.1"),
            ("10.0.0.1", &["10.0.0.2"], &["10.0.0.0/8"], "10.0.0.2"),
            ("::ffff:10.0.0.1", &["[2001:db8::1]:4711"], &["10.0.0.0/8"], "2001:db8::1"),
            ("10.0.0.1", &["1.2.3.4:5678"], &["10.0.0.0/8"], "1.2.3.4"),
        ];
        for (socket, forwarded, trusted, expected) in table {
            assert_eq!(&ask(socket, forwarded, trusted), expected, "{socket} {forwarded:?}");
        }
    }

    proptest::proptest! {
        /// Whatever a stranger writes in front, the address that the nearest trusted proxy saw is the one that counts.
        #[test]
        fn what_stands_further_left_changes_nothing(forged in "[ -~]{0,60}", seen: [u8; 4]) {
            let seen = std::net::Ipv4Addr::from([198, seen[1], seen[2], seen[3]]);
            let forwarded = format!("{forged}, {seen}");
            proptest::prop_assert_eq!(ask("10.0.0.1", &[&forwarded], &["10.0.0.0/8"]), seen.to_string());
        }
    }
}
