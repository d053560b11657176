//! On which interfaces nodes look for others, and whether multicast goes out, and comes in, on each of them.

use std::{
    collections::HashSet,
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use futures::future::join_all;
use multinodes::diagnosis::{self, Interface, Overheard};
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
const MAX_WAYS: usize = 64;

/// So many interfaces that are not used are named in one line.
const MAX_NAMES: usize = 8;

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

/// Sends to the group of mDNS on each interface that nodes use, and listens for it there; nothing at all if it is switched
/// off. `named` are the interfaces that the user wants.
pub(super) async fn findings(mdns: bool, named: &[String]) -> Vec<Finding> {
    if !mdns {
        return vec![Finding::ok(Check::Multicast, "mDNS", "switched off: not used, and nothing was sent")];
    }
    let interfaces = match diagnosis::interfaces(named) {
        Ok(interfaces) => interfaces,
        Err(error) => {
            let text = format!("the network interfaces cannot be listed: {error}");
            return vec![Finding::failure(Check::Multicast, "interfaces", text, JOIN)];
        }
    };
    if interfaces.is_empty() {
        let text = "there is no network but loopback: only nodes of this host can be found";
        let remedy = "bring a network interface up, if there is to be one";
        return vec![Finding::warning(Check::Multicast, "interfaces", text, remedy)];
    }
    let (ways, left_out) = ways(&interfaces);
    let tries = ways.into_iter().map(|way| async move {
        let tried = way.clone();
        // Sockets that wait must not keep the only thread.
        let result = tokio::task::spawn_blocking(move || tried.attempt()).await;
        (way, result.unwrap_or(Err(Fault::Unheard)))
    });
    let mut findings = judge(&join_all(tries).await);
    if left_out > 0 {
        let text = format!("{left_out} more were not tried: {MAX_WAYS} are at the most");
        findings.push(Finding::ok(Check::Multicast, "other interfaces", text));
    }
    findings.extend(missing(&interfaces, named));
    findings.extend(unused(&interfaces));
    findings
}

/// The interfaces that are named and not there.
fn missing(interfaces: &[Interface], named: &[String]) -> Vec<Finding> {
    let is_there = |name: &&String| interfaces.iter().any(|interface| interface.name == **name);
    let finding = |name: &String| {
        let remedy = "correct `--interface`; `ip addr` lists what is there";
        Finding::warning(Check::Multicast, name, "named by `--interface`, and not there, or without an address", remedy)
    };
    named.iter().filter(|name| !is_there(name)).map(finding).collect()
}

/// The interfaces on which nodes do not look, by the reason.
fn unused(interfaces: &[Interface]) -> Vec<Finding> {
    let mut reasons: Vec<(String, Vec<&str>)> = Vec::new();
    for interface in interfaces {
        let Some(reason) = interface.left_out.map(|reason| reason.to_string()) else { continue };
        match reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, names)) => names.push(&interface.name),
            None => reasons.push((reason, vec![&interface.name])),
        }
    }
    let finding = |(reason, names): (String, Vec<&str>)| {
        let more = names.len().saturating_sub(MAX_NAMES);
        let mut subject = names[..names.len() - more].join(" ");
        if more > 0 {
            subject = format!("{subject} and {more} more");
        }
        let text = format!("not used: {reason}; `--interface NAME` uses those that it names");
        Finding::ok(Check::Multicast, subject, text)
    };
    reasons.into_iter().map(finding).collect()
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

/// One way for each family of each interface that is used, and how many are left out.
fn ways(interfaces: &[Interface]) -> (Vec<Way>, usize) {
    let used = interfaces.iter().filter(|interface| interface.left_out.is_none());
    let mut ways: Vec<Way> = used
        .flat_map(|interface| {
            // Where there is another address, nodes can do without the link-local one of IPv6.
            let fits = |ip: &&Ipv6Addr| interface.v4.is_empty() || !ip.is_unicast_link_local();
            let v6 = interface.v6.iter().filter(fits).min_by_key(|ip| ip.is_unicast_link_local());
            let addresses =
                interface.v4.first().map(|ip| IpAddr::from(*ip)).into_iter().chain(v6.map(|ip| (*ip).into()));
            addresses.map(|address| Way {
                interface: interface.name.clone(),
                index: interface.index,
                address,
                is_p2p: interface.is_p2p,
            })
        })
        .collect();
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
    use multinodes::diagnosis::LeftOut;

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

    #[test]
    fn it_is_said_which_interfaces_are_not_used_and_why() {
        let one = |name: &str, left_out| Interface {
            name: name.to_owned(),
            index: 2,
            v4: vec![Ipv4Addr::new(10, 0, 0, 1)],
            v6: Vec::new(),
            is_p2p: false,
            left_out,
        };
        let mut all = vec![one("eth0", None)];
        all.extend((0..10).map(|number| one(&format!("br-{number}"), Some(LeftOut::InnerBridge))));
        let findings = unused(&all);
        let [line] = &findings[..] else { panic!("{findings:?}") };
        assert!(line.subject.ends_with("br-7 and 2 more") && line.text.contains("bridge"), "{line:?}");
        assert_eq!(ways(&all).0, [Way { interface: "eth0".to_owned(), ..way("eth0", false) }]);
        let absent = missing(&all, &["wlan0".to_owned(), "eth0".to_owned()]);
        assert_eq!((absent.len(), absent[0].verdict), (1, Verdict::Warning));
    }

    #[tokio::test]
    async fn nothing_is_sent_when_it_is_switched_off() {
        let findings = findings(false, &[]).await;
        assert_eq!((findings.len(), findings[0].verdict), (1, Verdict::Ok));
        assert_eq!(answers(false, &Overheard::default()), None);
    }
}
