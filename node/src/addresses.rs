//! What an address is good for: who may dial it, who is told of it, and in which order addresses are tried.

mod resolver;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use multinodes_behaviour::local::interfaces::{self, Links};
use sha2::{Digest, Sha256};

pub(crate) use self::resolver::Resolver;
use crate::files;

/// The most addresses of one name that are looked at.
const MAX_RESOLVED: usize = 256;

/// How far an address reaches, the most specific first: that is also the order of dialling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    /// Within this process.
    Process,
    /// Within this host.
    Loopback,
    /// On one link: a cable, or a LAN on which nobody gives addresses. Those of IPv6 mean something only with the zone of
    /// whoever dials them.
    LinkLocal,
    /// In a private network.
    Private,
    /// Anywhere.
    Global,
}

/// The scope of `address`; none for what nobody can dial, such as the unspecified address.
pub(crate) fn scope(address: &Multiaddr) -> Option<Scope> {
    match without_zone(address).next()? {
        Protocol::Memory(_) => Some(Scope::Process),
        Protocol::Ip4(ip) => scope_of_v4(ip),
        Protocol::Ip6(ip) => scope_of_v6(ip),
        Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) => {
            Some(if name == "localhost" { Scope::Loopback } else { Scope::Global })
        }
        _ => None,
    }
}

/// The parts of an address, behind its zone if it has one.
fn without_zone(address: &Multiaddr) -> impl Iterator<Item = Protocol<'_>> + use<'_> {
    address.iter().skip_while(|part| matches!(part, Protocol::Ip6zone(_)))
}

/// Whether it says on which interface of this host it is meant. Nobody else can know that.
pub(crate) fn has_zone(address: &Multiaddr) -> bool {
    matches!(address.iter().next(), Some(Protocol::Ip6zone(_)))
}

fn scope_of_v4(ip: Ipv4Addr) -> Option<Scope> {
    let [first, second, ..] = ip.octets();
    if ip.is_unspecified() || ip.is_broadcast() || ip.is_multicast() {
        None
    } else if ip.is_loopback() {
        Some(Scope::Loopback)
    } else if ip.is_link_local() {
        Some(Scope::LinkLocal)
    } else if ip.is_private() || (first == 100 && second & 0xc0 == 64) {
        Some(Scope::Private)
    } else {
        Some(Scope::Global)
    }
}

fn scope_of_v6(ip: Ipv6Addr) -> Option<Scope> {
    if let Some(mapped) = ip.to_ipv4_mapped() {
        return scope_of_v4(mapped);
    }
    if ip.is_unspecified() || ip.is_multicast() {
        None
    } else if ip.is_loopback() {
        Some(Scope::Loopback)
    } else if ip.is_unicast_link_local() {
        Some(Scope::LinkLocal)
    } else if ip.is_unique_local() {
        Some(Scope::Private)
    } else {
        Some(Scope::Global)
    }
}

/// What a node that listens on `listening` tells others: whatever other hosts can dial. Only if there is nothing of that
/// kind, what those on its link and its own host can dial; for the latter the second value is then true, and the record
/// needs the host's token.
pub(crate) fn advertised(listening: &[Multiaddr]) -> (Vec<Multiaddr>, bool) {
    let beyond = in_order(listening.iter().filter(|address| scope(address) >= Some(Scope::Private)).cloned());
    if !beyond.is_empty() {
        return (beyond, false);
    }
    // Those of IPv6 are dialled on each link that the other side has, so they are told only if nothing else will do.
    let any_v4 = listening.iter().any(|address| is_of_link(address) && !is_v6(address));
    let fits = |address: &&Multiaddr| is_of_host(address) || (is_of_link(address) && !(any_v4 && is_v6(address)));
    let within = in_order(listening.iter().filter(fits).cloned());
    let needs_host = within.iter().any(is_of_host);
    (within, needs_host)
}

/// Whether a reader may dial `address` as it is, from whoever has told it. `same_host` says that both are on one host.
pub(crate) fn usable(address: &Multiaddr, same_host: bool) -> bool {
    !is_v6_of_link(address) && !places(address, same_host).is_empty()
}

