//! How much of the swarm's own task a peer gets for what a protocol of libp2p does at once when something comes from it:
//! to answer questions, to look through a packet. What comes beyond that is not looked at, and for a moment nothing more is read
//! from that connection: what it has to say waits at its own end, where it costs this node nothing.
//!
//! The first thing that is said on a connection is always looked at: it says what the connection speaks, and is not said
//! again.

mod brake;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use libp2p::{
    PeerId,
    swarm::{
        ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        behaviour::ConnectionEstablished,
    },
};

use self::brake::Brake;
pub use self::brake::Handler;
use crate::{
    delegate::{ask_inside_of_pending, reach_inside, wrap_handlers_of_inside},
    ended::ended,
    ration::{Origin, Rate, Table, Tiers, Who},
};

/// So long nothing is read from a connection on which more came than its ration.
const PAUSE: Duration = Duration::from_millis(100);

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// One for each thing that comes.
    Number,
    /// The microseconds that it has taken.
    Time,
}

/// A protocol in whose name no peer, and no host, gets more than its ration of the swarm's task.
pub struct Rationed<B> {
    inner: B,
    cost: Cost,
    purse: Purse,
    /// An entry for each connection, of which there are limits.
    connections: HashMap<ConnectionId, Connection>,
    /// One entry for each peer at the most.
    excess: VecDeque<Excess>,
}

#[derive(Default)]
struct Connection {
    peer_id: Option<PeerId>,
    origin: Option<Origin>,
    has_spoken: bool,
    brake: Arc<Brake>,
}

/// What the swarm's owner hears.
#[derive(Debug)]
pub enum Event<E> {
    /// What the protocol says.
    Inner(E),
    /// Something that has come was not looked at.
    Excess(Excess),
}

/// Something was not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Excess {
    /// From whom it came.
    pub peer_id: PeerId,
    /// The peer alone has used up its ration: it is not others at the same host.
    pub by_itself: bool,
}

impl<B: NetworkBehaviour> Rationed<B> {
    /// Rations for one peer, and for all peers of one host.
    pub fn new(inner: B, cost: Cost, [peer, origin]: [Rate; 2]) -> Self {
        let purse = Purse::new([peer, origin], Instant::now());
        Self { inner, cost, purse, connections: HashMap::new(), excess: VecDeque::new() }
    }

    /// Reads nothing from this peer for a moment, because it has sent more than whoever owns the swarm takes of it.
    pub fn pause(&mut self, peer_id: &PeerId) {
        let until = Instant::now() + PAUSE;
        for connection in self.connections.values().filter(|connection| connection.peer_id.as_ref() == Some(peer_id)) {
            connection.brake.pull(until);
        }
    }

    fn handler(&mut self, id: ConnectionId, inner: THandler<B>) -> Handler<THandler<B>> {
        let connection = self.connections.entry(id).or_default();
        Handler::new(inner, connection.brake.clone())
    }

    fn refuse(&mut self, excess: Excess) {
        if !self.excess.contains(&excess) {
            self.excess.push_back(excess);
        }
    }
}

reach_inside!(Rationed);

impl<B: NetworkBehaviour> NetworkBehaviour for Rationed<B> {
    type ConnectionHandler = Handler<THandler<B>>;
    type ToSwarm = Event<B::ToSwarm>;

    ask_inside_of_pending!();

    wrap_handlers_of_inside!(Self::handler);

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::ConnectionEstablished(established) = &event {
            let ConnectionEstablished { peer_id, connection_id, endpoint, .. } = established;
            let connection = self.connections.entry(*connection_id).or_default();
            connection.peer_id = Some(*peer_id);
            connection.origin = Origin::of(endpoint.get_remote_address());
        }
        if let Some((connection_id, _)) = ended(&event) {
            self.connections.remove(&connection_id);
        }
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer_id: PeerId, id: ConnectionId, event: THandlerOutEvent<Self>) {
        let now = Instant::now();
        let mut connection = self.connections.get_mut(&id);
        let who = Who { peer_id, origin: connection.as_ref().and_then(|connection| connection.origin) };
        let is_first =
            connection.as_mut().is_some_and(|connection| !std::mem::replace(&mut connection.has_spoken, true));
        if !is_first && let Err(excess) = self.purse.check(who, now) {
            if let Some(connection) = connection {
                connection.brake.pull(now + PAUSE);
            }
            return self.refuse(excess);
        }
        self.inner.on_connection_handler_event(peer_id, id, event);
        self.purse.pay(who, self.cost.of(now.elapsed()), now);
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some(excess) = self.excess.pop_front() {
            return Poll::Ready(ToSwarm::GenerateEvent(Event::Excess(excess)));
        }
        self.inner.poll(context).map(|event| event.map_out(Event::Inner))
    }
}

impl Cost {
    fn of(self, took: Duration) -> f64 {
        match self {
            Self::Number => 1.0,
            Self::Time => took.as_secs_f64() * 1e6,
        }
    }
}

/// What is left for whom.
struct Purse {
    peers: Table<PeerId>,
    origins: Table<Origin>,
}

