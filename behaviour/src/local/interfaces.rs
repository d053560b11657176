//! On which interfaces the LAN is asked, and why not on the others.
//!
//! A machine with containers has dozens of interfaces, and behind most of them is nobody but itself. Left out are those
//! without a carrier, the ports of bridges, and bridges without a default route behind them, such as those of containers
//! and of virtual machines. The last ones are never left out, nor any of a container's own.

use std::{
    collections::BTreeMap,
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use if_addrs::IfOperStatus;

use super::family::Family;

/// On a host with more interfaces the others are not asked on: each costs packets for as long as a node runs.
const MAX_INTERFACES: usize = 128;

/// More addresses of one interface are neither told nor compared.
const MAX_ADDRESSES: usize = 32;

/// Each address without a zone costs a dial on each of them.
const MAX_ZONES: usize = 4;

/// An interface with its addresses, loopback aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// What the system calls it.
    pub name: String,
    /// Its number.
    pub index: u32,
    /// Its addresses of IPv4.
    pub v4: Vec<Ipv4Addr>,
    /// Its addresses of IPv6, link-local ones included.
    pub v6: Vec<Ipv6Addr>,
    /// It leads to one other host only.
    pub is_p2p: bool,
    /// Why the LAN is not asked there; `None` if it is.
    pub left_out: Option<LeftOut>,
}

/// Why the LAN is not asked on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeftOut {
    /// Others were named.
    NotNamed,
    /// No cable, or nothing at its other end.
    NoCarrier,
    /// The bridge has the address.
    BridgePort,
    /// A network within this host: no default route leads there.
    InnerBridge,
    /// There are too many.
    TooMany,
}

/// What decides on an interface.
#[derive(Debug, Clone, Copy, Default)]
struct Facts {
    has_carrier: bool,
    is_bridge: bool,
    is_bridge_port: bool,
    has_default_route: bool,
}

impl Interface {
    /// Those of one family.
    pub(super) fn addresses(&self, family: Family) -> Vec<IpAddr> {
        match family {
            Family::V4 => self.v4.iter().copied().map(IpAddr::from).collect(),
            Family::V6 => self.v6.iter().copied().map(IpAddr::from).collect(),
        }
    }

    /// Whether others reach this host there by an address of IPv6 that needs no zone.
    pub(super) fn has_routed_v6(&self) -> bool {
        self.v6.iter().any(|ip| !ip.is_unicast_link_local())
    }

    /// Whether others reach this host there by an address that needs no zone, and is not of this link alone.
    fn is_routed(&self) -> bool {
        self.has_routed_v6() || self.v4.iter().any(|ip| !ip.is_link_local())
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NotNamed => "others were named",
            Self::NoCarrier => "it has no carrier",
            Self::BridgePort => "it is a port of a bridge",
            Self::InnerBridge => "it is a bridge without a default route behind it",
            Self::TooMany => "there are too many",
        })
    }
}

/// All interfaces of this host but for loopback, and which of them are used: those that are `named`, or if none are, those
/// behind which others may be.
///
/// # Errors
///
/// The system does not list them.
pub fn survey(named: &[String]) -> io::Result<Vec<Interface>> {
    let mut found: BTreeMap<u32, (Interface, Facts)> = BTreeMap::new();
    for one in if_addrs::get_if_addrs()? {
        let Some(index) = one.index.filter(|_| !one.is_loopback()) else { continue };
        let (interface, _) = found.entry(index).or_insert_with(|| {
            let facts = Facts { has_carrier: one.oper_status == IfOperStatus::Up, ..Facts::default() };
            let name = one.name.clone();
            let (v4, v6) = (Vec::new(), Vec::new());
            (Interface { name, index, v4, v6, is_p2p: one.is_p2p, left_out: None }, facts)
        });
        match one.ip() {
            IpAddr::V4(ip) if interface.v4.len() < MAX_ADDRESSES => interface.v4.push(ip),
            IpAddr::V6(ip) if interface.v6.len() < MAX_ADDRESSES => interface.v6.push(ip),
            _ => {}
        }
    }
    let routed = routed();
    let mut all: Vec<(Interface, Facts)> = found.into_values().collect();
    for (interface, facts) in &mut all {
        facts.has_default_route = routed.contains(&interface.name);
        (facts.is_bridge, facts.is_bridge_port) = bridging(&interface.name, interface.index);
    }
    Ok(choose(all, named, is_in_container()))
}

