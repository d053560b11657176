//! The one task that owns the libp2p swarm: it finds peers, keeps connections, and levels the directory with others.
//!
//! Only [`Driver::run`] and [`Driver::step`] wait. Every `on_*` is a plain function, so that nothing can stall the loop.
//! Calls and messages do not pass here: a lane's stream is handed over once and is then the lane's own.

mod admitting;
mod answering;
pub(crate) mod answers;
mod balancing;
mod book;
mod connections;
mod dialling;
mod doubts;
mod failures;
mod finding;
mod joining;
mod knowing;
mod lag;
mod lanes;
mod listening;
mod losing;
mod namesakes;
pub(crate) mod no_answer;
mod prospects;
mod rations;
mod shared;
mod status;
mod supervising;
mod syncing;
#[cfg(test)]
mod tests;
mod timers;
mod topics;
mod verifying;

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm, TransportError,
    gossipsub::TopicHash,
    request_response::OutboundRequestId,
    swarm::{ListenError, SwarmEvent},
};
use multinodes_behaviour::{Behaviour, BehaviourEvent, BuildError, places::NoPlace, rationed, transport};
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinHandle, JoinSet},
};

use self::{
    answering::Answering,
    book::Book,
    connections::Peer,
    dialling::Dial,
    doubts::Doubt,
    failures::Failures,
    finding::Sources,
    joining::Joining,
    knowing::Own,
    lag::Lag,
    lanes::Waiting,
    listening::Listening,
    losing::Redial,
    prospects::Prospect,
    rations::Rations,
    syncing::Exchange,
    timers::{Due, Timers},
    topics::Topics,
    verifying::{Verified, Verifying},
};
use crate::{
    addresses,
    core::{Command, Core, Counters, OpenFailure},
    description::Event,
    directory::Directory,
    rendezvous::Note,
};

/// Housekeeping that nothing else wakes the driver for.
const TICK: Duration = Duration::from_secs(1);

/// To show the readers a change costs more the more nodes there are. Of its time the driver spends one part in so many on
/// it, however fast the changes come: they wait and are shown together.
const SNAPSHOT_SHARE: u32 = 25;

/// Starts the driver of a node: when it returns, the node listens wherever it was told to, and is looking for others.
///
/// # Errors
///
/// The key is of no use for encryption, or an address to listen on, or to join through, is not.
pub(crate) async fn start(core: Arc<Core>, commands: mpsc::Receiver<Command>) -> Result<JoinHandle<()>, DriverError> {
    let mut driver = Driver::new(core)?;
    driver.listen(false).await?;
    driver.begin();
    Ok(tokio::spawn(supervising::supervise(driver, commands)))
}

struct Driver {
    core: Arc<Core>,
    swarm: Swarm<Behaviour>,
    /// Says that a connection's task has panicked.
    panics: mpsc::Receiver<String>,
    topic: TopicHash,
    topics: Topics,
    host: Option<Vec<u8>>,
    directory: Directory,
    own: Own,
    listening: Listening,
    book: Book,
    sources: Sources,
    joins: Vec<Joining>,
    timers: Timers,
    lag: Lag,
    tasks: JoinSet<Done>,
    peers: HashMap<PeerId, Peer>,
    dials: HashMap<PeerId, Dial>,
    redials: HashMap<PeerId, Redial>,
    doubts: HashMap<PeerId, Doubt>,
    /// Nodes that were lost, and how often each was looked for since.
    lost: HashMap<PeerId, u32>,
    /// Discovered, and to be dialled as soon as there is room.
    found: VecDeque<PeerId>,
    /// Named by multicast.
    prospects: HashMap<PeerId, Prospect>,
    /// Where dials fail again and again.
    failures: Failures,
    waiting: HashMap<PeerId, Waiting>,
    exchanges: HashMap<OutboundRequestId, Exchange>,
    answering: Answering,
    verifying: Verifying,
    rations: Rations,
    started: Instant,
    ticked: Instant,
    /// Before this the readers are shown nothing new.
    next_snapshot: Instant,
    stopping: Option<Vec<oneshot::Sender<()>>>,
    ended: bool,
    /// A task is reading the files with rules.
    reading_rules: bool,
}