impl Purse {
    fn new([peer, origin]: [Rate; 2], now: Instant) -> Self {
        Self { peers: Table::new(peer, Tiers::MAX_PEERS, now), origins: Table::new(origin, Tiers::MAX_ORIGINS, now) }
    }

    /// Whether anything is left: what it costs is known only afterwards.
    fn check(&mut self, who: Who, now: Instant) -> Result<(), Excess> {
        let Who { peer_id, origin } = who;
        if self.peers.of(peer_id, now).whole(now) == 0 {
            return Err(Excess { peer_id, by_itself: true });
        }
        match origin {
            Some(origin) if self.origins.of(origin, now).whole(now) == 0 => Err(Excess { peer_id, by_itself: false }),
            _ => Ok(()),
        }
    }

    fn pay(&mut self, who: Who, cost: f64, now: Instant) {
        self.peers.of(who.peer_id, now).charge(cost, now);
        if let Some(origin) = who.origin {
            self.origins.of(origin, now).charge(cost, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use libp2p::{Multiaddr, core::ConnectedPoint};

    use super::*;
    use crate::ping;

    const RATE: Rate = Rate { burst: 10.0, per_second: 2.0 };

    fn of_host(host: u8) -> Who {
        Who { peer_id: PeerId::random(), origin: Some(Origin::V4([10, 0, 0, host].into())) }
    }

    /// How much of `count` things that cost so much each is looked at.
    fn looked_at(purse: &mut Purse, who: Who, count: usize, cost: f64, now: Instant) -> usize {
        let mut look = || {
            purse.check(who, now).ok()?;
            purse.pay(who, cost, now);
            Some(())
        };
        (0..count).filter_map(|_| look()).count()
    }

    #[test]
    fn a_peer_has_its_ration_also_when_it_comes_back_and_its_host_several() {
        let now = Instant::now();
        let mut purse = Purse::new([RATE, RATE.times(3.0)], now);
        let who = of_host(1);
        assert_eq!(looked_at(&mut purse, who, 100, 1.0, now), 10);
        assert_eq!(purse.check(who, now), Err(Excess { peer_id: who.peer_id, by_itself: true }));
        let others: usize = (0..10).map(|_| looked_at(&mut purse, of_host(1), 100, 1.0, now)).sum();
        assert_eq!(others, 20);
        let late = of_host(1);
        assert_eq!(purse.check(late, now), Err(Excess { peer_id: late.peer_id, by_itself: false }));
        assert_eq!(looked_at(&mut purse, of_host(2), 100, 1.0, now), 10, "other hosts are not concerned");
        assert_eq!(looked_at(&mut purse, who, 100, 1.0, now + Duration::from_secs(1)), 2);
    }

    #[tokio::test]
    async fn a_protocol_hears_no_more_of_a_peer_than_its_ration_and_the_swarms_owner_of_the_rest() {
        let mut rationed = Rationed::new(ping::Behaviour::default(), Cost::Number, [RATE, RATE.times(3.0)]);
        let (peer_id, id, address) = (PeerId::random(), ConnectionId::new_unchecked(1), Multiaddr::empty());
        let _handler = rationed.handle_established_inbound_connection(id, peer_id, &address, &address).unwrap();
        let on_the_brake = |rationed: &Rationed<_>| rationed.connections[&id].brake.is_pulled();
        for _ in 0..10 {
            rationed.on_connection_handler_event(peer_id, id, Duration::ZERO);
        }
        assert!(!on_the_brake(&rationed));
        for _ in 0..90 {
            rationed.on_connection_handler_event(peer_id, id, Duration::ZERO);
        }
        assert!(on_the_brake(&rationed), "nothing more is read for a while");
        rationed.connections.get_mut(&id).unwrap().brake = Arc::default();
        let endpoint = ConnectedPoint::Listener { local_addr: address.clone(), send_back_addr: address };
        rationed.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
            peer_id,
            connection_id: id,
            endpoint: &endpoint,
            failed_addresses: &[],
            other_established: 0,
        }));
        rationed.pause(&PeerId::random());
        assert!(!on_the_brake(&rationed));
        rationed.pause(&peer_id);
        assert!(on_the_brake(&rationed), "its owner takes no more");
        let (mut heard, mut excess) = (0, Vec::new());
        while let Poll::Ready(ToSwarm::GenerateEvent(event)) =
            rationed.poll(&mut Context::from_waker(std::task::Waker::noop()))
        {
            match event {
                Event::Inner(_) => heard += 1,
                Event::Excess(one) => excess.push(one),
            }
        }
        assert_eq!((heard, excess), (10, vec![Excess { peer_id, by_itself: true }]));
    }

    #[test]
    fn what_costs_much_is_paid_for_afterwards() {
        let now = Instant::now();
        let mut purse = Purse::new([RATE, RATE.times(3.0)], now);
        let who = of_host(1);
        assert_eq!(looked_at(&mut purse, who, 100, 15.0, now), 1);
        assert!(purse.check(who, now + Duration::from_secs(2)).is_err(), "the debt is not paid yet");
        assert!(purse.check(who, now + Duration::from_secs(3)).is_ok());
    }
}
