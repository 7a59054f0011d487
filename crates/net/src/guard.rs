//! Which addresses may be called for a URL that came from outside. Called by the client for every literal address in a
//! URL and by its resolver for every address a name stands for, so that what was judged is what is connected to.
//!
//! Pure. IPv4 is a list of what is refused, IPv6 a list of what is allowed (today's global unicast space) less its
//! special parts: whatever IANA assigns tomorrow stays refused until somebody looks. Sources: the IANA IPv4 and IPv6
//! Special-Purpose Address Registries (RFC 6890 and its updates) and the RFCs named in each row.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// A range and what it is for.
type Row<A> = (A, u8, &'static str);

const fn v4(a: u8, b: u8, c: u8, d: u8) -> Ipv4Addr {
    Ipv4Addr::new(a, b, c, d)
}

const fn v6(a: u16, b: u16, c: u16, d: u16, e: u16, f: u16) -> Ipv6Addr {
    Ipv6Addr::new(a, b, c, d, e, f, 0, 0)
}

/// Refused IPv4 ranges.
const REFUSED_V4: &[Row<Ipv4Addr>] = &[
    (v4(0, 0, 0, 0), 8, "an address of \"this network\" (RFC 791)"),
    (v4(10, 0, 0, 0), 8, "a private address (RFC 1918)"),
    (v4(100, 64, 0, 0), 10, "a carrier-grade NAT address (RFC 6598)"),
    (v4(127, 0, 0, 0), 8, "a loopback address (RFC 1122)"),
    // Azure's WireServer lies in public space and answers only to the machine itself (Microsoft Learn, "What is IP
    // address 168.63.129.16?").
    (v4(168, 63, 129, 16), 32, "a cloud metadata address"),
    (v4(169, 254, 169, 254), 32, "a cloud metadata address"),
    (v4(169, 254, 0, 0), 16, "a link-local address (RFC 3927)"),
    (v4(172, 16, 0, 0), 12, "a private address (RFC 1918)"),
    (v4(192, 0, 0, 0), 24, "an address for protocol assignments (RFC 6890)"),
    (v4(192, 0, 2, 0), 24, "a documentation address (RFC 5737)"),
    (v4(192, 88, 99, 0), 24, "a 6to4 relay address (RFC 7526)"),
    (v4(192, 168, 0, 0), 16, "a private address (RFC 1918)"),
    (v4(198, 18, 0, 0), 15, "a benchmarking address (RFC 2544)"),
    (v4(198, 51, 100, 0), 24, "a documentation address (RFC 5737)"),
    (v4(203, 0, 113, 0), 24, "a documentation address (RFC 5737)"),
    (v4(224, 0, 0, 0), 4, "a multicast address (RFC 5771)"),
    (v4(255, 255, 255, 255), 32, "the broadcast address (RFC 919)"),
    (v4(240, 0, 0, 0), 4, "a reserved address (RFC 1112)"),
];

/// Where all of today's public IPv6 addresses lie (RFC 4291, section 2.4; IANA IPv6 Address Space).
const GLOBAL_V6: Row<Ipv6Addr> = (v6(0x2000, 0, 0, 0, 0, 0), 3, "global unicast");

/// Refused parts of it, and the names of what lies outside it.
const REFUSED_V6: &[Row<Ipv6Addr>] = &[
    (Ipv6Addr::UNSPECIFIED, 128, "the unspecified address (RFC 4291)"),
    (Ipv6Addr::LOCALHOST, 128, "the loopback address (RFC 4291)"),
    (v6(0, 0, 0, 0, 0, 0xffff), 96, "an IPv4-mapped address (RFC 4291)"),
    (v6(0x64, 0xff9b, 0, 0, 0, 0), 96, "a NAT64 address (RFC 6052)"),
    (v6(0x64, 0xff9b, 1, 0, 0, 0), 48, "a local NAT64 address (RFC 8215)"),
    (v6(0x100, 0, 0, 0, 0, 0), 64, "a discard address (RFC 6666)"),
    (v6(0x2001, 0, 0, 0, 0, 0), 32, "a Teredo address (RFC 4380)"),
    (v6(0x2001, 0, 0, 0, 0, 0), 23, "an address for protocol assignments (RFC 2928)"),
    (v6(0x2001, 0xdb8, 0, 0, 0, 0), 32, "a documentation address (RFC 3849)"),
    (v6(0x2002, 0, 0, 0, 0, 0), 16, "a 6to4 address (RFC 3056)"),
    (v6(0x3fff, 0, 0, 0, 0, 0), 20, "a documentation address (RFC 9637)"),
    (v6(0x5f00, 0, 0, 0, 0, 0), 16, "a segment routing address (RFC 9602)"),
    (v6(0xfc00, 0, 0, 0, 0, 0), 7, "a unique local address (RFC 4193)"),
    (v6(0xfe80, 0, 0, 0, 0, 0), 10, "a link-local address (RFC 4291)"),
    (v6(0xfec0, 0, 0, 0, 0, 0), 10, "a site-local address (RFC 3879)"),
    (v6(0xff00, 0, 0, 0, 0, 0), 8, "a multicast address (RFC 4291)"),
];

/// Whether `address` is a public one. `Err` says what it is instead, to finish the sentence "it is …".
pub fn public(address: IpAddr) -> Result<(), &'static str> {
    match address {
        IpAddr::V4(ip) => match REFUSED_V4.iter().find(|row| within_v4(ip, row)) {
            Some((_, _, what)) => Err(what),
            None => Ok(()),
        },
        IpAddr::V6(ip) => match REFUSED_V6.iter().find(|row| within_v6(ip, row)) {
            Some((_, _, what)) => Err(what),
            None if within_v6(ip, &GLOBAL_V6) => Ok(()),
            None => Err("outside the public IPv6 space (RFC 4291)"),
        },
    }
}

