//! A peer that gives code as it likes, built from the parts that honest nodes are built from. It sends the code's name with
//! a request of its own, so that it is the first to be asked for the bytes. Beside `attacker`, which it needs.
#![allow(unreachable_pub, reason = "each test program includes it as a module of its own")]

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::{FutureExt, StreamExt, future::BoxFuture};
use libp2p::swarm::SwarmEvent;
use multinodes::Cid;
use multinodes_behaviour::{
    BehaviourEvent, codec,
    lane::{
        Delivery, Exchange, Incoming, Io, LaneError, Limits, Opener, Outgoing, Responder, Service, Unopened, Unwritten,
    },
    wire::Options,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_bytes::ByteBuf;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use crate::attacker::{Member, Target};

/// As nodes have it by default.
const LARGEST: usize = 16 << 20;

/// The bytes for a piece, of which the offset and the length are given; with nothing the question is never answered, though the
/// connection stays.
type Give = Box<dyn Fn(usize, usize) -> Option<Vec<u8>> + Send + Sync>;

/// The peer. Its connection ends when it is dropped.
pub struct Source {
    exchange: Arc<Exchange>,
    giver: Arc<Giver>,
    turning: JoinHandle<()>,
}

struct Giver {
    give: Give,
    asked: Mutex<Vec<usize>>,
    /// Dropped, they would answer.
    kept: Mutex<Vec<Responder>>,
}

impl Source {
    pub async fn connect(
        target: &Target,
        give: impl Fn(usize, usize) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let mut member = Member::connect(target).await.unwrap();
        let (sender, mut wanted) = mpsc::channel(4);
        let giver = Arc::new(Giver { give: Box::new(give), asked: Mutex::default(), kept: Mutex::default() });
        let exchange = Exchange::new(giver.clone(), Arc::new(Lanes(sender)), Limits::new(LARGEST));
        let (accepting, to) = (exchange.clone(), target.peer_id);
        let turning = tokio::spawn(async move {
            loop {
                tokio::select! {
                    Some(respond_to) = wanted.recv() => member.swarm.behaviour_mut().lanes.open(to, respond_to),
                    event = member.swarm.select_next_some() => {
                        if let SwarmEvent::Behaviour(BehaviourEvent::Lanes(lane)) = event {
                            accepting.accept(Box::new(lane.stream));
                        }
                    }
                }
            }
        });
        Self { exchange, giver, turning }
    }

    /// Calls an action of its victim, with a limit.
    pub async fn call<R: DeserializeOwned>(
        &self,
        application: &str,
        action: &str,
        arguments: &impl Serialize,
        limit: Duration,
    ) -> Result<R, LaneError> {
        let deadline = Instant::now() + limit;
        let head = Outgoing { application, action, deadline, options: Options::default(), trace: None, pulse: None };
        let answer = self.exchange.call(head, &codec::encode(arguments).unwrap().into()).await?;
        Ok(codec::decode(&answer, LARGEST).unwrap())
    }

    /// The offsets of the pieces that it was asked for.
    pub fn asked(&self) -> Vec<usize> {
        self.giver.asked.lock().unwrap().clone()
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.turning.abort();
    }
}

impl Service for Giver {
    fn peer(&self) -> String {
        "somebody".to_owned()
    }

    fn on_call(&self, call: Incoming<'_>, responder: Responder) {
        let (_, offset, length): (Cid, usize, usize) = codec::decode(&call.payload, LARGEST).unwrap();
        self.asked.lock().unwrap().push(offset);
        let Some(piece) = (self.give)(offset, length) else { return self.kept.lock().unwrap().push(responder) };
        let piece = codec::encode(&ByteBuf::from(piece)).unwrap().into();
        if let Some(rest) = responder.respond(Ok(piece), &mut Unwritten::default()) {
            tokio::spawn(rest);
        }
    }

    fn on_tell(&self, _: Incoming<'_>) -> Delivery {
        Delivery::Accepted
    }
}

/// Asks the task that has the swarm for streams.
struct Lanes(mpsc::Sender<multinodes_behaviour::lanes::RespondTo>);

impl Opener for Lanes {
    fn open(&self) -> BoxFuture<'_, Result<Box<dyn Io>, Unopened>> {
        async {
            let (respond_to, stream) = oneshot::channel();
            self.0.send(respond_to).await.map_err(|error| error.to_string())?;
            let stream = stream.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
            Ok(Box::new(stream) as Box<dyn Io>)
        }
        .boxed()
    }
}
