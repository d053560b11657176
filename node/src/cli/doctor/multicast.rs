//! Whether multicast goes out, and comes in, on each interface.

use std::{
    collections::HashSet,
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use futures::future::join_all;
use if_addrs::{IfOperStatus, Interface};
use multinodes::diagnosis::Overheard;
use socket2::{Domain, InterfaceIndexOrAddress, SockAddr, Socket, Type};

use super::report::{Check, Finding};

/// Where mDNS is spoken.
const PORT: u16 = 5353;
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);

/// The header of an answer to nothing, which everybody ignores. Ours is told from others by where it comes from.
const EMPTY_ANSWER: [u8; 12] = [0, 0, 0x84, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// What is sent comes back in microseconds; a socket that others share may have to read what is theirs first.
const PATIENCE: Duration = Duration::from_millis(300);

/// So often something is sent before it counts as lost.
const TIMES: usize = 3;

/// Hosts of many containers have hundreds of interfaces, all alike.
const MAX_WAYS: usize = 32;

/// One address family of one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Way {
    interface: String,
    index: u32,
    address: IpAddr,
    is_p2p: bool,
}

/// What does not work.
#[derive(Debug)]
enum Fault {
    Port(io::Error),
    Join(io::Error),
    Send(io::Error),
    Unheard,
}

/// Sends to the group of mDNS on each interface, and listens for it there; nothing at all if it is switched off.
pub(super) async fn findings(mdns: bool) -> Vec<Finding> {
    if !mdns {
        return vec![Finding::ok(Check::Multicast, "mDNS", "switched off: not used, and nothing was sent")];
    }
    let (ways, left_out) = match if_addrs::get_if_addrs() {
        Ok(interfaces) => ways(&interfaces),
        Err(error) => {
            let text = format!("the network interfaces cannot be listed: {error}");
            return vec![Finding::failure(Check::Multicast, "interfaces", text, JOIN)];
        }
    };
    if ways.is_empty() {
        let text = "there is no network but loopback: only nodes of this host can be found";
        let remedy = "bring a network interface up, if there is to be one";
        return vec![Finding::warning(Check::Multicast, "interfaces", text, remedy)];
    }
    let tries = ways.into_iter().map(|way| async move {
        let tried = way.clone();
        // Sockets that wait must not keep the only thread.
        let result = tokio::task::spawn_blocking(move || tried.attempt()).await;
        (way, result.unwrap_or(Err(Fault::Unheard)))
    });
    let mut findings = judge(&join_all(tries).await);
    if left_out > 0 {
        let text = format!("{left_out} more interfaces were not looked at: {MAX_WAYS} are at the most");
        findings.push(Finding::ok(Check::Multicast, "other interfaces", text));
    }
    findings
}

/// Who answers the question for nodes, of this swarm or of another.
pub(super) fn answers(mdns: bool, overheard: &Overheard) -> Option<Finding> {
    let heard: HashSet<_> = overheard.found.iter().map(|(peer_id, _)| peer_id).collect();
    match &overheard.degraded {
        _ if !mdns => None,
        Some(reason) => Some(Finding::warning(Check::Multicast, "answers", reason, JOIN)),
        None => {
            let text = format!("libp2p programs that answer on this network, of any swarm: {}", heard.len());
            Some(Finding::ok(Check::Multicast, "answers", text))
        }
    }
}

/// One way for each family of each interface that is up, and how many are left out. Link-local IPv6 is not among the
/// addresses: nodes do not start multicast for it either.
fn ways(interfaces: &[Interface]) -> (Vec<Way>, usize) {
    let mut ways: Vec<Way> = Vec::new();
    for interface in interfaces {
        let down = matches!(
            interface.oper_status,
            IfOperStatus::Down | IfOperStatus::NotPresent | IfOperStatus::LowerLayerDown
        );
        let Some(index) = interface.index.filter(|_| !down && !interface.is_loopback()) else { continue };
        let way = Way { interface: interface.name.clone(), index, address: interface.ip(), is_p2p: interface.is_p2p() };
        let same = |other: &Way| other.index == index && other.address.is_ipv4() == way.address.is_ipv4();
        if !ways.iter().any(same) {
            ways.push(way);
        }
    }
    let left_out = ways.len().saturating_sub(MAX_WAYS);
    ways.truncate(MAX_WAYS);
    (ways, left_out)
}

impl Way {
    /// Sends, and waits to hear it.
    fn attempt(&self) -> Result<(), Fault> {
        let receiver = self.receiver().map_err(Fault::Port)?;
        self.join(&receiver).map_err(Fault::Join)?;
        let sender = self.sender().map_err(Fault::Send)?;
        let port = sender.local_addr().map_err(Fault::Send)?.port();
        let receiver = UdpSocket::from(receiver);
        let group: IpAddr = if self.address.is_ipv4() { GROUP_V4.into() } else { GROUP_V6.into() };
        for _ in 0..TIMES {
            sender.send_to(&EMPTY_ANSWER, (group, PORT)).map_err(Fault::Send)?;
            if is_heard(&receiver, port, Instant::now() + PATIENCE) {
                return Ok(());
            }
        }
        Err(Fault::Unheard)
    }