/// What a task beside the loop has brought.
enum Done {
    /// The notes in the rendezvous folder.
    Notes(io::Result<Vec<Note>>),
    /// The addresses of a name to join through.
    Resolved { join: usize, result: io::Result<Vec<Multiaddr>> },
    /// Who listens at the silent addresses of a join.
    Knocked { join: usize, listens: Vec<(Multiaddr, bool)> },
    /// The addresses of such a name, once more.
    Named { join: usize, result: io::Result<Vec<Multiaddr>> },
    /// The files with rules were looked at.
    Rules { changed: bool },
    /// A peer has refused a lane, perhaps only for now.
    NotServed { peer_id: PeerId, respond_to: lanes::RespondTo },
    /// A slice of the records of an exchange was verified; none if that failed.
    Verified { peer_id: PeerId, weight: usize, verified: Option<Box<Verified>> },
    /// A lane was opened or not; whoever asked knows.
    Lane,
    /// What is installed was looked at.
    #[cfg(feature = "wasm")]
    Guests,
}

/// What wakes the driver.
#[allow(clippy::large_enum_variant, reason = "it is made and used up in one step")]
enum Turn {
    Swarm(SwarmEvent<BehaviourEvent>),
    Command(Command),
    Done(Option<Done>),
    Due,
}

/// How a run of the driver ended.
enum Ended {
    Stopped,
    Panicked(String),
}

impl Driver {
    fn new(core: Arc<Core>) -> Result<Self, DriverError> {
        let (swarm, panics) = supervising::build(&core)?;
        let settings = &core.settings;
        let host = addresses::host_token(settings.rendezvous.as_deref());
        let joins = settings.join.iter().map(|text| addresses::parse_join(text).map(Joining::new));
        let now = Instant::now();
        Ok(Self {
            topic: settings.swarm.gossip_topic().hash(),
            topics: Topics::new(settings.swarm.message_topic().hash(), now),
            directory: Directory::new(core.peer_id, host.clone()),
            own: Own::new(&core),
            listening: Listening::new(settings.listen.len()),
            book: Book::default(),
            sources: Sources::default(),
            joins: joins.collect::<Result<_, _>>()?,
            timers: Timers::default(),
            lag: Lag::default(),
            tasks: JoinSet::new(),
            peers: HashMap::new(),
            dials: HashMap::new(),
            redials: HashMap::new(),
            doubts: HashMap::new(),
            lost: HashMap::new(),
            found: VecDeque::new(),
            prospects: HashMap::new(),
            failures: Failures::default(),
            waiting: HashMap::new(),
            exchanges: HashMap::new(),
            answering: Answering::default(),
            verifying: Verifying::default(),
            rations: Rations::new(now),
            started: now,
            ticked: now,
            next_snapshot: now,
            stopping: None,
            ended: false,
            reading_rules: false,
            core,
            swarm,
            panics,
            host,
        })
    }

    /// Everything that a node does at first, once it listens.
    fn begin(&mut self) {
        self.listening.complete = true;
        self.refresh_addresses();
        self.announce();
        self.find();
        self.timers.after(TICK, Due::Tick);
        self.begin_beats();
        self.publish_changes(true);
    }

    async fn run(&mut self, commands: &mut mpsc::Receiver<Command>) -> Ended {
        loop {
            if let Some(ended) = self.step(commands).await {
                return ended;
            }
        }
    }

