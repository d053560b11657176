//! What waits for a stage on one node, and the places of what it processes: senders take turns, and none of them has all.
//!
//! A sender is whoever brings tuples, and so is the node whose flow they are of: one host of a stage brings those of many
//! flows. Tuples may stay for as long as their deadline says, which their sender chooses: those that never end hold up
//! their own sender alone.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

use libp2p::PeerId;
use multinodes_behaviour::quick_hash::QuickHash;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::timeout_at,
};

use super::budget::Budget;

/// One in so many places is kept for others than the node whose flow has most of them, and half of that for others than
/// whoever brings most. A stage with fewer places has none to spare.
const KEPT: usize = 8;

/// Deliveries of one bringer that may wait for room at once. Each has a call of the stage meanwhile, which others want, too;
/// an honest host has one for each flow and way. The others are told at once that there is no room, and come again.
const WAITING: usize = 8;

/// Shares of senders that have nothing here are forgotten when there are so many.
const FORGETS: usize = 64;

/// Whoever brings tuples, and the node whose flow they are of.
type Key = (PeerId, PeerId);

/// Many put, many take.
pub(crate) struct Inbox<T> {
    /// How much room there is for what waits and what is processed, in [units](super::queue::units).
    capacity: u32,
    room: Arc<Semaphore>,
    /// How many are processed at once.
    concurrency: usize,
    /// What was emitted, of all senders.
    emitted: Arc<Budget>,
    state: Mutex<State<T>>,
    /// Something may be taken.
    ready: Notify,
}

struct State<T> {
    lines: HashMap<Key, VecDeque<(T, Ticket)>, QuickHash>,
    /// The senders of whom something waits, in the order of their turns.
    order: VecDeque<Key>,
    processed: usize,
    is_closed: bool,
    bringers: Shares,
    sources: Shares,
}

/// By sender, as long as something of it is here.
type Shares = HashMap<PeerId, Weak<Share>, QuickHash>;

/// What one sender may have, and has.
struct Share {
    capacity: u32,
    room: Arc<Semaphore>,
    concurrency: usize,
    /// Changed under the lock of the state alone.
    processed: AtomicUsize,
    /// Those who wait for room.
    waiting: Semaphore,
    emitted: Arc<Budget>,
}

/// On whose behalf something is put into the inbox. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Sender {
    key: Key,
    bringer: Arc<Share>,
    source: Arc<Share>,
}

/// Room for one item, until it was processed.
struct Ticket {
    sender: Sender,
    _room: [OwnedSemaphorePermit; 3],
}

/// Room for one item. Given back when it is dropped unused.
pub(crate) struct Room<T> {
    inbox: Arc<Inbox<T>>,
    ticket: Ticket,
}

/// A place among what is processed, and its room. Given back when it is dropped.
pub(crate) struct Place<T> {
    inbox: Arc<Inbox<T>>,
    ticket: Ticket,
}

impl<T> Inbox<T> {
    pub(crate) fn new(capacity: u32, concurrency: usize, emitted: usize) -> Arc<Self> {
        let state = State {
            lines: HashMap::default(),
            order: VecDeque::new(),
            processed: 0,
            is_closed: false,
            bringers: HashMap::default(),
            sources: HashMap::default(),
        };
        Arc::new(Self {
            capacity,
            room: room(capacity),
            concurrency,
            emitted: Budget::new(emitted),
            state: Mutex::new(state),
            ready: Notify::new(),
        })
    }

    pub(crate) fn sender(&self, bringer: PeerId, source: PeerId) -> Sender {
        let (room, places, emitted) = (self.capacity / KEPT as u32, self.concurrency / KEPT, self.emitted.limit());
        let of_bringer = || {
            let emitted = self.emitted.share(emitted - emitted / 4);
            Share::new(self.capacity - room.div_ceil(2), self.concurrency - places.div_ceil(2), emitted)
        };
        // What it may have emitted counts for whoever brings it.
        let of_source = || Share::new(self.capacity - room, self.concurrency - places, Budget::new(emitted / 2));
        let mut state = self.state();
        let key = (bringer, source);
        let bringer = find(&mut state.bringers, bringer, of_bringer);
        let source = find(&mut state.sources, source, of_source);
        Sender { key, bringer, source }
    }

