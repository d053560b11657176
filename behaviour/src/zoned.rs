//! TCP that also dials link-local addresses of IPv6, which mean something only with the interface on whose link they are:
//! `/ip6zone/eth0/ip6/fe80::1/tcp/4001`. libp2p's own transport would leave the zone out, and the system then knows no way.

use std::{
    io,
    net::{Ipv6Addr, SocketAddrV6},
    pin::Pin,
    task::{Context, Poll},
};

use futures::{FutureExt, future::BoxFuture};
use libp2p::{
    Multiaddr, Transport,
    core::transport::{DialOpts, ListenerId, TransportError, TransportEvent},
    multiaddr::Protocol,
    tcp::tokio::{TcpStream, Transport as Tcp},
};
use tokio::net::TcpSocket;

/// TCP for all addresses.
pub(crate) struct Zoned(Tcp);

impl Zoned {
    pub(crate) fn new(tcp: Tcp) -> Self {
        Self(tcp)
    }
}

impl Transport for Zoned {
    type Output = TcpStream;
    type Error = io::Error;
    type ListenerUpgrade = <Tcp as Transport>::ListenerUpgrade;
    type Dial = BoxFuture<'static, io::Result<TcpStream>>;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<io::Error>> {
        self.0.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.0.remove_listener(id)
    }

    fn dial(&mut self, address: Multiaddr, options: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        match zoned(&address) {
            Some(place) => Ok(connect(place).boxed()),
            None => Ok(self.0.dial(address, options)?.boxed()),
        }
    }

    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        Pin::new(&mut self.0).poll(context)
    }
}

/// A place on a link.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    zone: String,
    ip: Ipv6Addr,
    port: u16,
}

/// The place that `address` means, if it has a zone and nothing on top of TCP but a peer id.
fn zoned(address: &Multiaddr) -> Option<Place> {
    let mut parts = address.iter();
    let (Protocol::Ip6zone(zone), Protocol::Ip6(ip), Protocol::Tcp(port)) =
        (parts.next()?, parts.next()?, parts.next()?)
    else {
        return None;
    };
    let rest = parts.all(|part| matches!(part, Protocol::P2p(_)));
    (rest && port != 0).then(|| Place { zone: zone.into_owned(), ip, port })
}

async fn connect(place: Place) -> io::Result<TcpStream> {
    let Place { zone, ip, port } = place;
    let index = tokio::task::spawn_blocking(move || index(&zone)).await.map_err(io::Error::other)??;
    let stream = TcpSocket::new_v6()?.connect(SocketAddrV6::new(ip, port, 0, index).into()).await?;
    stream.set_nodelay(true)?;
    Ok(TcpStream(stream))
}

/// The number of an interface, by its name or as a number.
fn index(zone: &str) -> io::Result<u32> {
    if let Ok(index) = zone.parse() {
        return Ok(index);
    }
    let found = if_addrs::get_if_addrs()?.into_iter().find(|interface| interface.name == zone);
    let none = || io::Error::new(io::ErrorKind::NotFound, format!("there is no network interface `{zone}`"));
    found.and_then(|interface| interface.index).ok_or_else(none)
}

#[cfg(test)]
mod tests {
    use libp2p::PeerId;

    use super::*;

    #[test]
    fn a_zone_is_read_and_all_else_is_left_to_libp2p() {
        let place = Some(Place { zone: "eth0".to_owned(), ip: "fe80::1".parse().unwrap(), port: 1 });
        let address: Multiaddr = "/ip6zone/eth0/ip6/fe80::1/tcp/1".parse().unwrap();
        assert_eq!(zoned(&address), place);
        assert_eq!(zoned(&address.with(Protocol::P2p(PeerId::random()))), place);
        for text in [
            "/ip6/fe80::1/tcp/1",
            "/ip6zone/eth0/ip6/fe80::1/tcp/1/ws",
            "/ip6zone/eth0/ip6/fe80::1/tcp/0",
            "/ip4/10.0.0.1/tcp/1",
        ] {
            assert_eq!(zoned(&text.parse().unwrap()), None, "{text}");
        }
    }

    #[test]
    fn a_zone_that_is_not_there_is_named() {
        let error = index("nowhere").unwrap_err();
        assert!(error.to_string().contains("`nowhere`"), "{error}");
        assert_eq!(index("7").unwrap(), 7);
    }
}
