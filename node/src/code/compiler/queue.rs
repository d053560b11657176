//! Whose code the compiler takes next: senders take turns, and what takes long does not hold up what does not.
//!
//! There are two places, each for one piece of code at a time. All begins in the quick one. What is not done after
//! [`QUICK`] goes on in the slow one if that is free; else it is stopped, and begun anew there when its turn comes: to let
//! it wait in the middle would keep its memory. So nobody waits longer than that for each of the senders before him, and
//! there are never more than two compilers. That holds for processes, which can be stopped: where there is no command that
//! compiles, the node does it by itself, one piece after the other and each to its end, and those behind wait as long.
//!
//! What the node itself wants, such as what was installed here, comes before what others send. The time in a place is what
//! a sender pays with. A turn belongs to the work and not to whoever waits for it.

use std::{
    collections::{HashMap, VecDeque},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use libp2p::PeerId;
use tokio::sync::oneshot;

use crate::code::{allowance::Allowance, code_error::CodeError, rate::Account};

/// What is done by then is quick. Guests of languages that are compiled take a fraction of it.
pub(super) const QUICK: Duration = Duration::from_secs(2);

/// Pieces of code of one sender that may wait for one place. More come when some are done.
pub(super) const WAITING_OF_ONE: usize = 8;

/// Pieces of code that may wait for one place, of all senders. Each has its bytes in memory. Beyond that, the newest of
/// whoever has most of them makes room for those of whom fewer wait.
const WAITING: usize = 64;

/// Who wants something compiled. Nobody is the node itself, or its program.
pub(super) type Sender = Option<PeerId>;

/// Both places. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Queue(Arc<Mutex<[Place; 2]>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speed {
    Quick = 0,
    Slow = 1,
}

#[derive(Default)]
struct Place {
    is_taken: bool,
    /// Senders of whom something waits, in the order of their turns.
    order: VecDeque<Sender>,
    waiting: HashMap<Sender, VecDeque<Waiting>>,
}

struct Waiting {
    account: Arc<Account>,
    answer: oneshot::Sender<Turn>,
}

/// A place, as long as it is kept.
pub(super) struct Turn {
    queue: Queue,
    speed: Speed,
    sender: Sender,
    account: Arc<Account>,
    since: Instant,
    /// How long the same work has had a place before.
    before: Duration,
    /// Nobody wanted it any more.
    is_unused: bool,
}

impl Queue {
    /// Waits for a turn in the quick place.
    ///
    /// # Errors
    ///
    /// [`CodeError::CompileRate`], [`CodeError::CompilerBusy`].
    pub(super) async fn turn(&self, allowance: &Allowance) -> Result<Turn, CodeError> {
        self.wait(Speed::Quick, allowance.sender(), allowance.account()).await
    }

    async fn wait(&self, speed: Speed, sender: Sender, account: Arc<Account>) -> Result<Turn, CodeError> {
        check(&account)?;
        let (answer, turn) = oneshot::channel();
        self.enter(speed, sender, Waiting { account: account.clone(), answer })?;
        let turn = turn.await.map_err(|_| CodeError::CompilerBusy { waiting: WAITING, own: false })?;
        // Other code of the same sender may have used it up meanwhile.
        check(&account).map(|()| turn)
    }

    fn enter(&self, speed: Speed, sender: Sender, waiting: Waiting) -> Result<(), CodeError> {
        let mut places = self.places();
        let place = &mut places[speed as usize];
        place.forget_who_has_gone();
        let own = place.waiting.get(&sender).map_or(0, VecDeque::len);
        let all = place.waiting.values().map(VecDeque::len).sum();
        if own >= WAITING_OF_ONE && sender.is_some() {
            return Err(CodeError::CompilerBusy { waiting: own, own: true });
        }
        if all >= WAITING && sender.is_some() && !place.make_room(own) {
            return Err(CodeError::CompilerBusy { waiting: all, own: false });
        }
        if own == 0 {
            place.line_up(sender);
        }
        place.waiting.entry(sender).or_default().push_back(waiting);
        let is_free = !mem::replace(&mut place.is_taken, true);
        drop(places);
        if is_free {
            self.pass_on(speed);
        }
        Ok(())
    }

    /// Gives a place that is taken by nobody to the next one who waits.
    fn pass_on(&self, speed: Speed) {
        loop {
            let next = self.places()[speed as usize].next();
            let Some((sender, Waiting { account, answer })) = next else { return };
            let (queue, since) = (self.clone(), Instant::now());
            let turn = Turn { queue, speed, sender, account, since, before: Duration::ZERO, is_unused: false };
            match answer.send(turn) {
                Ok(()) => return,
                Err(mut turn) => turn.is_unused = true,
            }
        }
    }