    /// Room for an item, as soon as there is some; `None` if there is none by then, too many wait already, or it is closed.
    /// What is too large takes all that its sender may have.
    pub(crate) async fn reserve(self: &Arc<Self>, sender: &Sender, units: u32, until: Instant) -> Option<Room<T>> {
        let Sender { bringer, source, .. } = sender;
        let rooms = [(&source.room, source.capacity), (&bringer.room, bringer.capacity), (&self.room, self.capacity)];
        let room = match at_once(rooms, units) {
            Some(room) => room,
            None => {
                let _waiting = bringer.waiting.try_acquire().ok()?;
                // Always in this order: nobody waits for who waits for him.
                let [one, two, three] =
                    rooms.map(|(room, capacity)| room.clone().acquire_many_owned(units.min(capacity)));
                let all = async { Some([one.await.ok()?, two.await.ok()?, three.await.ok()?]) };
                timeout_at(until.into(), all).await.ok()??
            }
        };
        Some(Room { inbox: self.clone(), ticket: Ticket { sender: sender.clone(), _room: room } })
    }

    /// The next item that may be processed, with its place; `None` when it is closed and empty.
    pub(crate) async fn next(self: &Arc<Self>) -> Option<(T, Place<T>)> {
        loop {
            let ready = self.ready.notified();
            match self.take() {
                (Some((item, ticket)), _) => return Some((item, Place { inbox: self.clone(), ticket })),
                (None, false) => ready.await,
                (None, true) => return None,
            }
        }
    }

    /// What may be taken now, and whether that was the last of all.
    fn take(&self) -> (Option<(T, Ticket)>, bool) {
        let mut state = self.state();
        let taken = state.take(self.concurrency);
        let is_last = state.is_closed && state.order.is_empty();
        // Others may go on with the rest, or learn that there is none to come.
        if taken.is_some() && is_last {
            self.ready.notify_waiters();
        } else if taken.is_some() && !state.order.is_empty() {
            self.ready.notify_one();
        }
        (taken, is_last)
    }

    /// Takes nothing more. What is in it is still processed.
    pub(crate) fn close(&self) {
        self.room.close();
        self.state().is_closed = true;
        self.ready.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    /// The first one in turn whose sender has a place left.
    fn take(&mut self, concurrency: usize) -> Option<(T, Ticket)> {
        if self.processed >= concurrency {
            return None;
        }
        let has_place = |key: &Key| {
            let first = self.lines.get(key).and_then(VecDeque::front);
            first.is_some_and(|(_, ticket)| ticket.sender.shares().iter().all(|share| share.has_place()))
        };
        let turn = self.order.iter().position(has_place)?;
        let key = self.order.remove(turn)?;
        let line = self.lines.get_mut(&key)?;
        let (item, ticket) = line.pop_front()?;
        if line.is_empty() {
            self.lines.remove(&key);
        } else {
            self.order.push_back(key);
        }
        self.processed += 1;
        for share in ticket.sender.shares() {
            share.processed.fetch_add(1, Relaxed);
        }
        Some((item, ticket))
    }
}

impl Share {
    fn new(capacity: u32, concurrency: usize, emitted: Arc<Budget>) -> Self {
        let (processed, waiting) = (AtomicUsize::new(0), Semaphore::new(WAITING));
        Self { capacity, room: room(capacity), concurrency, processed, waiting, emitted }
    }

