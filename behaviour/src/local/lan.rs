//! A task beside that of the swarm which asks the LAN, listens, and answers for this node: however much is said there, and
//! on however many interfaces, no connection waits for it.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    future::poll_fn,
    io,
    net::IpAddr,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::StreamExt;
use if_watch::tokio::IfWatcher;
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use tokio::sync::{mpsc, watch};

use super::{
    Event,
    family::{self, Family},
    interfaces::{self, Interface},
    packet::{self, Heard, MAX_PACKET},
    sockets::{Fault, Origin, Sockets},
    table::Table,
    way::Way,
};

/// Two lost answers in a row are not yet a lost node.
const TTL: Duration = Duration::from_secs(3 * 60);

/// Who has heard of so many asks no further question: they, or those whom they know, tell of the rest. So the questions of
/// a crowd that starts at once stay few.
const ENOUGH: usize = 8;

/// Interfaces come with several addresses, and so do listeners.
const SETTLE: Duration = Duration::from_millis(20);

/// So often the interfaces are looked at anyhow: not all systems tell of a cable. What has failed is tried again then.
const SURVEY: Duration = Duration::from_secs(5);

/// What was heard is forgotten with this delay at the most.
const EXPIRE: Duration = Duration::from_secs(5);

/// More is not read before timers have their turn.
const MAX_READ: usize = 64;

pub(super) struct Lan {
    peer_id: PeerId,
    /// Of this node's records.
    label: String,
    /// The interfaces that the user wants, or none for those that are fit.
    named: Vec<String>,
    listening: Vec<Multiaddr>,
    /// Those that are used.
    interfaces: BTreeMap<u32, Interface>,
    sockets: BTreeMap<Family, Sockets>,
    ways: BTreeMap<(u32, Family), Way>,
    table: Table,
    /// Not told yet.
    events: Vec<Event>,
    found: Vec<(PeerId, Multiaddr)>,
    degraded: bool,
    /// The number of its last question, which it hears itself.
    question: Option<u16>,
    next_survey: Instant,
    next_expiry: Instant,
}

impl Lan {
    pub(super) fn new(peer_id: PeerId, named: Vec<String>, listening: Vec<Multiaddr>) -> Self {
        let now = Instant::now();
        Self {
            peer_id,
            label: packet::random_label(),
            named,
            listening,
            interfaces: BTreeMap::new(),
            sockets: BTreeMap::new(),
            ways: BTreeMap::new(),
            table: Table::default(),
            events: Vec::new(),
            found: Vec::new(),
            degraded: false,
            question: None,
            next_survey: now,
            next_expiry: now + EXPIRE,
        }
    }

    /// Runs until nobody wants to know any more.
    pub(super) async fn run(mut self, mut listening: watch::Receiver<Vec<Multiaddr>>, reports: mpsc::Sender<Event>) {
        let mut watcher = IfWatcher::new().inspect_err(|error| tracing::debug!(%error, "no news of interfaces")).ok();
        let mut buffer = vec![0; MAX_PACKET];
        loop {
            let now = Instant::now();
            if self.next_survey <= now {
                self.next_survey = now + SURVEY;
                let named = self.named.clone();
                let surveyed = tokio::task::spawn_blocking(move || interfaces::survey(&named)).await;
                self.on_survey(surveyed.unwrap_or_else(|error| Err(io::Error::other(error))), Instant::now());
            }
            self.on_time(Instant::now());
            for event in self.news() {
                if reports.send(event).await.is_err() {
                    return;
                }
            }
            let due = self.next();
            tokio::select! {
                result = poll_fn(|context| self.poll_read(context, &mut buffer)) => self.on_read(result),
                changed = listening.changed() => match changed {
                    Ok(()) => {
                        self.listening.clone_from(&listening.borrow_and_update());
                        self.survey_within(SETTLE);
                    }
                    Err(_) => return,
                },
                news = changes(&mut watcher) => match news {
                    true => self.survey_within(SETTLE),
                    false => watcher = None,
                },
                () = tokio::time::sleep_until(due.into()) => {}
            }
        }
    }

    fn survey_within(&mut self, time: Duration) {
        self.next_survey = self.next_survey.min(Instant::now() + time);
    }

    fn news(&mut self) -> Vec<Event> {
        let mut events = std::mem::take(&mut self.events);
        if !self.found.is_empty() {
            events.push(Event::Found(std::mem::take(&mut self.found)));
        }
        events
    }

    fn next(&self) -> Instant {
        let ways = self.ways.values().map(Way::next).min();
        let next = self.next_survey.min(self.next_expiry);
        ways.map_or(next, |way| way.min(next))
    }