    fn places(&self) -> MutexGuard<'_, [Place; 2]> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Behind all others, and the node itself before them.
    fn line_up(&mut self, sender: Sender) {
        match sender {
            Some(_) => self.order.push_back(sender),
            None => self.order.push_front(sender),
        }
    }

    /// Who has the next turn: after it, a sender is behind all others. Without anybody the place is free.
    fn next(&mut self) -> Option<(Sender, Waiting)> {
        while let Some(sender) = self.order.pop_front() {
            let Some(own) = self.waiting.get_mut(&sender) else { continue };
            let next = own.pop_front();
            if own.is_empty() {
                self.waiting.remove(&sender);
            } else {
                self.line_up(sender);
            }
            if let Some(next) = next {
                return Some((sender, next));
            }
        }
        self.is_taken = false;
        None
    }

    /// Turns the newest away of the sender of whom most wait; false if it is no more than the one who comes has.
    fn make_room(&mut self, own: usize) -> bool {
        // What the node itself brings back gives way to nobody.
        let others = self.waiting.iter_mut().filter(|(sender, _)| sender.is_some()).map(|(_, waiting)| waiting);
        let most = others.max_by_key(|waiting| waiting.len());
        // One stays: its sender has a turn to come.
        most.filter(|most| most.len() > own + 1).is_some_and(|most| most.pop_back().is_some())
    }

    fn forget_who_has_gone(&mut self) {
        self.waiting.retain(|_, own| {
            own.retain(|waiting| !waiting.answer.is_closed());
            !own.is_empty()
        });
        let waiting = &self.waiting;
        self.order.retain(|sender| waiting.contains_key(sender));
    }
}

impl Turn {
    /// Goes on in the slow place; false if it is taken.
    pub(super) fn slow_down(&mut self) -> bool {
        if self.speed == Speed::Slow {
            return true;
        }
        if mem::replace(&mut self.queue.places()[Speed::Slow as usize].is_taken, true) {
            return false;
        }
        self.speed = Speed::Slow;
        self.queue.pass_on(Speed::Quick);
        true
    }

    /// Whether what is not done soon has to make room.
    pub(super) fn is_quick(&self) -> bool {
        self.speed == Speed::Quick
    }

    /// Gives the place up, and waits for the slow one.
    pub(super) async fn begin_anew(self) -> Result<Self, CodeError> {
        let (queue, sender, account, before) = (self.queue.clone(), self.sender, self.account.clone(), self.held());
        drop(self);
        let mut turn = queue.wait(Speed::Slow, sender, account).await?;
        turn.before = before;
        Ok(turn)
    }

    /// How long the work has had a place, without what it has waited for one.
    pub(super) fn held(&self) -> Duration {
        self.before + self.since.elapsed()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.is_unused {
            self.account.compiling.charge(self.since.elapsed(), Instant::now());
            self.queue.pass_on(self.speed);
        }
    }
}