    fn has_place(&self) -> bool {
        self.processed.load(Relaxed) < self.concurrency
    }
}

impl Sender {
    /// What it may have emitted that was not handed on yet.
    pub(crate) fn budgets(&self) -> [Arc<Budget>; 2] {
        self.shares().map(|share| share.emitted.clone())
    }

    fn shares(&self) -> [&Share; 2] {
        [&self.source, &self.bringer]
    }
}

impl<T> Room<T> {
    /// Puts the item into the inbox.
    pub(crate) fn put(self, item: T) {
        let Self { inbox, ticket } = self;
        let key = ticket.sender.key;
        let mut state = inbox.state();
        let line = state.lines.entry(key).or_default();
        line.push_back((item, ticket));
        if line.len() == 1 {
            state.order.push_back(key);
        }
        drop(state);
        inbox.ready.notify_one();
    }
}

impl<T> Place<T> {
    /// Whose it is.
    pub(crate) fn sender(&self) -> &Sender {
        &self.ticket.sender
    }
}

impl<T> Drop for Place<T> {
    fn drop(&mut self) {
        let mut state = self.inbox.state();
        state.processed -= 1;
        for share in self.ticket.sender.shares() {
            share.processed.fetch_sub(1, Relaxed);
        }
        if !state.order.is_empty() {
            self.inbox.ready.notify_one();
        }
    }
}

/// All of it, if nobody has to be waited for.
fn at_once(rooms: [(&Arc<Semaphore>, u32); 3], units: u32) -> Option<[OwnedSemaphorePermit; 3]> {
    let [one, two, three] = rooms;
    let take = |(room, capacity): (&Arc<Semaphore>, u32)| room.clone().try_acquire_many_owned(units.min(capacity)).ok();
    Some([take(one)?, take(two)?, take(three)?])
}

fn room(capacity: u32) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(usize::try_from(capacity).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS)))
}