    fn on_survey(&mut self, surveyed: io::Result<Vec<Interface>>, now: Instant) {
        let all = match surveyed {
            Ok(all) => all,
            Err(error) => return self.on_fault(None, &Fault::Interfaces(error)),
        };
        self.interfaces = all.into_iter().filter(|one| one.left_out.is_none()).map(|one| (one.index, one)).collect();
        if self.interfaces.is_empty() && !self.named.is_empty() {
            self.on_fault(None, &Fault::Absent(self.named.join("`, `")));
        }
        let is_there = |(index, family): &(u32, Family)| {
            self.interfaces.get(index).is_some_and(|one| !one.addresses(*family).is_empty())
        };
        let gone: Vec<_> = self.ways.keys().filter(|key| !is_there(key)).copied().collect();
        for (index, family) in gone {
            tracing::debug!(index, %family, "the LAN is not asked on an interface any more");
            self.ways.remove(&(index, family));
            if let Some(sockets) = self.sockets.get_mut(&family) {
                sockets.leave(index);
            }
        }
        let faults = Family::BOTH.map(|family| self.listen(family, now).err());
        for (family, fault) in Family::BOTH.into_iter().zip(&faults) {
            if let Some(fault) = fault {
                tracing::debug!(%family, %fault, "multicast does not work");
                // A host without IPv6 is not worth a word as long as IPv4 works.
                if family == Family::V4 || faults.iter().all(Option::is_some) {
                    self.on_fault(Some(family), fault);
                }
            }
        }
    }

    /// Listens on all interfaces that have an address of the family.
    fn listen(&mut self, family: Family, now: Instant) -> Result<(), Fault> {
        let wanted = self.interfaces.values().filter(|one| !one.addresses(family).is_empty());
        let wanted: Vec<Interface> = wanted.cloned().collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let sockets = match self.sockets.entry(family) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(vacant) => vacant.insert(Sockets::open(family).map_err(Fault::Port)?),
        };
        let mut refused = None;
        for interface in &wanted {
            match sockets.join(interface) {
                Ok(()) => {
                    let told = told(interface, family, &self.listening);
                    let way = self.ways.entry((interface.index, family)).or_insert_with(|| {
                        tracing::debug!(interface = %interface.name, %family, "the LAN is asked on an interface");
                        Way::new(now)
                    });
                    if way.told != told {
                        way.told = told;
                        way.begin(now);
                    }
                }
                Err(error) => {
                    tracing::debug!(interface = %interface.name, %family, %error, "the group cannot be joined");
                    refused = Some(error);
                }
            }
        }
        match refused {
            Some(error) if !sockets.listens() => Err(Fault::Join(error)),
            _ => Ok(()),
        }
    }

    /// Says once what does not work.
    fn on_fault(&mut self, family: Option<Family>, fault: &Fault) {
        tracing::debug!(?family, %fault, "multicast discovery does not work");
        if !std::mem::replace(&mut self.degraded, true) {
            let reason = format!("nodes of this network cannot be found by multicast: {fault}");
            self.events.push(Event::Degraded { reason });
        }
    }

    /// Asks and answers what is due.
    fn on_time(&mut self, now: Instant) {
        let (enough, id) = (self.table.len() >= ENOUGH, rand::random());
        let question = packet::question(id);
        let (mut asked, mut refused) = ([0, 0], [None, None]);
        for ((index, family), way) in &mut self.ways {
            let (Some(interface), Some(sockets)) = (self.interfaces.get(index), self.sockets.get(family)) else {
                continue;
            };
            let slot = *family as usize;
            if way.asks(enough, now) {
                asked[slot] += 1;
                self.question = Some(id);
                match interface.addresses(*family).first().map(|from| sockets.send(interface, *from, &question)) {
                    Some(Err(error)) => {
                        refused[slot] = Some((error, refused[slot].take().map_or(1, |(_, count)| count + 1)))
                    }
                    // Who asks answers, too, and is so heard by all.
                    _ => way.on_question(now),
                }
            }
            if way.answers(now) {
                answer(interface, sockets, &way.told, &self.label, &self.peer_id);
            }
        }
        for (family, refused) in Family::BOTH.into_iter().zip(refused) {
            if let Some((error, count)) = refused
                && count == asked[family as usize]
                && count == self.ways.keys().filter(|(_, other)| *other == family).count()
                && family == Family::V4
            {
                self.on_fault(Some(family), &Fault::Send(error));
            }
        }
        if self.next_expiry <= now {
            self.next_expiry = now + EXPIRE;
            let silent = self.table.expire(now);
            if !silent.is_empty() {
                self.events.push(Event::Silent(silent));
            }
        }
    }

    /// Reads what is there, up to a limit.
    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<(), (Family, io::Error)>> {
        let mut count = 0;
        for family in Family::BOTH {
            while count < MAX_READ {
                let Some(sockets) = self.sockets.get_mut(&family) else { break };
                match sockets.poll_receive(context, buffer) {
                    Poll::Pending => break,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err((family, error))),
                    Poll::Ready(Ok((length, origin))) => {
                        count += 1;
                        self.on_packet(&buffer[..length], family, origin, Instant::now());
                    }
                }
            }
        }
        if count > 0 { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn on_read(&mut self, result: Result<(), (Family, io::Error)>) {
        if let Err((family, error)) = result {
            tracing::debug!(%family, %error, "nothing can be read any more; the sockets are opened anew");
            self.sockets.remove(&family);
            self.ways.retain(|(_, other), _| *other != family);
        }
    }

    fn on_packet(&mut self, bytes: &[u8], family: Family, origin: Origin, now: Instant) {
        let concerned = |key: &(u32, Family)| key.1 == family && origin.interface.is_none_or(|index| index == key.0);
        let mut concerned: Vec<_> = self.ways.iter_mut().filter(|(key, _)| concerned(key)).collect();
        let Some((key, way)) = concerned.first_mut() else { return };
        if !way.takes(now) {
            return;
        }
        let index = key.0;
        match packet::read(bytes) {
            // It was answered when it was asked.
            Some(Heard::Question(id)) if Some(id) == self.question => {}
            Some(Heard::Question(_)) => concerned.into_iter().for_each(|(_, way)| way.on_question(now)),
            Some(Heard::Services(id)) if !way.told.is_empty() => {
                if let (Some(interface), Some(sockets)) = (self.interfaces.get(&index), self.sockets.get(&family))
                    && let Some(from) = interface.addresses(family).first()
                {
                    let _ = sockets.send(interface, *from, &packet::services(id, TTL));
                }
            }
            Some(Heard::Answer(answer)) => {
                let zone = self.interfaces.get(&index).map(|one| one.name.clone());
                for (peer_id, address, ttl) in answer {
                    self.on_answer(peer_id, address, ttl, origin.from, zone.as_deref(), now);
                }
            }
            _ => {}
        }
    }

    fn on_answer(
        &mut self,
        peer_id: PeerId,
        address: Multiaddr,
        ttl: Duration,
        from: IpAddr,
        zone: Option<&str>,
        now: Instant,
    ) {
        let Some(address) = placed(address, from, zone).filter(|_| peer_id != self.peer_id) else { return };
        if self.table.note(peer_id, &address, ttl, now) {
            tracing::debug!(%peer_id, %address, "heard on the LAN");
            self.found.push((peer_id, address));
        }
    }
}