/// Where a reader may dial what somebody's record says: nowhere, there, or if only those on the same link can, there on each
/// of its own links. `same_host` says that both are on one host.
pub(crate) fn places(address: &Multiaddr, same_host: bool) -> Vec<Multiaddr> {
    places_from(address, same_host, links)
}

/// `links` says on which links this host is. From elsewhere a link-local address would be dialled through the default route,
/// and lead to whoever has it there, or to nobody.
fn places_from(address: &Multiaddr, same_host: bool, links: impl Fn() -> Links) -> Vec<Multiaddr> {
    let as_it_is = |is_usable: bool| if is_usable { vec![address.clone()] } else { Vec::new() };
    match scope(address) {
        _ if has_zone(address) => Vec::new(),
        Some(Scope::Private | Scope::Global) => as_it_is(true),
        Some(Scope::Process | Scope::Loopback) => as_it_is(same_host),
        Some(Scope::LinkLocal) if is_v6(address) => {
            let zones = links().zones.into_iter();
            zones.map(|zone| std::iter::once(Protocol::Ip6zone(zone.into())).chain(address.iter()).collect()).collect()
        }
        Some(Scope::LinkLocal) => as_it_is(links().has_v4),
        None => Vec::new(),
    }
}

/// The addresses without peer ids, each once, the most specific scope first.
pub(crate) fn in_order(addresses: impl IntoIterator<Item = Multiaddr>) -> Vec<Multiaddr> {
    let mut ordered: Vec<Multiaddr> = Vec::new();
    for address in addresses {
        let (address, _) = without_peer(address);
        if !ordered.contains(&address) {
            ordered.push(address);
        }
    }
    ordered.sort_by_key(|address| scope(address).unwrap_or(Scope::Global));
    ordered
}

/// Splits a trailing peer id off.
pub(crate) fn without_peer(mut address: Multiaddr) -> (Multiaddr, Option<PeerId>) {
    match address.pop() {
        Some(Protocol::P2p(peer_id)) => (address, Some(peer_id)),
        Some(other) => (address.with(other), None),
        None => (address, None),
    }
}

/// Only nodes of the same host, or process, have anything there.
pub(crate) fn is_of_host(address: &Multiaddr) -> bool {
    matches!(scope(address), Some(Scope::Process | Scope::Loopback))
}

/// Whether everybody on the same link can dial it, and nobody else.
pub(crate) fn is_of_link(address: &Multiaddr) -> bool {
    scope(address) == Some(Scope::LinkLocal)
}

fn is_v6(address: &Multiaddr) -> bool {
    matches!(without_zone(address).next(), Some(Protocol::Ip6(_)))
}

/// Whether it needs a zone to be dialled.
fn is_v6_of_link(address: &Multiaddr) -> bool {
    is_of_link(address) && is_v6(address)
}

/// The interfaces are looked at so often at most: records come in thousands, and anybody can write such addresses.
const LINKS_KNOWN_FOR: Duration = Duration::from_secs(2);

/// On which links this host is.
fn links() -> Links {
    // What is true of the host is true of all nodes of the process.
    static LAST: Mutex<Option<(Instant, Links)>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    match &*last {
        Some((when, known)) if when.elapsed() < LINKS_KNOWN_FOR => known.clone(),
        _ => last.insert((Instant::now(), interfaces::links())).1.clone(),
    }
}

/// A token that all nodes which reach each other over loopback share, and no others: on Linux from the boot and the
/// network namespace, elsewhere from a file in the rendezvous folder.
pub(crate) fn host_token(folder: Option<&Path>) -> Option<Vec<u8>> {
    let boot = std::fs::read("/proc/sys/kernel/random/boot_id").ok();
    let namespace = std::fs::read_link("/proc/self/ns/net").ok();
    if let (Some(boot), Some(namespace)) = (boot, namespace) {
        let digest =
            Sha256::new().chain_update(boot.trim_ascii()).chain_update(namespace.as_os_str().as_encoded_bytes());
        return Some(digest.finalize()[..16].to_vec());
    }
    token_file(&folder?.join("host"))
}

