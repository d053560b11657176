//! Topics: a value for whoever listens, anywhere in the swarm.

pub(crate) mod guard;
mod inbox;

use std::{
    collections::HashMap,
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt, stream, stream::BoxStream};
use libp2p::PeerId;
use multinodes_behaviour::{RecordError, message, names, ration::Bucket};
use serde::Serialize;
use tokio::sync::oneshot;

use self::{guard::cost, inbox::Inbox};
use crate::{core::Command, node::Node, payload::Payload};

pub use multinodes_behaviour::message::{MAX_TOPIC, MAX_VALUE as MAX_TOPIC_VALUE};

/// The most subscriptions of one node at a time: each may keep 4 MiB of messages.
pub const MAX_SUBSCRIPTIONS: usize = 1024;

/// A sender that has sent so much that its next turn is later than this is told so.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// A message of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicMessage {
    /// Who has sent it: proven by its signature.
    pub from: PeerId,
    /// The sender's name: a claim. Absent if the sender has no record here, as passive nodes.
    pub node: Option<String>,
    /// What it has sent.
    pub value: Payload,
}

/// What a subscription brings.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Heard {
    /// A message.
    Message(TopicMessage),
    /// So many messages were lost, because this subscription is read too slowly: older than all that follows.
    Missed(u64),
}

/// What has become of a value that was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Published {
    /// The subscriptions on this node that got it.
    pub here: usize,
    /// The neighbours that pass messages on. With 0 nobody else gets it. Who of the swarm has subscribed is not known.
    pub neighbours: usize,
}

impl Node {
    /// Sends a value to whoever has subscribed to a topic, on this node and on all others. The topic's name has 1 to 256
    /// bytes ([`MAX_TOPIC`]), the value, encoded, at most 48 KiB ([`MAX_TOPIC_VALUE`]).
    ///
    /// `Ok` means that it is on its way to the neighbours, which pass it on: a node gets it at most once, and misses it
    /// if it is not there now. Messages of one sender may overtake each other. A node that was just started waits for
    /// its first neighbour, 3 s at the most. Who sends more than some hundred messages, or 768 KiB, a second, waits for
    /// its turn, 10 s at the most; a [passive](crate::Builder::passive) node for more than some thirty, or 64 KiB. Dropping the
    /// future before its turn sends nothing.
    ///
    /// # Errors
    ///
    /// See [`PublishError`].
    pub async fn publish(&self, topic: &str, value: impl Serialize + Send) -> Result<Published, PublishError> {
        let value = Payload::encode(&value).map_err(|error| PublishError::Unsendable { reason: error.to_string() })?;
        self.publish_raw(topic, value).await
    }

    /// Like [`publish`](Self::publish), with the value as it travels.
    ///
    /// # Errors
    ///
    /// See [`PublishError`].
    pub async fn publish_raw(&self, topic: &str, value: Payload) -> Result<Published, PublishError> {
        let core = self.core();
        let size = value.as_bytes().len();
        let topic = &*names::normal(topic);
        message::check(topic, size).map_err(PublishError::of)?;
        let turn = core.topics.turn(size, Instant::now()).ok_or(PublishError::TooMuch)?;
        tokio::time::sleep_until(turn.into()).await;
        let (respond_to, response) = oneshot::channel();
        let command = Command::Publish { topic: topic.to_owned(), value, respond_to };
        core.commands.send(command).await.map_err(|_| PublishError::Stopped)?;
        response.await.unwrap_or(Err(PublishError::Stopped))
    }

    /// Subscribes to a topic: what is published from now on, by this node too, in a stream that ends when the node has
    /// stopped. Dropping it ends the subscription.
    ///
    /// What is not read in time is lost, the oldest first, and [`Heard::Missed`] says how much: 1024 messages, or 4 MiB of
    /// them, wait to be read.
    ///
    /// # Errors
    ///
    /// The topic's name is empty or has more than 256 bytes, or this node has [`MAX_SUBSCRIPTIONS`] already.
    pub fn subscribe(&self, topic: &str) -> Result<Subscription, SubscribeError> {
        let topic = &*names::normal(topic);
        message::check(topic, 0).map_err(|error| SubscribeError::Topic { reason: error.to_string() })?;
        self.core().topics.subscribe(topic)
    }
}