    async fn step(&mut self, commands: &mut mpsc::Receiver<Command>) -> Option<Ended> {
        let mut due = self.timers.next();
        if self.directory.is_changed(false) {
            due = due.min(self.next_snapshot);
        }
        let turn = tokio::select! {
            event = self.swarm.select_next_some() => Turn::Swarm(event),
            Some(command) = commands.recv() => Turn::Command(command),
            Some(done) = self.tasks.join_next() => Turn::Done(done.ok()),
            () = tokio::time::sleep_until(due.into()) => Turn::Due,
            Some(reason) = self.panics.recv() => return Some(Ended::Panicked(reason)),
        };
        let begun = Instant::now();
        match turn {
            Turn::Swarm(event) => self.on_swarm_event(event),
            Turn::Command(command) => self.on_command(command),
            Turn::Done(done) => self.on_done(done),
            Turn::Due => self.on_due(begun),
        }
        self.on_turns();
        self.publish_changes(false);
        self.refresh_status();
        self.core.counters.took(begun.elapsed());
        self.ended.then_some(Ended::Stopped)
    }

    fn on_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour_event(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_connected(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, num_established, cause, .. } => {
                self.on_closed(peer_id, connection_id, num_established, cause.as_ref());
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id, error } => {
                self.on_dial_error(connection_id, peer_id, &error);
            }
            SwarmEvent::IncomingConnectionError { error, send_back_addr, .. } => {
                tracing::debug!(%error, from = %send_back_addr, "an incoming connection failed");
                match error {
                    ListenError::Transport(TransportError::Other(error)) if no_place(&error).is_some() => {
                        Counters::add(&self.core.counters.refused_connections);
                    }
                    ListenError::Transport(_) => self.core.counters.failed_handshakes.send_modify(|count| *count += 1),
                    ListenError::Denied { cause } => self.on_refused(&cause, true),
                    _ => {}
                }
            }
            SwarmEvent::NewListenAddr { listener_id, address } => self.on_new_address(listener_id, address),
            SwarmEvent::ExpiredListenAddr { address, .. } => self.on_expired_address(&address),
            SwarmEvent::ListenerClosed { listener_id, addresses, reason } => {
                self.on_listener_closed(listener_id, &addresses, reason);
            }
            SwarmEvent::ListenerError { error, .. } => match no_place(&error) {
                Some(refused) => Counters::add_many(&self.core.counters.refused_connections, refused),
                None if finding::is_shortage(&error) => self.on_shortage(&error),
                None => tracing::debug!(%error, "a listener has an error"),
            },
            _ => {}
        }
    }

    fn on_behaviour_event(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Identify(event) => self.on_identify(event),
            BehaviourEvent::Ping(event) => self.on_ping(&event),
            BehaviourEvent::Kademlia(rationed::Event::Inner(event)) => self.on_kademlia(event),
            BehaviourEvent::Gossip(rationed::Event::Inner(event)) => self.on_gossip(event),
            BehaviourEvent::Kademlia(rationed::Event::Excess(excess))
            | BehaviourEvent::Gossip(rationed::Event::Excess(excess)) => self.on_excess(excess),
            BehaviourEvent::Sync(event) => self.on_sync(event),
            BehaviourEvent::Local(event) => self.on_local(event),
            BehaviourEvent::Lanes(event) => self.on_lane(event),
            BehaviourEvent::Limits(never) | BehaviourEvent::MemoryLimits(never) | BehaviourEvent::Gate(never) => {
                match never {}
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::OpenLane { peer_id, respond_to } => self.open_lane(peer_id, respond_to),
            Command::Verify { peer_id } => self.verify(peer_id),
            Command::Announce => self.announce(),
            Command::Publish { topic, value, respond_to } => self.publish_message(topic, value, respond_to),
            Command::Join { address } => self.add_join(&address),
            Command::KeepAway { peer_id } => self.keep_away(peer_id),
            Command::Stop { respond_to } => self.stop(respond_to),
            #[cfg(test)]
            Command::Find { peer_id, address } => self.find_at(vec![(peer_id, address)]),
            #[cfg(test)]
            Command::Panic => panic!("the driver was asked to panic"),
        }
    }

    fn on_done(&mut self, done: Option<Done>) {
        match done {
            Some(Done::Notes(notes)) => self.on_notes(notes),
            Some(Done::Resolved { join, result }) => self.on_resolved(join, result),
            Some(Done::Knocked { join, listens }) => self.on_knocked(join, listens),
            Some(Done::Named { join, result }) => self.on_named(join, result),
            Some(Done::Rules { changed }) => self.on_rules(changed),
            Some(Done::NotServed { peer_id, respond_to }) => self.on_not_served(peer_id, respond_to),
            Some(Done::Verified { peer_id, weight, verified }) => self.on_verified(peer_id, weight, verified),
            Some(Done::Lane) | None => {}
            #[cfg(feature = "wasm")]
            Some(Done::Guests) => {}
        }
    }

    fn on_due(&mut self, now: Instant) {
        self.lag.note(self.timers.next(), now);
        while let Some(due) = self.timers.pop(now) {
            match due {
                Due::Tick => self.on_tick(now),
                Due::Announce => self.announce_now(now),
                Due::Beat => self.beat(),
                Due::Sync => self.sync_with_somebody(),
                Due::Offer(peer_id) => self.offer_again(peer_id),
                Due::Rescan => self.rescan(),
                Due::Settle => {}
                Due::Loneliness => self.on_loneliness(),
                Due::Dial(peer_id) => self.discover(peer_id),
                Due::Redial(peer_id) => self.redial(peer_id),
                Due::Silence => self.close_silent(now),
                Due::Revisit(peer_id) => self.revisit(peer_id),
                Due::Prospect(peer_id) => self.try_prospect(peer_id),
                Due::GiveUp(peer_id) => self.give_up(&peer_id, now),
                Due::Lose(peer_id) => self.lose(&peer_id, now),
                Due::LaneLimit(peer_id) => self.on_lane_limit(&peer_id, now),
                Due::Unheard(peer_id) => self.on_unheard(&peer_id),
                Due::Join(join) => self.join(join),
                Due::Answers(join) => self.look_for_answers(join),
                Due::Name(join) => self.ask_name(join),
                Due::Release(peer_id) => self.let_go(peer_id),
                Due::Held => self.release_held(),
                Due::Written => self.leave(),
                Due::Leave => self.ended = true,
            }
        }
    }

    fn on_tick(&mut self, now: Instant) {
        self.timers.at(now + TICK, Due::Tick);
        let late = now.saturating_duration_since(self.ticked).saturating_sub(TICK);
        if late > TICK {
            self.directory.on_standstill(late, now);
        }
        self.directory.on_tick(now, self.lag.allowance(now));
        self.close_silent(now);
        self.close_unknown(now);
        self.close_duplicates();
        self.balance(now);
        self.ask_quiet(now);
        self.repeat_announcement();
        if !self.core.settings.passive {
            self.directory.set_own_load(self.core.load());
        }
        self.publish_changes(true);
        self.forget_doubts();
        self.on_topics_tick(now);
        self.on_permissions_tick();
        self.ticked = now;
    }

    /// Shows the readers what has changed since the last turn.
    fn publish_changes(&mut self, slight_too: bool) {
        if !self.directory.is_changed(slight_too) {
            return;
        }
        let begun = Instant::now();
        if begun < self.next_snapshot {
            return;
        }
        self.show_changes(slight_too);
        self.next_snapshot = begun + begun.elapsed() * SNAPSHOT_SHARE;
    }

    fn show_changes(&mut self, slight_too: bool) {
        let Some(changes) = self.directory.take_changes(slight_too) else { return };
        if let Some(snapshot) = changes.snapshot {
            self.core.snapshot.store(Arc::new(snapshot));
            self.core.changed.send_modify(|count| *count += 1);
        }
        if changes.events.iter().any(|event| matches!(event, Event::Left { .. })) {
            // Who hears that the last one is lost is cut off by then.
            self.refresh_status();
        }
        for event in changes.events {
            match &event {
                Event::Left { node, .. } => self.forget_link(&node.peer_id),
                Event::Joined(node) | Event::Updated(node) => {
                    self.core.links.on_life(&node.peer_id, node.incarnation);
                }
                _ => {}
            }
            self.tell(event);
        }
    }

    /// A node that is gone, and was not connected either, leaves nothing behind.
    fn forget_link(&self, peer_id: &PeerId) {
        if !self.peers.contains_key(peer_id) {
            self.core.disconnected(peer_id);
        }
    }

    fn tell(&self, event: Event) {
        match &event {
            Event::Joined(node) => tracing::info!(node = %node.name, peer_id = %node.peer_id, "a node has joined"),
            Event::Left { node, reason } => {
                tracing::info!(node = %node.name, peer_id = %node.peer_id, ?reason, "a node has left");
            }
            Event::NameConflict { name, peer_ids, more } => {
                let peer_ids: Vec<String> = peer_ids.iter().map(|peer_id| peer_id.to_base58()).collect();
                tracing::warn!(%name, ?peer_ids, more, "several nodes claim one name");
            }
            Event::JoinFailed { address, reason } => {
                tracing::warn!(%address, %reason, "cannot join through this address yet; trying on");
            }
            Event::Degraded { reason } => tracing::warn!(%reason, "something does not work as it should"),
            _ => {}
        }
        self.core.events.tell(event);
    }

    fn stop(&mut self, respond_to: oneshot::Sender<()>) {
        if let Some(waiting) = &mut self.stopping {
            waiting.push(respond_to);
            return;
        }
        self.stopping = Some(vec![respond_to]);
        self.fail_lanes(&OpenFailure::Stopping);
        if let Some(rendezvous) = &self.sources.rendezvous {
            rendezvous.remove(&self.core.peer_id);
        }
        self.say_goodbye();
    }
}