/// On which links this host is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Links {
    /// It has a link-local address of IPv4.
    pub has_v4: bool,
    /// The interfaces with a link-local address of IPv6, at most four: one such address may be on any of them.
    pub zones: Vec<String>,
}

/// Looks on which links this host is, which takes up to some milliseconds; on none if the system does not say.
#[must_use]
pub fn links() -> Links {
    let used = survey(&[]).unwrap_or_default().into_iter().filter(|interface| interface.left_out.is_none());
    let used: Vec<Interface> = used.collect();
    let has_v6 = |interface: &&Interface| interface.v6.iter().any(Ipv6Addr::is_unicast_link_local);
    Links {
        has_v4: used.iter().flat_map(|interface| &interface.v4).any(Ipv4Addr::is_link_local),
        zones: used.iter().filter(has_v6).take(MAX_ZONES).map(|interface| interface.name.clone()).collect(),
    }
}

fn choose(mut all: Vec<(Interface, Facts)>, named: &[String], contained: bool) -> Vec<Interface> {
    // Where the limit cuts, those with the best prospects are before it.
    all.sort_by_key(|(interface, facts)| (!facts.has_default_route, !interface.is_routed(), interface.index));
    for (interface, facts) in &mut all {
        interface.left_out = match named {
            [] if contained => None,
            [] => facts.reason(),
            named => (!named.contains(&interface.name)).then_some(LeftOut::NotNamed),
        };
    }
    if named.is_empty() && all.iter().all(|(interface, _)| interface.left_out.is_some()) {
        let any_carrier = all.iter().any(|(_, facts)| facts.has_carrier);
        for (interface, facts) in &mut all {
            interface.left_out = (any_carrier && !facts.has_carrier).then_some(LeftOut::NoCarrier);
        }
    }
    let mut all: Vec<Interface> = all.into_iter().map(|(interface, _)| interface).collect();
    let used = all.iter_mut().filter(|interface| interface.left_out.is_none());
    used.skip(MAX_INTERFACES).for_each(|interface| interface.left_out = Some(LeftOut::TooMany));
    all
}

impl Facts {
    fn reason(self) -> Option<LeftOut> {
        if !self.has_carrier {
            Some(LeftOut::NoCarrier)
        } else if self.is_bridge_port {
            Some(LeftOut::BridgePort)
        } else if self.is_bridge && !self.has_default_route {
            Some(LeftOut::InnerBridge)
        } else {
            None
        }
    }
}

/// Whether an interface is a bridge, and whether it is the port of one. A name may mean another interface where the
/// network is not that of the mounted files.
fn bridging(name: &str, index: u32) -> (bool, bool) {
    let folder = Path::new("/sys/class/net").join(name);
    let known = std::fs::read_to_string(folder.join("ifindex")).ok();
    if known.and_then(|text| text.trim().parse().ok()) != Some(index) {
        return (false, false);
    }
    (folder.join("bridge").exists(), folder.join("brport").exists())
}

/// The interfaces with a default route.
fn routed() -> Vec<String> {
    let v4 = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    let v6 = std::fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
    let mut names = routed_v4(&v4);
    names.extend(routed_v6(&v6));
    names
}

/// Of lines such as `eth0 00000000 0100A8C0 0003 0 0 0 00000000 0 0 0`: interface, destination, ..., mask.
fn routed_v4(table: &str) -> Vec<String> {
    let lines = table.lines().skip(1).map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let default = lines.filter(|words| words.get(1) == Some(&"00000000") && words.get(7) == Some(&"00000000"));
    default.map(|words| words[0].to_owned()).collect()
}

/// Of lines with destination, its length in bits, and more, of which the ninth is flags and the last the interface. Where
/// there is no way the system says so by a route to nowhere.
fn routed_v6(table: &str) -> Vec<String> {
    const REJECT: u32 = 0x0200;
    let lines = table.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let leads = |words: &Vec<&str>| {
        let flags = words.get(8).and_then(|word| u32::from_str_radix(word, 16).ok());
        words.len() >= 10
            && words[0].bytes().all(|byte| byte == b'0')
            && words[1] == "00"
            && flags.is_some_and(|flags| flags & REJECT == 0)
            && words[9] != "lo"
    };
    lines.filter(leads).map(|words| words[9].to_owned()).collect()
}