fn find(shares: &mut Shares, peer_id: PeerId, new: impl FnOnce() -> Share) -> Arc<Share> {
    if let Some(share) = shares.get(&peer_id).and_then(Weak::upgrade) {
        return share;
    }
    if shares.len() >= FORGETS {
        shares.retain(|_, share| share.strong_count() > 0);
    }
    let share = Arc::new(new());
    shares.insert(peer_id, Arc::downgrade(&share));
    share
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::future::poll_immediate;

    use super::*;

    const MANY: usize = 1 << 20;

    /// Puts so many items in, as many as find room at once.
    async fn put(inbox: &Arc<Inbox<usize>>, sender: &Sender, items: usize) -> usize {
        for item in 0..items {
            match inbox.reserve(sender, 1, Instant::now()).await {
                Some(room) => room.put(item),
                None => return item,
            }
        }
        items
    }

    async fn takes(inbox: &Arc<Inbox<usize>>) -> Vec<(usize, Place<usize>)> {
        let mut taken = Vec::new();
        while let Some(Some(next)) = poll_immediate(inbox.next()).await {
            taken.push(next);
        }
        taken
    }

    #[tokio::test]
    async fn no_sender_has_all_of_the_room_or_all_of_the_places() {
        let inbox = Inbox::new(160, 64, MANY);
        let [greedy, honest, flow, other] = [(); 4].map(|()| PeerId::random());
        let direct = inbox.sender(greedy, greedy);
        assert_eq!(put(&inbox, &direct, 200).await, 140);
        // One more flow of the same bringer, and all of them together.
        assert_eq!(put(&inbox, &inbox.sender(greedy, other), 200).await, 10);
        assert_eq!(put(&inbox, &inbox.sender(greedy, flow), 200).await, 0);
        // By another way it is the same flow.
        assert_eq!(put(&inbox, &inbox.sender(honest, greedy), 200).await, 0);
        assert_eq!(put(&inbox, &inbox.sender(honest, flow), 200).await, 10);
        let taken = takes(&inbox).await;
        let of = |bringer: PeerId, source: PeerId| {
            taken.iter().filter(|(_, place)| place.sender().key == (bringer, source)).count()
        };
        assert_eq!(taken.len(), 64);
        assert!(of(greedy, greedy) <= 56 && of(greedy, greedy) + of(greedy, other) <= 60);
        assert_eq!((of(greedy, other), of(honest, flow)), (10, 10), "they had their turns");
    }

    #[tokio::test]
    async fn those_that_never_end_leave_places_to_others_and_a_small_stage_has_none_to_spare() {
        let inbox = Inbox::new(160, 64, MANY);
        let greedy = inbox.sender(PeerId::random(), PeerId::random());
        put(&inbox, &greedy, 140).await;
        let stuck = takes(&inbox).await;
        assert_eq!(stuck.len(), 56);
        let honest = inbox.sender(PeerId::random(), PeerId::random());
        assert_eq!(put(&inbox, &honest, 1).await, 1);
        let (item, place) = poll_immediate(inbox.next()).await.unwrap().unwrap();
        assert!(item == 0 && place.sender().key == honest.key);
        drop(place);
        assert!(poll_immediate(inbox.next()).await.is_none());
        drop(stuck);
        assert_eq!(takes(&inbox).await.len(), 56);
        let small = Inbox::new(7, 7, MANY);
        let sender = small.sender(PeerId::random(), PeerId::random());
        assert_eq!((put(&small, &sender, 9).await, takes(&small).await.len()), (7, 7));
    }

    #[tokio::test]
    async fn room_is_given_back_when_it_was_processed_and_what_is_too_large_takes_all_of_a_share() {
        let inbox = Inbox::new(16, 1, MANY);
        let sender = inbox.sender(PeerId::random(), PeerId::random());
        inbox.reserve(&sender, 100, Instant::now()).await.unwrap().put(1);
        let (_, place) = poll_immediate(inbox.next()).await.unwrap().unwrap();
        assert!(inbox.reserve(&sender, 1, Instant::now()).await.is_none());
        let later = Instant::now() + Duration::from_secs(20);
        let mut waiting = Box::pin(inbox.reserve(&sender, 1, later));
        assert!(poll_immediate(&mut waiting).await.is_none());
        drop(place);
        waiting.await.unwrap().put(2);
        inbox.close();
        assert!(inbox.reserve(&sender, 1, later).await.is_none());
        let (item, place) = inbox.next().await.unwrap();
        assert_eq!(item, 2);
        drop(place);
        assert!(inbox.next().await.is_none());
    }

    #[tokio::test]
    async fn only_a_few_of_one_bringer_wait_for_room() {
        let inbox = Inbox::new(16, 1, MANY);
        let [greedy, honest] = [(); 2].map(|()| inbox.sender(PeerId::random(), PeerId::random()));
        put(&inbox, &greedy, 16).await;
        let later = Instant::now() + Duration::from_secs(20);
        let mut waiting = Vec::new();
        for _ in 0..WAITING {
            let mut wait = Box::pin(inbox.reserve(&greedy, 1, later));
            assert!(poll_immediate(&mut wait).await.is_none());
            waiting.push(wait);
        }
        assert!(poll_immediate(inbox.reserve(&greedy, 1, later)).await.unwrap().is_none());
        put(&inbox, &honest, 16).await;
        assert!(poll_immediate(inbox.reserve(&honest, 1, later)).await.is_none(), "it may wait");
        drop(waiting.pop());
        assert!(poll_immediate(inbox.reserve(&greedy, 1, later)).await.is_none());
    }

    #[tokio::test]
    async fn shares_of_those_who_are_gone_are_forgotten() {
        let inbox = Inbox::<usize>::new(16, 1, MANY);
        for _ in 0..10 * FORGETS {
            inbox.sender(PeerId::random(), PeerId::random());
        }
        let state = inbox.state();
        assert!(state.bringers.len() <= FORGETS && state.sources.len() <= FORGETS);
    }
}