/// A topic's messages from now on, see [`Node::subscribe`].
#[must_use = "messages are only seen by who reads them"]
pub struct Subscription(BoxStream<'static, Heard>);

impl Subscription {
    /// The next message, or how many were lost before it; `None` when the node has stopped and all was read. Dropping the
    /// future loses nothing.
    pub async fn next(&mut self) -> Option<Heard> {
        self.0.next().await
    }
}

impl Stream for Subscription {
    type Item = Heard;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Heard>> {
        self.0.poll_next_unpin(cx)
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Subscription").finish_non_exhaustive()
    }
}

/// All subscriptions of one node, and the rate of what it sends.
pub(crate) struct Topics {
    subscriptions: Mutex<HashMap<String, Vec<Weak<Inbox>>>>,
    pace: Mutex<Bucket>,
    /// Messages that slow subscribers have lost.
    pub(crate) missed: AtomicU64,
}

impl Topics {
    pub(crate) fn new(passive: bool) -> Self {
        let rate = if passive { guard::OWN_PASSIVE } else { guard::OWN };
        let pace = Mutex::new(Bucket::new(rate, Instant::now()));
        Self { subscriptions: Mutex::default(), pace, missed: AtomicU64::new(0) }
    }

    /// When a message of this size may be sent.
    fn turn(&self, size: usize, now: Instant) -> Option<Instant> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner).reserve(cost(size), now, LONGEST_WAIT)
    }

    fn subscribe(&self, topic: &str) -> Result<Subscription, SubscribeError> {
        let mut subscriptions = self.subscriptions();
        subscriptions.retain(|_, inboxes| {
            inboxes.retain(|inbox| inbox.strong_count() > 0);
            !inboxes.is_empty()
        });
        if subscriptions.values().map(Vec::len).sum::<usize>() >= MAX_SUBSCRIPTIONS {
            return Err(SubscribeError::TooMany);
        }
        let inbox = Arc::new(Inbox::default());
        subscriptions.entry(topic.to_owned()).or_default().push(Arc::downgrade(&inbox));
        let heard = stream::unfold(inbox, |inbox| async { Some((inbox.next().await?, inbox)) });
        Ok(Subscription(heard.boxed()))
    }

    /// Hands a message to all who have subscribed here, and says how many they are.
    pub(crate) fn deliver(&self, topic: &str, message: impl FnOnce() -> TopicMessage) -> usize {
        let subscriptions = self.subscriptions();
        let Some(inboxes) = subscriptions.get(topic) else { return 0 };
        let inboxes: Vec<_> = inboxes.iter().filter_map(Weak::upgrade).collect();
        drop(subscriptions);
        if inboxes.is_empty() {
            return 0;
        }
        let message = message();
        for inbox in &inboxes {
            self.missed.fetch_add(inbox.push(message.clone()), Relaxed);
        }
        inboxes.len()
    }

    /// Ends all subscriptions.
    pub(crate) fn close(&self) {
        for inbox in self.subscriptions().drain().flat_map(|(_, inboxes)| inboxes) {
            if let Some(inbox) = inbox.upgrade() {
                inbox.close();
            }
        }
    }

    fn subscriptions(&self) -> MutexGuard<'_, HashMap<String, Vec<Weak<Inbox>>>> {
        self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Topics {
    fn drop(&mut self) {
        self.close();
    }
}

/// Why a value was not published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The topic or the value is over its limit.
    #[error("the `{what}` has {size} bytes, the limit is {limit}")]
    TooLarge {
        /// Which of them.
        what: &'static str,
        /// Its size, in bytes.
        size: usize,
        /// Its limit, in bytes.
        limit: usize,
    },
    /// The value cannot be encoded, or the topic has no name.
    #[error("the message cannot be published: {reason}")]
    Unsendable {
        /// Why not.
        reason: String,
    },
    /// So much is waiting for its turn that it would take more than 10 s: others would take no more from this node.
    #[error("more is published than others take: the next turn is in more than {LONGEST_WAIT:?}")]
    TooMuch,
    /// The queues to all neighbours are full. Some of them may still ask for it.
    #[error("the queues to all neighbours are full")]
    Busy,
    /// This node has been stopped.
    #[error("this node has been stopped")]
    Stopped,
}

impl PublishError {
    pub(crate) fn of(error: RecordError) -> Self {
        match error {
            RecordError::TooLarge { what, size, limit } => Self::TooLarge { what, size, limit },
            error => Self::Unsendable { reason: error.to_string() },
        }
    }
}

/// Why there is no subscription.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The name of the topic is empty or too long.
    #[error("there can be no such topic: {reason}")]
    Topic {
        /// What is wrong with it.
        reason: String,
    },
    /// This node has as many subscriptions as it can have.
    #[error("this node has {MAX_SUBSCRIPTIONS} subscriptions already, the limit")]
    TooMany,
}
