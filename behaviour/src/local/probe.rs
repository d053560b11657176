//! Tests whether multicast DNS can work at all.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use libp2p::{Multiaddr, mdns, multiaddr::Protocol};
use socket2::{Domain, SockAddr, Socket, Type};

/// The port of multicast DNS.
pub(super) const PORT: u16 = 5353;

/// The header of an answer to nothing, which everybody ignores.
const EMPTY_ANSWER: [u8; 12] = [0, 0, 0x84, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    /// The IP address, if it means something to other hosts.
    pub(super) fn reachable(address: &Multiaddr) -> Option<IpAddr> {
        Self::V4.reachable_ip(address).or_else(|| Self::V6.reachable_ip(address))
    }

    /// The IP address, if it is of this family and means something to other hosts. Link-local IPv6 addresses do not:
    /// without a scope nobody can dial them.
    pub(super) fn reachable_ip(self, address: &Multiaddr) -> Option<IpAddr> {
        match (self, address.iter().next()?) {
            (Self::V4, Protocol::Ip4(ip)) => (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip.into()),
            (Self::V6, Protocol::Ip6(ip)) => {
                (!ip.is_loopback() && !ip.is_unspecified() && !ip.is_unicast_link_local()).then_some(ip.into())
            }
            _ => None,
        }
    }

    /// Does what libp2p's behaviour will do: shares port 5353, and with an `address` of this host joins the group and
    /// sends to it.
    pub(super) fn probe(self, address: Option<IpAddr>) -> Result<(), ProbeError> {
        let receiver = self.receiver().map_err(ProbeError::Port)?;
        let Some(address) = address else { return Ok(()) };
        match address {
            IpAddr::V4(ip) => receiver.join_multicast_v4(&mdns::IPV4_MDNS_MULTICAST_ADDRESS, &ip),
            IpAddr::V6(_) => receiver.join_multicast_v6(&mdns::IPV6_MDNS_MULTICAST_ADDRESS, 0),
        }
        .map_err(ProbeError::Join)?;
        self.send(address).map_err(ProbeError::Send)
    }

    fn receiver(self) -> io::Result<Socket> {
        let socket = Socket::new(self.domain(), Type::DGRAM, Some(socket2::Protocol::UDP))?;
        socket.set_reuse_address(true)?;
        #[cfg(unix)]
        socket.set_reuse_port(true)?;
        socket.bind(&SockAddr::from(SocketAddr::new(self.unspecified(), PORT)))?;
        Ok(socket)
    }

    /// A socket that sends from the network with `address`, and the group to send to.
    pub(super) fn sender(self, address: IpAddr) -> io::Result<(Socket, IpAddr)> {
        let socket = Socket::new(self.domain(), Type::DGRAM, Some(socket2::Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        let (from, group): (IpAddr, IpAddr) = match self {
            Self::V4 => (address, mdns::IPV4_MDNS_MULTICAST_ADDRESS.into()),
            Self::V6 => (self.unspecified(), mdns::IPV6_MDNS_MULTICAST_ADDRESS.into()),
        };
        socket.bind(&SockAddr::from(SocketAddr::new(from, 0)))?;
        Ok((socket, group))
    }

    fn send(self, address: IpAddr) -> io::Result<()> {
        let (socket, group) = self.sender(address)?;
        match socket.send_to(&EMPTY_ANSWER, &SockAddr::from(SocketAddr::new(group, PORT))) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }

    fn domain(self) -> Domain {
        match self {
            Self::V4 => Domain::IPV4,
            Self::V6 => Domain::IPV6,
        }
    }

    fn unspecified(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Self::V6 => Ipv6Addr::UNSPECIFIED.into(),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// Why multicast DNS does not work here, and what to do.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProbeError {
    #[error(
        "UDP port 5353 cannot be shared ({0}); stop the program that holds it alone, or join through a known node with \
         `--join`"
    )]
    Port(#[source] io::Error),
    #[error("the multicast group cannot be joined ({0}); join through a known node with `--join`")]
    Join(#[source] io::Error),
    #[error("multicast cannot be sent ({0}); check the firewall, or join through a known node with `--join`")]
    Send(#[source] io::Error),
    #[error("the network interfaces cannot be watched ({0}); join through a known node with `--join`")]
    Interfaces(#[source] io::Error),
}