fn token_file(path: &Path) -> Option<Vec<u8>> {
    let fresh: [u8; 16] = rand::random();
    let hex: String = fresh.iter().map(|byte| format!("{byte:02x}")).collect();
    // Of several nodes that start together one wins.
    match files::create(path, &[hex.as_bytes()]) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return None,
        _ => {}
    }
    let token = files::read_own(path, hex.len() as u64).ok()?;
    (token.len() == hex.len()).then_some(token)
}

/// Where to join a swarm, as somebody wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Join {
    text: String,
    peer_id: Option<PeerId>,
    target: Target,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Address(Multiaddr),
    /// A name to resolve, and what follows it in the addresses that come of it.
    Name {
        host: String,
        port: u16,
        family: Family,
        rest: Multiaddr,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Any,
    V4,
    V6,
}

/// Reads a multiaddress, `host:port` or `[v6]:port`.
pub(crate) fn parse_join(text: &str) -> Result<Join, JoinError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(JoinError::Empty);
    }
    if text.starts_with('/') { parse_multiaddr(text) } else { parse_host_port(text) }
}

fn parse_multiaddr(text: &str) -> Result<Join, JoinError> {
    let malformed = |reason: String| JoinError::Malformed { text: text.to_owned(), reason };
    let address: Multiaddr = text.parse().map_err(|error: libp2p::multiaddr::Error| malformed(error.to_string()))?;
    let (address, peer_id) = without_peer(address);
    let whole = address.clone();
    let mut parts = without_zone(&whole);
    let (first, second) = (parts.next(), parts.next());
    let rest: Multiaddr = address.iter().skip(1).collect();
    let port = match second {
        Some(Protocol::Tcp(port) | Protocol::Udp(port)) if port != 0 => Some(port),
        Some(Protocol::Tcp(_) | Protocol::Udp(_)) => return Err(malformed("port 0 cannot be dialled".to_owned())),
        _ => None,
    };
    let no_port = || JoinError::NoPort { text: text.to_owned() };
    let target = match first {
        Some(Protocol::Memory(_)) => Target::Address(address),
        Some(Protocol::Ip4(_) | Protocol::Ip6(_)) => {
            port.ok_or_else(no_port)?;
            scope(&address).ok_or_else(|| malformed("the address cannot be dialled".to_owned()))?;
            if is_v6_of_link(&address) && !has_zone(&address) {
                return Err(malformed(NEEDS_ZONE.to_owned()));
            }
            Target::Address(address)
        }
        Some(Protocol::Dns(host)) => name(&host, port.ok_or_else(no_port)?, Family::Any, rest),
        Some(Protocol::Dns4(host)) => name(&host, port.ok_or_else(no_port)?, Family::V4, rest),
        Some(Protocol::Dns6(host)) => name(&host, port.ok_or_else(no_port)?, Family::V6, rest),
        _ => return Err(malformed("it must begin with /ip4, /ip6, /dns, /dns4, /dns6 or /memory".to_owned())),
    };
    Ok(Join { text: text.to_owned(), peer_id, target })
}

fn name(host: &str, port: u16, family: Family, rest: Multiaddr) -> Target {
    Target::Name { host: host.to_owned(), port, family, rest }
}

