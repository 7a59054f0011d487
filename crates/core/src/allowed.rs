//! Which addresses may send to a source: networks, and host names by what they resolve to. Asked by the door about the real
//! peer; what a request says of itself in a header is no part of it.
//!
//! Names are resolved at the rim, again and again, and put in here. A name that was never resolved lets nobody in.

use std::net::IpAddr;

use arc_swap::ArcSwap;
use ipnet::IpNet;

/// The senders that are let in.
#[derive(Debug, Default)]
pub struct Allowed {
    nets: Vec<IpNet>,
    hosts: Vec<Host>,
}

/// A host, by its exact name.
#[derive(Debug)]
pub struct Host {
    name: String,
    addresses: ArcSwap<Vec<IpAddr>>,
}

impl Allowed {
    /// These networks and hosts; if there are none of either, everybody.
    pub fn new(nets: Vec<IpNet>, hosts: Vec<String>) -> Self {
        let host = |name| Host { name, addresses: ArcSwap::default() };
        Self { nets, hosts: hosts.into_iter().map(host).collect() }
    }

    /// Whether nobody is kept out.
    pub fn is_everybody(&self) -> bool {
        self.nets.is_empty() && self.hosts.is_empty()
    }

    /// Whether this address may send. An IPv4 address may come in its IPv6 form.
    pub fn lets_in(&self, address: IpAddr) -> bool {
        let plain = address.to_canonical();
        self.nets.iter().any(|net| net.contains(&plain))
            || self.hosts.iter().any(|h| h.addresses.load().contains(&plain))
    }

    /// The hosts, to resolve them.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Networks and names, as the configuration writes them.
    pub fn texts(&self) -> Vec<String> {
        let nets = self
            .nets
            .iter()
            .map(|net| if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() });
        nets.chain(self.hosts.iter().map(|h| h.name.clone())).collect()
    }

    /// Takes over what the configuration before knew of the same names.
    pub fn adopt(&self, old: &Self) {
        for host in self.hosts.iter().filter(|h| h.addresses.load().is_empty()) {
            if let Some(twin) = old.hosts.iter().find(|h| h.name == host.name) {
                host.addresses.store(twin.addresses.load_full());
            }
        }
    }
}

impl Host {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Puts in what the name resolves to now.
    pub fn set(&self, addresses: impl IntoIterator<Item = IpAddr>) {
        self.addresses.store(std::sync::Arc::new(addresses.into_iter().map(|ip| ip.to_canonical()).collect()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(nets: &[&str], hosts: &[&str]) -> Allowed {
        Allowed::new(nets.iter().map(|n| n.parse().unwrap()).collect(), hosts.iter().map(|h| (*h).to_owned()).collect())
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn networks_hold_both_families_and_the_mapped_form() {
        let allowed = allowed(&["192.0.2.0/24", "2001:db8::/32", "198.51.100.7/32"], &[]);
        for yes in ["192.0.2.0", "192.0.2.255", "::ffff:192.0.2.9", "2001:db8:ffff::1", "198.51.100.7"] {
            assert!(allowed.lets_in(ip(yes)), "{yes}");
        }
        for no in ["192.0.3.0", "::ffff:192.0.3.9", "2001:db9::1", "198.51.100.8", "::192.0.2.9"] {
            assert!(!allowed.lets_in(ip(no)), "{no}");
        }
    }

    #[test]
    fn a_host_is_what_its_name_resolved_to_and_before_that_nobody() {
        let allowed = allowed(&[], &["hooks.example.com"]);
        assert!(!allowed.is_everybody() && !allowed.lets_in(ip("192.0.2.1")));
        allowed.hosts()[0].set([ip("::ffff:192.0.2.1"), ip("2001:db8::1")]);
        assert!(allowed.lets_in(ip("192.0.2.1")) && allowed.lets_in(ip("2001:db8::1")));
        assert!(!allowed.lets_in(ip("192.0.2.2")));
        allowed.hosts()[0].set([]);
        assert!(!allowed.lets_in(ip("192.0.2.1")), "a name that resolves to nothing lets nobody in");
    }

    #[test]
    fn a_reload_keeps_what_is_known_of_a_name() {
        let (old, new) = (allowed(&[], &["a.example", "b.example"]), allowed(&[], &["b.example", "c.example"]));
        old.hosts().iter().for_each(|h| h.set([ip("192.0.2.1")]));
        new.adopt(&old);
        assert!(new.hosts()[0].addresses.load().contains(&ip("192.0.2.1")));
        assert!(new.hosts()[1].addresses.load().is_empty());
    }
}
