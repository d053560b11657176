//! The sockets of one family: they share port 5353 with all who do the same, and one of them is enough for many
//! interfaces. A socket for each interface would get, on Linux, every packet of the host: work would grow with the square.

use std::{
    collections::HashMap,
    fmt, io,
    net::{IpAddr, SocketAddr, SocketAddrV6},
    task::{Context, Poll, ready},
};

use socket2::{InterfaceIndexOrAddress, SockAddr, Socket, Type};
use tokio::{io::Interest, net::UdpSocket};

use super::{
    family::{Family, GROUP_V4, GROUP_V6},
    interfaces::Interface,
};

/// The port of multicast DNS.
const PORT: u16 = 5353;

/// Linux lets one socket listen on 20 interfaces, unless it is told otherwise.
const MAX_SOCKETS: usize = 16;

/// Packets stay on their link whatever this says; those that have come further have less.
const HOPS: u32 = 255;

/// Where a packet has come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) from: IpAddr,
    /// The interface on which it came, if the system says so.
    pub(super) interface: Option<u32>,
}

/// All sockets of a family.
#[derive(Debug)]
pub(super) struct Sockets {
    family: Family,
    sockets: Vec<UdpSocket>,
    /// Which of them listens on which interface.
    joined: HashMap<u32, usize>,
    /// Whose turn it is to be read first.
    turn: usize,
}

impl Sockets {
    pub(super) fn open(family: Family) -> io::Result<Self> {
        Ok(Self { family, sockets: vec![open(family)?], joined: HashMap::new(), turn: 0 })
    }

    /// Listens on an interface, unless it does already.
    pub(super) fn join(&mut self, interface: &Interface) -> io::Result<()> {
        if self.joined.contains_key(&interface.index) {
            return Ok(());
        }
        // The latest has room, if any has.
        let latest = self.sockets.len() - 1;
        let result = match join(&self.sockets[latest], self.family, interface.index) {
            Err(error) if is_full(&error) && latest + 1 < MAX_SOCKETS && !self.joined.is_empty() => {
                let socket = open(self.family)?;
                join(&socket, self.family, interface.index)?;
                self.sockets.push(socket);
                Ok(())
            }
            // Of an interface that has gone and come again under the same number.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(()),
            result => result,
        };
        if result.is_ok() {
            self.joined.insert(interface.index, self.sockets.len() - 1);
        }
        result
    }

    /// Listens on an interface no longer.
    pub(super) fn leave(&mut self, index: u32) {
        let Some(socket) = self.joined.remove(&index).and_then(|socket| self.sockets.get(socket)) else { return };
        let socket = socket2::SockRef::from(socket);
        // It has left by itself if the interface is gone.
        let _ = match self.family {
            Family::V4 => socket.leave_multicast_v4_n(&GROUP_V4, &InterfaceIndexOrAddress::Index(index)),
            Family::V6 => socket.leave_multicast_v6(&GROUP_V6, index),
        };
    }

    pub(super) fn listens(&self) -> bool {
        !self.joined.is_empty()
    }

    /// Sends to the group through an interface, from one of its addresses. What the system has no room for is lost, like any packet.
    pub(super) fn send(&self, interface: &Interface, from: IpAddr, packet: &[u8]) -> io::Result<()> {
        let socket = socket2::SockRef::from(&self.sockets[0]);
        let to = match from {
            IpAddr::V4(from) => {
                socket.set_multicast_if_v4(&from)?;
                SocketAddr::from((GROUP_V4, PORT))
            }
            // The system takes the link-local one of the interface.
            IpAddr::V6(_) => SocketAddrV6::new(GROUP_V6, PORT, 0, interface.index).into(),
        };
        match socket.send_to(packet, &SockAddr::from(to)) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }

    /// Reads a packet from any of the sockets that was sent to the group.
    pub(super) fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<(usize, Origin)>> {
        for step in 0..self.sockets.len() {
            let index = (self.turn + step) % self.sockets.len();
            let socket = &self.sockets[index];
            loop {
                match ready_to_read(socket, context) {
                    Poll::Pending => break,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Ready(Ok(())) => {}
                }
                match socket.try_io(Interest::READABLE, || system::receive(socket, self.family, buffer)) {
                    Ok(Some(packet)) => {
                        self.turn = index + 1;
                        return Poll::Ready(Ok(packet));
                    }
                    // It was sent to this host alone, or is too large.
                    Ok(None) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
        }
        Poll::Pending
    }
}

fn ready_to_read(socket: &UdpSocket, context: &mut Context<'_>) -> Poll<io::Result<()>> {
    Poll::Ready(ready!(socket.poll_recv_ready(context)))
}

/// Whether a socket can listen on no further interface.
fn is_full(error: &io::Error) -> bool {
    // ENOBUFS and ENOMEM, whose numbers differ from system to system; what else is wrong is so with another socket, too.
    !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse)
}

fn open(family: Family) -> io::Result<UdpSocket> {
    let socket = Socket::new(family.domain(), Type::DGRAM, Some(socket2::Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    match family {
        Family::V4 => {
            socket.set_multicast_loop_v4(true)?;
            socket.set_multicast_ttl_v4(HOPS)?;
        }
        Family::V6 => {
            socket.set_only_v6(true)?;
            socket.set_multicast_loop_v6(true)?;
            socket.set_multicast_hops_v6(HOPS)?;
        }
    }
    system::prepare(&socket, family)?;
    socket.bind(&SockAddr::from(SocketAddr::new(family.unspecified(), PORT)))?;
    UdpSocket::from_std(socket.into())
}

fn join(socket: &UdpSocket, family: Family, index: u32) -> io::Result<()> {
    let socket = socket2::SockRef::from(socket);
    match family {
        Family::V4 => socket.join_multicast_v4_n(&GROUP_V4, &InterfaceIndexOrAddress::Index(index)),
        Family::V6 => socket.join_multicast_v6(&GROUP_V6, index),
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod system {
    //! Linux says of each packet on which interface it came, and to which address.

    use std::{
        io::{self, IoSliceMut},
        net::{IpAddr, Ipv4Addr, Ipv6Addr},
        os::fd::AsRawFd,
    };

    use nix::{
        cmsg_space, libc,
        sys::socket::{
            ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt,
            sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo},
        },
    };
    use socket2::Socket;
    use tokio::net::UdpSocket;

    use super::{Family, Origin};

    pub(super) fn prepare(socket: &Socket, family: Family) -> io::Result<()> {
        match family {
            Family::V4 => {
                // Else it would get what is sent on interfaces that others listen on.
                let _ = socket.set_multicast_all_v4(false);
                setsockopt(socket, Ipv4PacketInfo, &true)?;
            }
            Family::V6 => {
                let _ = socket.set_multicast_all_v6(false);
                setsockopt(socket, Ipv6RecvPacketInfo, &true)?;
            }
        }
        Ok(())
    }

    pub(super) fn receive(
        socket: &UdpSocket,
        family: Family,
        buffer: &mut [u8],
    ) -> io::Result<Option<(usize, Origin)>> {
        let mut space = cmsg_space!(libc::in_pktinfo, libc::in6_pktinfo);
        let mut slices = [IoSliceMut::new(buffer)];
        let message =
            recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::MSG_DONTWAIT)?;
        if message.flags.contains(MsgFlags::MSG_TRUNC) {
            return Ok(None);
        }
        let Some(from) = message.address.as_ref().and_then(ip) else { return Ok(None) };
        let came = message.cmsgs()?.find_map(|extra| match extra {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                let to = Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes());
                Some((IpAddr::V4(to), u32::try_from(info.ipi_ifindex).ok()?))
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                let to = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                // A number of another width on Android.
                #[allow(clippy::useless_conversion, reason = "see above")]
                Some((IpAddr::V6(to), u32::try_from(info.ipi6_ifindex).ok()?))
            }
            _ => None,
        });
        let Some((to, interface)) = came else { return Ok(None) };
        let length = message.bytes;
        Ok((to == family.group()).then_some((length, Origin { from, interface: Some(interface) })))
    }

    fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
        let v4 = address.as_sockaddr_in().map(|address| address.ip().into());
        v4.or_else(|| address.as_sockaddr_in6().map(|address| address.ip().into()))
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod system {
    //! Elsewhere the sender's address tells on which interface a packet came, as far as it can be told.

    use std::{io, net::SocketAddr};

    use socket2::Socket;
    use tokio::net::UdpSocket;

    use super::{Family, Origin};

    pub(super) fn prepare(_: &Socket, _: Family) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn receive(socket: &UdpSocket, _: Family, buffer: &mut [u8]) -> io::Result<Option<(usize, Origin)>> {
        let (length, from) = socket.try_recv_from(buffer)?;
        let interface = match from {
            SocketAddr::V6(from) if from.scope_id() != 0 => Some(from.scope_id()),
            _ => None,
        };
        Ok(Some((length, Origin { from: from.ip(), interface })))
    }
}

/// Why multicast DNS does not work here, and what to do.
#[derive(Debug)]
pub(super) enum Fault {
    Port(io::Error),
    Join(io::Error),
    Send(io::Error),
    Interfaces(io::Error),
    /// None of those that are named is there.
    Absent(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(error) => write!(
                formatter,
                "UDP port 5353 cannot be shared ({error}); stop the program that holds it alone, or join through a \
                 known node with `--join`"
            ),
            Self::Join(error) => write!(
                formatter,
                "the multicast group cannot be joined ({error}); join through a known node with `--join`"
            ),
            Self::Send(error) => write!(
                formatter,
                "multicast cannot be sent ({error}); check the firewall, or join through a known node with `--join`"
            ),
            Self::Absent(names) => write!(
                formatter,
                "there is no network interface `{names}` with an address; it is used as soon as there is"
            ),
            Self::Interfaces(error) => write!(
                formatter,
                "the network interfaces cannot be listed ({error}); join through a known node with `--join`"
            ),
        }
    }
}