fn parse_host_port(text: &str) -> Result<Join, JoinError> {
    let malformed = |reason: &str| JoinError::Malformed { text: text.to_owned(), reason: reason.to_owned() };
    let whole = |target| Ok(Join { text: text.to_owned(), peer_id: None, target });
    if let Some(address) = with_zone(text) {
        return whole(Target::Address(address));
    }
    if let Ok(socket) = text.parse::<SocketAddr>() {
        if socket.port() == 0 || socket.ip().is_unspecified() {
            return Err(malformed("the address cannot be dialled"));
        }
        if is_v6_of_link(&tcp(socket)) {
            return Err(malformed(NEEDS_ZONE));
        }
        return whole(Target::Address(tcp(socket)));
    }
    if text.parse::<IpAddr>().is_ok() {
        return Err(JoinError::NoPort { text: text.to_owned() });
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(|| JoinError::NoPort { text: text.to_owned() })?;
    let port: u16 = port.parse().map_err(|_| malformed("the port must be a number from 1 to 65535"))?;
    if port == 0 {
        return Err(malformed("port 0 cannot be dialled"));
    }
    let fits = (1..=253).contains(&host.len())
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte) || !byte.is_ascii());
    if !fits {
        return Err(malformed("the host must be a name or an address; write an IPv6 address as [address]:port"));
    }
    whole(Target::Name {
        host: host.to_owned(),
        port,
        family: Family::Any,
        rest: [Protocol::Tcp(port)].into_iter().collect(),
    })
}

const NEEDS_ZONE: &str = "an address of one link needs the interface that leads there, such as [fe80::1%eth0]:4001";

/// Reads `[fe80::1%eth0]:4001`.
fn with_zone(text: &str) -> Option<Multiaddr> {
    let (host, port) = text.strip_prefix('[')?.rsplit_once("]:")?;
    let (ip, zone) = host.split_once('%')?;
    let (ip, port): (Ipv6Addr, u16) = (ip.parse().ok()?, port.parse().ok()?);
    let fits = ip.is_unicast_link_local() && port != 0 && !zone.is_empty() && !zone.contains('/');
    let parts = [Protocol::Ip6zone(zone.into()), Protocol::Ip6(ip), Protocol::Tcp(port)];
    fits.then(|| parts.into_iter().collect())
}

impl Join {
    /// As it was written.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Who should be there, if that was written too.
    pub(crate) fn peer_id(&self) -> Option<PeerId> {
        self.peer_id
    }

    /// The address, if there is no name to resolve.
    pub(crate) fn literal(&self) -> Option<Multiaddr> {
        match &self.target {
            Target::Address(address) => Some(address.clone()),
            Target::Name { .. } => None,
        }
    }

    /// Whether several nodes may be meant.
    pub(crate) fn is_of_many(&self) -> bool {
        self.peer_id.is_none() && matches!(self.target, Target::Name { .. })
    }

    /// The addresses to dial, at most 256, names resolved.
    pub(crate) async fn resolve(&self, resolver: &Resolver) -> io::Result<Vec<Multiaddr>> {
        let (host, port, family, rest) = match &self.target {
            Target::Address(address) => return Ok(vec![address.clone()]),
            Target::Name { host, port, family, rest } => (host, *port, *family, rest),
        };
        let found: Vec<Multiaddr> = resolver
            .ask(host, port)
            .await?
            .into_iter()
            .filter(|socket| match family {
                Family::Any => true,
                Family::V4 => socket.is_ipv4(),
                Family::V6 => socket.is_ipv6(),
            })
            .take(MAX_RESOLVED)
            .map(|socket| Multiaddr::from(socket.ip()).iter().chain(rest.iter()).collect())
            .collect();
        if found.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address of that family"));
        }
        Ok(in_order(found))
    }
}

fn tcp(socket: SocketAddr) -> Multiaddr {
    Multiaddr::from(socket.ip()).with(Protocol::Tcp(socket.port()))
}