/// Whether this process is in a container: what looks like an inner network there is the way to all others.
fn is_in_container() -> bool {
    if ["KUBERNETES_SERVICE_HOST", "container"].iter().any(|name| std::env::var_os(name).is_some()) {
        return true;
    }
    let marked = ["/.dockerenv", "/run/.containerenv"].iter().any(|path| Path::new(path).exists());
    // A network that was made within it is none of its own.
    marked && !is_in_other_network()
}

/// Whether this process has another network than the first one of the system, or of the container.
fn is_in_other_network() -> bool {
    let of = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net")).ok();
    of("1").zip(of("self")).is_some_and(|(first, own)| first != own)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, index: u32, facts: Facts) -> (Interface, Facts) {
        let v4 = vec![Ipv4Addr::new(10, 0, index as u8, 1)];
        (Interface { name: name.to_owned(), index, v4, v6: Vec::new(), is_p2p: false, left_out: None }, facts)
    }

    const WIRE: Facts = Facts { has_carrier: true, is_bridge: false, is_bridge_port: false, has_default_route: false };

    fn host() -> Vec<(Interface, Facts)> {
        vec![
            one("docker0", 3, Facts { is_bridge: true, ..WIRE }),
            one("veth7", 4, Facts { is_bridge_port: true, ..WIRE }),
            one("eth0", 5, WIRE),
            one("eth1", 6, Facts { has_carrier: false, ..WIRE }),
            one("br0", 7, Facts { is_bridge: true, has_default_route: true, ..WIRE }),
        ]
    }

    fn left_out(chosen: &[Interface]) -> BTreeMap<&str, LeftOut> {
        chosen.iter().filter_map(|one| Some((one.name.as_str(), one.left_out?))).collect()
    }

    #[test]
    fn inner_bridges_ports_of_bridges_and_what_has_no_carrier_are_left_out() {
        let chosen = choose(host(), &[], false);
        let expected =
            [("docker0", LeftOut::InnerBridge), ("eth1", LeftOut::NoCarrier), ("veth7", LeftOut::BridgePort)];
        assert_eq!(left_out(&chosen), BTreeMap::from(expected));
        assert_eq!(chosen[0].name, "br0", "the way out comes first");
    }

    #[test]
    fn the_last_ones_are_not_left_out_nor_any_of_a_container() {
        assert!(left_out(&choose(host(), &[], true)).is_empty());
        let idle = host().into_iter().filter(|(one, _)| ["docker0", "eth1"].contains(&one.name.as_str()));
        assert_eq!(left_out(&choose(idle.collect(), &[], false)), BTreeMap::from([("eth1", LeftOut::NoCarrier)]));
        let cold = vec![one("eth1", 6, Facts { has_carrier: false, ..WIRE })];
        assert!(left_out(&choose(cold, &[], false)).is_empty());
    }

    #[test]
    fn those_that_are_named_are_used_whatever_they_are() {
        let chosen = choose(host(), &["docker0".to_owned(), "wlan9".to_owned()], false);
        let used: Vec<_> = chosen.iter().filter(|one| one.left_out.is_none()).map(|one| one.name.as_str()).collect();
        assert_eq!(used, ["docker0"]);
    }

    #[test]
    fn there_is_a_most() {
        let many = (1..=200).map(|index| one(&format!("eth{index}"), index, WIRE)).collect();
        let chosen = choose(many, &[], false);
        let cut = left_out(&chosen).into_values().filter(|why| *why == LeftOut::TooMany).count();
        assert_eq!((chosen.len(), cut), (200, 200 - MAX_INTERFACES));
    }

    #[test]
    fn default_routes_are_read_from_the_tables_of_the_system() {
        let v4 = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                  eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                  docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
                  half\t00000000\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0\n";
        assert_eq!(routed_v4(v4), ["eth0"]);
        let zeros = "0".repeat(32);
        let line = |flags: &str, name: &str| {
            format!("{zeros} 00 {zeros} 00 {zeros} 00000400 00000000 00000000 {flags} {name}\n")
        };
        let v6 = [line("00000003", "eth1"), line("00200200", "lo"), line("00200200", "eth2")].concat();
        assert_eq!(routed_v6(&v6), ["eth1"]);
        assert!(routed_v4("").is_empty() && routed_v6("").is_empty());
    }
}