/// Why a node's network cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DriverError {
    /// The protocols cannot be set up.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// An address to join through is none.
    #[error(transparent)]
    Join(#[from] addresses::JoinError),
    /// An address cannot be listened on.
    #[error("cannot listen on `{address}`: {source}")]
    Listen {
        /// The address.
        address: Multiaddr,
        /// What the system says.
        source: io::Error,
    },
    /// An address is of a kind that this build does not know.
    #[error("cannot listen on `{address}`: this kind of address is not supported{}", if cfg!(feature = "wan") { "" } else { " (some need the feature `wan`)" })]
    Unsupported {
        /// The address.
        address: Multiaddr,
    },
}

impl DriverError {
    fn listen(address: Multiaddr, error: TransportError<io::Error>) -> Self {
        match error {
            TransportError::MultiaddrNotSupported(_) => Self::Unsupported { address },
            TransportError::Other(source) => Self::Listen { address, source: innermost(source) },
        }
    }
}

/// What is behind an error: the transports wrap one of the system several times, and hide its kind and text by that.
pub(crate) fn root<'a>(error: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    let mut cause = error;
    loop {
        // An `io::Error` names as its source what is behind that which it wraps.
        let wrapped = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let hidden = || transport::hidden_cause(cause).map(|cause| cause as _);
        match wrapped.map(|wrapped| wrapped as _).or_else(hidden).or_else(|| cause.source()) {
            Some(inner) => cause = inner,
            None => return cause,
        }
    }
}

/// How many handshakes were refused, or ended, to leave room for others.
fn no_place(error: &io::Error) -> Option<usize> {
    root(error).downcast_ref().map(|NoPlace { handshakes }| *handshakes)
}

fn innermost(error: io::Error) -> io::Error {
    let code = root(&error).downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
    code.map_or(error, io::Error::from_raw_os_error)
}