/// An address to join through that cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// Nothing was written.
    #[error("an address to join through is empty")]
    Empty,
    /// There is no port in it.
    #[error("`{text}` has no port: write `host:port`, `[v6]:port` or a multiaddress such as /ip4/192.0.2.1/tcp/4001")]
    NoPort {
        /// What was written.
        text: String,
    },
    /// It is neither a multiaddress nor `host:port`.
    #[error("`{text}` is no address to join through: {reason}")]
    Malformed {
        /// What was written.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn every_address_has_its_scope() {
        for (text, expected) in [
            ("/memory/7", Some(Scope::Process)),
            ("/ip4/127.0.0.1/tcp/1", Some(Scope::Loopback)),
            ("/ip6/::1/tcp/1", Some(Scope::Loopback)),
            ("/dns4/localhost/tcp/1", Some(Scope::Loopback)),
            ("/ip4/169.254.1.1/tcp/1", Some(Scope::LinkLocal)),
            ("/ip6/fe80::1/tcp/1", Some(Scope::LinkLocal)),
            ("/ip4/10.0.0.1/tcp/1", Some(Scope::Private)),
            ("/ip4/172.16.0.1/tcp/1", Some(Scope::Private)),
            ("/ip4/100.64.0.1/tcp/1", Some(Scope::Private)),
            ("/ip6/fd00::1/tcp/1", Some(Scope::Private)),
            ("/ip6/::ffff:10.0.0.1/tcp/1", Some(Scope::Private)),
            ("/ip4/8.8.8.8/tcp/1", Some(Scope::Global)),
            ("/ip4/100.128.0.1/tcp/1", Some(Scope::Global)),
            ("/ip6/2001:db8::1/tcp/1", Some(Scope::Global)),
            ("/dns/example.org/tcp/1", Some(Scope::Global)),
            ("/ip4/0.0.0.0/tcp/1", None),
            ("/ip6/::/tcp/1", None),
            ("/ip4/224.0.0.251/udp/1", None),
            ("/tcp/1", None),
        ] {
            assert_eq!(scope(&address(text)), expected, "{text}");
        }
    }

    #[test]
    fn loopback_is_not_advertised_beside_an_address_that_others_reach() {
        let listening =
            [address("/ip4/127.0.0.1/tcp/1"), address("/ip6/fe80::1/tcp/1"), address("/ip4/192.168.1.2/tcp/1")];
        assert_eq!(advertised(&listening), (vec![address("/ip4/192.168.1.2/tcp/1")], false));
    }

    #[test]
    fn a_node_on_loopback_alone_advertises_it_with_the_hosts_token() {
        let listening = [address("/ip4/127.0.0.1/tcp/1"), address("/memory/5")];
        assert_eq!(advertised(&listening), (vec![address("/memory/5"), address("/ip4/127.0.0.1/tcp/1")], true));
        assert_eq!(advertised(&[]), (vec![], false));
    }

    #[test]
    fn another_hosts_loopback_is_never_used() {
        assert!(usable(&address("/ip4/127.0.0.1/tcp/1"), true));
        assert!(!usable(&address("/ip4/127.0.0.1/tcp/1"), false));
        assert!(!usable(&address("/memory/1"), false));
        assert!(!usable(&address("/ip6/fe80::1/tcp/1"), true));
        assert!(usable(&address("/ip4/10.1.1.1/tcp/1"), false));
    }

    #[test]
    fn a_node_on_a_link_without_other_addresses_tells_that_one_and_only_hosts_on_a_link_use_it() {
        let link = address("/ip4/169.254.7.7/tcp/1");
        let listening = [link.clone(), address("/ip6/fe80::1/tcp/1"), address("/ip4/127.0.0.1/tcp/1")];
        assert_eq!(advertised(&listening), (vec![address("/ip4/127.0.0.1/tcp/1"), link.clone()], true));
        assert_eq!(advertised(std::slice::from_ref(&link)), (vec![link.clone()], false));
        assert_eq!(advertised(&[link.clone(), address("/ip4/10.0.0.1/tcp/1")]).0, [address("/ip4/10.0.0.1/tcp/1")]);
        let on = |has_v4| move || Links { has_v4, zones: Vec::new() };
        assert_eq!(places_from(&link, false, on(true)), std::slice::from_ref(&link));
        assert!(places_from(&link, true, on(false)).is_empty());
    }

    #[test]
    fn an_address_of_a_link_of_ipv6_is_told_if_there_is_nothing_else_and_has_the_zones_of_whoever_dials_it() {
        let (link, loopback) = (address("/ip6/fe80::1/tcp/1"), address("/ip6/::1/tcp/1"));
        assert_eq!(advertised(&[link.clone(), loopback.clone()]), (vec![loopback, link.clone()], true));
        let zones = || ["eth0", "eth1"].map(str::to_owned).to_vec();
        let links = || Links { has_v4: true, zones: zones() };
        let expected = zones().into_iter().map(|zone| address(&format!("/ip6zone/{zone}/ip6/fe80::1/tcp/1")));
        let expected: Vec<_> = expected.collect();
        assert_eq!(places_from(&link, false, links), expected);
        assert!(places_from(&expected[0], true, links).is_empty(), "zones of others mean nothing here");
        assert!(!usable(&link, true), "not as it is");
        assert_eq!(scope(&expected[0]), Some(Scope::LinkLocal));
    }

    #[test]
    fn the_most_specific_scope_comes_first_and_each_address_once() {
        let peer_id = PeerId::random();
        let ordered = in_order([
            address("/ip4/8.8.8.8/tcp/1"),
            address("/ip4/10.0.0.1/tcp/1").with(Protocol::P2p(peer_id)),
            address("/ip4/127.0.0.1/tcp/1"),
            address("/ip4/10.0.0.1/tcp/1"),
        ]);
        let expected = ["/ip4/127.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/1", "/ip4/8.8.8.8/tcp/1"];
        assert_eq!(ordered, expected.map(address));
    }

    #[tokio::test]
    async fn addresses_to_join_through_are_read_in_all_forms() {
        let (peer_id, resolver) = (PeerId::random(), Resolver::default());
        for (text, expected, id) in [
            ("/ip4/127.0.0.1/tcp/4001".to_owned(), "/ip4/127.0.0.1/tcp/4001", None),
            (format!("/ip4/127.0.0.1/tcp/4001/p2p/{peer_id}"), "/ip4/127.0.0.1/tcp/4001", Some(peer_id)),
            ("127.0.0.1:4001".to_owned(), "/ip4/127.0.0.1/tcp/4001", None),
            ("[::1]:4001".to_owned(), "/ip6/::1/tcp/4001", None),
            ("[fe80::1%eth0]:4001".to_owned(), "/ip6zone/eth0/ip6/fe80::1/tcp/4001", None),
            ("/ip6zone/eth0/ip6/fe80::1/tcp/4001".to_owned(), "/ip6zone/eth0/ip6/fe80::1/tcp/4001", None),
            (" /memory/12 ".to_owned(), "/memory/12", None),
            ("/dns4/localhost/tcp/4001".to_owned(), "/ip4/127.0.0.1/tcp/4001", None),
        ] {
            let join = parse_join(&text).unwrap();
            assert_eq!(join.peer_id(), id, "{text}");
            assert_eq!(join.resolve(&resolver).await.unwrap(), [address(expected)], "{text}");
        }
        assert!(!parse_join("localhost:4001").unwrap().resolve(&resolver).await.unwrap().is_empty());
    }

    #[test]
    fn a_malformed_address_to_join_through_is_named_in_the_error() {
        for text in ["example.org", "127.0.0.1", "::1", "/ip4/127.0.0.1"] {
            assert_eq!(parse_join(text), Err(JoinError::NoPort { text: text.to_owned() }), "{text}");
        }
        for text in [
            "/ip4/1.2.3/tcp/1",
            "/tcp/1",
            "a b:1",
            "host:0",
            "host:70000",
            "host:x",
            ":1",
            "/ip4/0.0.0.0/tcp/1",
            "/nonsense",
            "[fe80::1]:4001",
            "[fe80::1%]:4001",
            "/ip6/fe80::1/tcp/4001",
        ] {
            let error = parse_join(text).unwrap_err();
            assert!(matches!(error, JoinError::Malformed { .. }), "{text}: {error}");
            assert!(error.to_string().contains(&format!("`{text}`")), "{error}");
        }
        assert_eq!(parse_join(" "), Err(JoinError::Empty));
    }

    #[test]
    fn a_token_file_is_shared_by_all_who_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let first = token_file(&folder.path().join("host")).unwrap();
        assert_eq!(token_file(&folder.path().join("host")), Some(first));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(host_token(None), host_token(None));
    }
}