/// Whether something has changed; false if that cannot be known any more, and never if there is nobody to tell.
async fn changes(watcher: &mut Option<IfWatcher>) -> bool {
    match watcher {
        Some(watcher) => matches!(watcher.next().await, Some(Ok(_))),
        None => std::future::pending().await,
    }
}

/// Where a node that listens on `listening` is reached through an interface. A link-local address of IPv6 needs the zone of
/// whoever dials it, so it is told where there is no other one.
fn told(interface: &Interface, family: Family, listening: &[Multiaddr]) -> Vec<Multiaddr> {
    let own = interface.addresses(family);
    let routed = interface.has_routed_v6();
    let fits = |address: &&Multiaddr| match family::reachable(address) {
        Some(IpAddr::V6(ip)) if ip.is_unicast_link_local() && routed => false,
        Some(ip) => own.contains(&ip),
        None => false,
    };
    listening.iter().filter(fits).cloned().collect()
}

/// Those who listen take the sender's address of IPv4 for that of the node, as libp2p does: so each is told from itself.
fn answer(interface: &Interface, sockets: &Sockets, told: &[Multiaddr], label: &str, peer_id: &PeerId) {
    let mut sources: Vec<IpAddr> = Vec::new();
    for ip in told.iter().filter_map(family::reachable) {
        if !sources.contains(&ip) && (ip.is_ipv4() || sources.is_empty()) {
            sources.push(ip);
        }
    }
    for source in sources {
        let here = |address: &&Multiaddr| !source.is_ipv4() || family::reachable(address) == Some(source);
        let told: Vec<Multiaddr> = told.iter().filter(here).cloned().collect();
        for packet in packet::answers(label, peer_id, &told, TTL) {
            if let Err(error) = sockets.send(interface, source, &packet) {
                tracing::debug!(interface = %interface.name, %error, "an answer cannot be sent");
            }
        }
    }
}

