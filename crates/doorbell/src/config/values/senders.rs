//! Who may send: networks, addresses and hosts.

use std::borrow::Cow;
use std::net::IpAddr;

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use toml::Spanned;
use toml::de::DeValue;

use super::super::section::{Here, Value};
use super::parsed;

/// `192.30.252.0/22`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Net(pub IpNet);

/// Who may send: a network, an address, or a host by its exact name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedSource {
    /// An address is a network of one.
    Net(IpNet),
    /// In lower case.
    Host(String),
}

/// A network or one address. IPv4 that is written in its IPv6 form (`::ffff:192.0.2.0/120`) is IPv4: peers are compared so.
fn net(text: &str) -> Option<IpNet> {
    let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
    match (net.addr().to_canonical(), net.prefix_len().checked_sub(96)) {
        (IpAddr::V4(ip), Some(prefix)) if net.max_prefix_len() == 128 => IpNet::new(ip.into(), prefix).ok(),
        _ => Some(net),
    }
}

/// An exact host name: letters, digits and hyphens between dots (RFC 1123, section 2.1). No wildcard, no port, no URL; and
/// nothing that looks like an address that is none.
fn host(text: &str) -> Option<String> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    let last = name.rsplit('.').next()?;
    let good = name.len() <= 253 && name.split('.').all(label) && last.bytes().any(|b| b.is_ascii_alphabetic());
    // A bare word is a slip more often than a host; `localhost` is the one that is meant.
    (good && (name.contains('.') || name == "localhost")).then_some(name)
}

fn allowed_source(text: &str) -> Option<AllowedSource> {
    net(text).map(AllowedSource::Net).or_else(|| host(text).map(AllowedSource::Host))
}

impl Value for Net {
    fn read(value: &Spanned<DeValue<'_>>, here: &Here<'_>) -> Option<Self> {
        parsed(value, here, "an address or a network such as \"192.30.252.0/22\" or \"2001:db8::/32\"", net).map(Self)
    }
}

impl Value for AllowedSource {
    fn read(value: &Spanned<DeValue<'_>>, here: &Here<'_>) -> Option<Self> {
        let wanted = "an address, a network or an exact host name such as \"10.0.0.7\", \"192.30.252.0/22\" or \"hooks.example.com\"";
        parsed(value, here, wanted, allowed_source)
    }
}

schema!(Net, "Network", {"type": "string", "examples": ["192.30.252.0/22", "10.0.0.7"]});
schema!(AllowedSource, "AllowedSource", {"type": "string",
    "examples": ["192.30.252.0/22", "10.0.0.7", "hooks.example.com"]});

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn networks_and_addresses_are_read_or_refused() {
        assert_eq!(net("10.0.0.7").map(|n| n.to_string()), Some("10.0.0.7/32".into()));
        assert_eq!(net("::1").map(|n| n.to_string()), Some("::1/128".into()));
        assert_eq!(net("10.0.0.0/33"), None);
        assert_eq!(net("::ffff:192.0.2.0/120").map(|n| n.to_string()), Some("192.0.2.0/24".into()));
        assert_eq!(net("::ffff:192.0.2.7").map(|n| n.to_string()), Some("192.0.2.7/32".into()));
        assert_eq!(net("::/0").map(|n| n.to_string()), Some("::/0".into()));
    }

    #[test]
    fn a_sender_is_a_network_or_an_exact_host_name() {
        for (text, host) in [
            ("Hooks.Example.com", "hooks.example.com"),
            ("a-b.example.com.", "a-b.example.com"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(allowed_source(text), Some(AllowedSource::Host(host.into())), "{text}");
        }
        assert!(matches!(allowed_source("10.0.0.0/8"), Some(AllowedSource::Net(_))));
        for bad in [
            "",
            "*.example.com",
            "https://example.com",
            "example.com:443",
            "example",
            "10.0.0.999",
            "10.0.0.0/33",
            "-a.example",
            "a..example",
            "ex ample.com",
        ] {
            assert_eq!(allowed_source(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_reader_panic(text in "\\PC{0,40}") {
            let _ = (net(&text), host(&text));
        }
    }
}
