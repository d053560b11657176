//! The host that a peer comes from, as far as its address tells.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libp2p::{Multiaddr, multiaddr::Protocol};

/// The host that a peer comes from: its IPv4 address, or the /64 of its IPv6 address, since that is the least that one
/// host is given to choose addresses from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    /// An IPv4 address, also one that is written as an IPv6 address.
    V4(Ipv4Addr),
    /// The first eight bytes of an IPv6 address.
    V6([u8; 8]),
}

impl Origin {
    /// Of an address that a connection came from; none for what has no IP address (nodes of one process).
    #[must_use]
    pub fn of(address: &Multiaddr) -> Option<Self> {
        address.iter().find_map(|part| match part {
            Protocol::Ip4(ip) => Some(IpAddr::V4(ip).into()),
            Protocol::Ip6(ip) => Some(IpAddr::V6(ip).into()),
            _ => None,
        })
    }
}

impl From<IpAddr> for Origin {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::V4(ip),
            IpAddr::V6(ip) => ip.to_ipv4_mapped().map_or_else(|| Self::V6(prefix(ip)), Self::V4),
        }
    }
}

fn prefix(ip: Ipv6Addr) -> [u8; 8] {
    let [a, b, c, d, e, f, g, h, lower @ ..] = ip.octets();
    // All hosts of a link have the same prefix there.
    if ip.is_unicast_link_local() { lower } else { [a, b, c, d, e, f, g, h] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Option<Origin> {
        Origin::of(&text.parse().unwrap())
    }

    #[test]
    fn a_host_is_its_address_and_with_ipv6_its_subnet() {
        assert_eq!(origin("/ip4/10.0.0.1/tcp/1"), origin("/ip4/10.0.0.1/udp/2/quic-v1"));
        assert_ne!(origin("/ip4/10.0.0.1/tcp/1"), origin("/ip4/10.0.0.2/tcp/1"));
        assert_eq!(origin("/ip6/2001:db8::1/tcp/1"), origin("/ip6/2001:db8::ffff:1/tcp/1"));
        assert_ne!(origin("/ip6/2001:db8::1/tcp/1"), origin("/ip6/2001:db8:0:1::1/tcp/1"));
        assert_eq!(origin("/ip6/::ffff:10.0.0.1/tcp/1"), origin("/ip4/10.0.0.1/tcp/1"));
        assert_ne!(origin("/ip6/fe80::1/tcp/1"), origin("/ip6/fe80::2/tcp/1"));
        assert_eq!(origin("/ip6zone/eth0/ip6/fe80::1/tcp/1"), origin("/ip6/fe80::1/tcp/2"));
        assert_eq!(origin("/memory/7"), None);
    }
}