    /// Shares the port with all who do the same, as nodes do.
    fn receiver(&self) -> io::Result<Socket> {
        let socket = self.socket()?;
        socket.set_reuse_address(true)?;
        #[cfg(unix)]
        socket.set_reuse_port(true)?;
        socket.bind(&SockAddr::from(SocketAddr::new(self.unspecified(), PORT)))?;
        Ok(socket)
    }

    fn join(&self, socket: &Socket) -> io::Result<()> {
        match self.address {
            IpAddr::V4(_) => socket.join_multicast_v4_n(&GROUP_V4, &InterfaceIndexOrAddress::Index(self.index)),
            IpAddr::V6(_) => socket.join_multicast_v6(&GROUP_V6, self.index),
        }
    }

    fn sender(&self) -> io::Result<UdpSocket> {
        let socket = self.socket()?;
        let from = match self.address {
            IpAddr::V4(ip) => {
                socket.set_multicast_if_v4(&ip)?;
                self.address
            }
            IpAddr::V6(_) => {
                socket.set_multicast_if_v6(self.index)?;
                self.unspecified()
            }
        };
        socket.bind(&SockAddr::from(SocketAddr::new(from, 0)))?;
        Ok(socket.into())
    }

    fn socket(&self) -> io::Result<Socket> {
        let domain = if self.address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::DGRAM, Some(socket2::Protocol::UDP))?;
        if self.address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        Ok(socket)
    }

    fn unspecified(&self) -> IpAddr {
        if self.address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
    }
}

/// Whether what was sent from `port` arrives in time.
fn is_heard(receiver: &UdpSocket, port: u16, until: Instant) -> bool {
    let mut buffer = [0; EMPTY_ANSWER.len() + 1];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || receiver.set_read_timeout(Some(left)).is_err() {
            return false;
        }
        if let Ok((length, from)) = receiver.recv_from(&mut buffer)
            && from.port() == port
            && buffer[..length] == EMPTY_ANSWER
        {
            return true;
        }
    }
}

/// One way that works is enough to be found, though maybe not by all.
fn judge(tried: &[(Way, Result<(), Fault>)]) -> Vec<Finding> {
    let any_works = tried.iter().any(|(_, result)| result.is_ok());
    let finding = |(way, result): &(Way, Result<(), Fault>)| {
        let subject = way.to_string();
        match result {
            Ok(()) => Finding::ok(Check::Multicast, subject, "out: sent to the group of mDNS; in: heard there"),
            Err(fault) if way.is_p2p => {
                let text = format!("{fault}; point to point, so nobody is found here by multicast anyway");
                Finding::ok(Check::Multicast, subject, text)
            }
            Err(fault) if any_works => Finding::warning(Check::Multicast, subject, fault.to_string(), fault.remedy()),
            Err(fault) => Finding::failure(Check::Multicast, subject, fault.to_string(), fault.remedy()),
        }
    };
    tried.iter().map(finding).collect()
}

impl Fault {
    fn remedy(&self) -> &'static str {
        match self {
            Self::Port(_) => "stop the program that holds UDP port 5353 alone (ss -ulpn), or join with `--join ADDR`",
            Self::Join(_) => JOIN,
            Self::Send(_) => "let UDP port 5353 out through this host's firewall, or join with `--join ADDR`",
            Self::Unheard => "let UDP port 5353 in through this host's firewall, or join with `--join ADDR`",
        }
    }
}

const JOIN: &str = "join through a known node with `--join ADDR`: nobody is found by multicast";

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(error) => write!(formatter, "UDP port 5353 cannot be shared: {error}"),
            Self::Join(error) => write!(formatter, "in: the multicast group cannot be joined: {error}"),
            Self::Send(error) => write!(formatter, "out: multicast cannot be sent: {error}"),
            Self::Unheard => formatter.write_str("in: what was sent to the group did not come back"),
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.interface, self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::report::Verdict, *};

    fn way(interface: &str, is_p2p: bool) -> Way {
        Way { interface: interface.to_owned(), index: 2, address: Ipv4Addr::new(10, 0, 0, 1).into(), is_p2p }
    }

    #[test]
    fn one_way_that_does_not_work_is_a_warning_and_none_that_does_a_failure() {
        let verdicts = |tried: &[(Way, Result<(), Fault>)]| -> Vec<_> {
            judge(tried).into_iter().map(|finding| finding.verdict).collect()
        };
        let (works, fails) = (Ok(()), || Err(Fault::Unheard));
        assert_eq!(
            verdicts(&[(way("eth0", false), works), (way("eth1", false), fails())]),
            [Verdict::Ok, Verdict::Warning]
        );
        assert_eq!(verdicts(&[(way("eth0", false), fails())]), [Verdict::Failure]);
        assert_eq!(verdicts(&[(way("tun0", true), fails())]), [Verdict::Ok]);
    }

    #[tokio::test]
    async fn nothing_is_sent_when_it_is_switched_off() {
        let findings = findings(false).await;
        assert_eq!((findings.len(), findings[0].verdict), (1, Verdict::Ok));
        assert_eq!(answers(false, &Overheard::default()), None);
    }
}