/// Which addresses may be called for such a URL: public ones, and those of networks that the operator named.
#[derive(Clone, Debug, Default)]
pub struct Allowed(std::sync::Arc<[IpNet]>);

impl Allowed {
    /// Also these.
    pub fn also(networks: &[IpNet]) -> Self {
        Self(networks.into())
    }

    /// Whether `address` may be called. `Err` as of [`public`].
    pub fn call(&self, address: IpAddr) -> Result<(), &'static str> {
        let plain = address.to_canonical();
        match self.0.iter().any(|net| net.contains(&plain)) {
            true => Ok(()),
            false => public(address),
        }
    }
}

fn within_v4(ip: Ipv4Addr, &(net, bits, _): &Row<Ipv4Addr>) -> bool {
    let shift = 32 - u32::from(bits);
    ip.to_bits().checked_shr(shift) == net.to_bits().checked_shr(shift)
}

fn within_v6(ip: Ipv6Addr, &(net, bits, _): &Row<Ipv6Addr>) -> bool {
    let shift = 128 - u32::from(bits);
    ip.to_bits().checked_shr(shift) == net.to_bits().checked_shr(shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_addresses_are_refused_to_the_last_of_their_range() {
        for text in [
            "0.0.0.0",
            "0.255.255.255",
            "10.0.0.0",
            "10.255.255.255",
            "100.64.0.0",
            "100.100.100.200",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "168.63.129.16",
            "169.254.0.0",
            "169.254.169.254",
            "169.254.170.2",
            "172.16.0.0",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "192.168.255.255",
            "198.18.0.0",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.255",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "64:ff9b::7f00:1",
            "64:ff9b::8.8.8.8",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:10::1",
            "2001:1ff:ffff::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002::1",
            "3fff::1",
            "3fff:fff:ffff::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fdff::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "4000::1",
            "1fff::1",
            "e000::1",
        ] {
            assert!(public(text.parse().unwrap()).is_err(), "{text} must be refused");
        }
    }

    #[test]
    fn public_addresses_are_allowed_up_to_the_edge_of_a_special_range() {
        for text in [
            "1.0.0.0",
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "168.63.129.15",
            "168.63.129.17",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.0.3.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2003::1",
            "2606:4700:4700::1111",
            "2a00:1450:4001::1",
            "3ffe::1",
            "3fff:1000::1",
        ] {
            assert_eq!(public(text.parse().unwrap()), Ok(()), "{text} must be allowed");
        }
    }

    #[test]
    fn the_reason_names_the_narrowest_meaning() {
        assert_eq!(public("169.254.169.254".parse().unwrap()), Err("a cloud metadata address"));
        assert_eq!(public("::ffff:10.0.0.1".parse().unwrap()), Err("an IPv4-mapped address (RFC 4291)"));
    }
}