fn check(account: &Account) -> Result<(), CodeError> {
    let wait = account.compiling.wait(Instant::now());
    match account.compiling.rate().zip(wait) {
        Some((rate, wait)) => Err(CodeError::CompileRate { rate, wait }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use futures::{FutureExt, future::BoxFuture, poll};

    use super::*;
    use crate::code::{limits::Limits, rate::Rate};

    type Wait = BoxFuture<'static, Result<Turn, CodeError>>;

    /// Waits already when this comes back.
    async fn waiting(queue: &Queue, allowance: &Allowance) -> Wait {
        let (queue, allowance) = (queue.clone(), allowance.clone());
        let mut wait = async move { queue.turn(&allowance).await }.boxed();
        assert!(poll!(&mut wait).is_pending());
        wait
    }

    async fn granted(wait: &mut Wait) -> Option<Turn> {
        match poll!(wait) {
            Poll::Ready(turn) => Some(turn.unwrap()),
            Poll::Pending => None,
        }
    }

    #[tokio::test]
    async fn senders_take_turns_however_much_one_of_them_brings() {
        let (queue, rule) = (Queue::default(), Allowance::default());
        let (busy, other) = (rule.of(PeerId::random()), rule.of(PeerId::random()));
        let turn = queue.turn(&busy).await.unwrap();
        let mut first = waiting(&queue, &busy).await;
        let mut second = waiting(&queue, &busy).await;
        let mut others = waiting(&queue, &other).await;
        assert!(granted(&mut first).await.is_none() && granted(&mut others).await.is_none());
        drop(turn);
        let turn = granted(&mut first).await.unwrap();
        assert!(granted(&mut second).await.is_none() && granted(&mut others).await.is_none());
        drop(turn);
        assert!(granted(&mut second).await.is_none(), "the other has come before");
        let turn = granted(&mut others).await.unwrap();
        // Who has gone is passed over.
        drop(second);
        drop(turn);
        assert!(queue.turn(&busy).await.is_ok());
    }

    #[tokio::test]
    async fn what_takes_long_makes_room_for_what_does_not() {
        let (queue, rule) = (Queue::default(), Allowance::default());
        let mut long = queue.turn(&rule.of(PeerId::random())).await.unwrap();
        let mut others = waiting(&queue, &rule.of(PeerId::random())).await;
        assert!(granted(&mut others).await.is_none());
        assert!(long.slow_down() && long.slow_down());
        let mut second = granted(&mut others).await.unwrap();
        assert!(!second.slow_down(), "there are never more than two");
        second.since -= Duration::from_secs(2);
        let mut anew = second.begin_anew().boxed();
        assert!(poll!(&mut anew).is_pending());
        assert!(queue.turn(&rule).await.is_ok(), "the quick place is free");
        drop(long);
        let anew = granted(&mut anew).await.unwrap();
        assert!(!anew.is_quick() && anew.held() >= Duration::from_secs(2), "what was stopped took its time, too");
    }

    #[tokio::test]
    async fn what_the_node_itself_wants_comes_before_what_others_send() {
        let (queue, rule) = (Queue::default(), Allowance::default());
        let turn = queue.turn(&rule.of(PeerId::random())).await.unwrap();
        let mut others = waiting(&queue, &rule.of(PeerId::random())).await;
        let mut own = [waiting(&queue, &rule).await, waiting(&queue, &rule).await];
        drop(turn);
        for own in &mut own {
            let turn = granted(own).await.expect("it is first");
            assert!(granted(&mut others).await.is_none());
            drop(turn);
        }
        assert!(granted(&mut others).await.is_some());
    }

    #[tokio::test]
    async fn many_of_some_senders_keep_nobody_else_out() {
        let (queue, rule) = (Queue::default(), Allowance::default());
        let _turn = queue.turn(&rule).await.unwrap();
        let mut all = Vec::new();
        while all.len() < WAITING {
            let busy = rule.of(PeerId::random());
            for _ in 0..WAITING_OF_ONE {
                all.push(waiting(&queue, &busy).await);
            }
        }
        for _ in 0..WAITING / WAITING_OF_ONE {
            all.push(waiting(&queue, &rule.of(PeerId::random())).await);
        }
        let mut away = 0;
        for wait in &mut all {
            if let Poll::Ready(turn) = poll!(wait) {
                assert_eq!(turn.err(), Some(CodeError::CompilerBusy { waiting: WAITING, own: false }));
                away += 1;
            }
        }
        assert_eq!(away, WAITING / WAITING_OF_ONE, "and no more wait than may");
    }

    #[tokio::test]
    async fn one_sender_has_no_more_than_his_share_of_the_queue_and_of_the_time() {
        let (queue, second) = (Queue::default(), Duration::from_secs(1));
        let rate = Rate::new(second, 60 * second);
        let rule = Allowance::new(Limits { compile: Some(rate), ..Limits::default() });
        let (busy, other) = (rule.of(PeerId::random()), rule.of(PeerId::random()));
        let turn = queue.turn(&busy).await.unwrap();
        let mut all = Vec::new();
        for _ in 0..WAITING_OF_ONE {
            all.push(waiting(&queue, &busy).await);
        }
        let error = queue.turn(&busy).await.err();
        assert_eq!(error, Some(CodeError::CompilerBusy { waiting: WAITING_OF_ONE, own: true }));
        let mut others = waiting(&queue, &other).await;
        busy.account().compiling.charge(2 * second, Instant::now());
        drop(turn);
        let error = all.remove(0).await.err().unwrap();
        assert!(matches!(error, CodeError::CompileRate { wait, .. } if wait > 60 * second), "{error:?}");
        assert!(granted(&mut others).await.is_some(), "the other has not used anything");
        assert!(matches!(queue.turn(&busy).await.err(), Some(CodeError::CompileRate { .. })));
    }
}