/// Where somebody is who has told `address` from the address `from`: of IPv4 at the latter, whatever it says of itself, and
/// on this link, if the address means something here alone.
fn placed(address: Multiaddr, from: IpAddr, zone: Option<&str>) -> Option<Multiaddr> {
    match (family::reachable(&address)?, from) {
        (IpAddr::V4(_), IpAddr::V4(from)) => address.replace(0, |_| Some(Protocol::Ip4(from))),
        (IpAddr::V6(ip), IpAddr::V6(from)) if ip.is_unicast_link_local() => {
            let zone = zone.filter(|_| ip == from)?;
            Some(std::iter::once(Protocol::Ip6zone(zone.into())).chain(address.iter()).collect())
        }
        (IpAddr::V6(_), IpAddr::V6(_)) => Some(address),
        _ => None,
    }
    .filter(|address| address.iter().all(|part| !matches!(part, Protocol::P2p(_) | Protocol::P2pCircuit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    fn interface(v4: &[&str], v6: &[&str]) -> Interface {
        let (v4, v6) = (v4.iter().map(|ip| ip.parse().unwrap()), v6.iter().map(|ip| ip.parse().unwrap()));
        let (v4, v6) = (v4.collect(), v6.collect());
        Interface { name: "eth0".to_owned(), index: 2, v4, v6, is_p2p: false, left_out: None }
    }

    fn lan() -> Lan {
        Lan::new(PeerId::random(), Vec::new(), Vec::new())
    }

    #[test]
    fn on_each_interface_its_own_addresses_are_told() {
        let listening = ["/ip4/127.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/1", "/ip4/10.0.1.1/tcp/1", "/ip6/fe80::1/tcp/1"];
        let listening = listening.map(address);
        let one = interface(&["10.0.0.1"], &["fe80::1"]);
        assert_eq!(told(&one, Family::V4, &listening), [address("/ip4/10.0.0.1/tcp/1")]);
        assert_eq!(told(&one, Family::V6, &listening), [address("/ip6/fe80::1/tcp/1")]);
        let routed = interface(&[], &["fe80::1", "fd00::1"]);
        assert!(told(&routed, Family::V6, &listening).is_empty(), "another address of that interface would do");
    }

    #[test]
    fn whoever_answers_is_where_the_answer_comes_from() {
        let (v4, v6): (IpAddr, IpAddr) = ("10.0.0.7".parse().unwrap(), "fe80::7".parse().unwrap());
        let place = |text: &str, from| placed(address(text), from, Some("eth0")).map(|address| address.to_string());
        assert_eq!(place("/ip4/192.0.2.1/tcp/1", v4).as_deref(), Some("/ip4/10.0.0.7/tcp/1"));
        assert_eq!(place("/ip6/fd00::7/tcp/1", v6).as_deref(), Some("/ip6/fd00::7/tcp/1"));
        assert_eq!(place("/ip6/fe80::7/tcp/1", v6).as_deref(), Some("/ip6zone/eth0/ip6/fe80::7/tcp/1"));
        for (text, from) in [
            ("/ip4/127.0.0.1/tcp/1", v4),
            ("/ip6/::1/tcp/1", v6),
            ("/ip6/fe80::8/tcp/1", v6),
            ("/ip6/fd00::7/tcp/1", v4),
            ("/ip4/10.0.0.7/tcp/1", v6),
            ("/dns4/example.org/tcp/1", v4),
        ] {
            assert_eq!(place(text, from), None, "{text} from {from}");
        }
        assert_eq!(placed(address("/ip6/fe80::7/tcp/1"), v6, None), None);
    }

    #[test]
    fn a_failure_is_told_once_and_names_the_remedy() {
        let mut lan = lan();
        let fault = || Fault::Port(io::ErrorKind::AddrInUse.into());
        lan.on_fault(Some(Family::V4), &fault());
        lan.on_fault(Some(Family::V4), &fault());
        let [Event::Degraded { reason }] = &lan.news()[..] else { panic!("one event") };
        assert!(reason.contains("5353") && reason.contains("`--join`"), "{reason}");
    }

    #[test]
    fn what_is_heard_is_told_once_and_this_node_is_not() {
        let (mut lan, now, peer_id) = (lan(), Instant::now(), PeerId::random());
        lan.ways.insert((2, Family::V4), Way::new(now));
        let own = lan.peer_id;
        let origin = |interface| Origin { from: "10.0.0.7".parse().unwrap(), interface: Some(interface) };
        let listening = [address("/ip4/10.0.0.7/tcp/1")];
        for (peer_id, interface) in [(own, 2), (peer_id, 2), (peer_id, 2), (PeerId::random(), 3)] {
            for packet in packet::answers("label", &peer_id, &listening, TTL) {
                lan.on_packet(&packet, Family::V4, origin(interface), now);
            }
        }
        assert_eq!(lan.news(), [Event::Found(vec![(peer_id, listening[0].clone())])]);
        assert!(lan.news().is_empty());
    }
}
