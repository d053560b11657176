//! Topics: who hears what, and what an attacker can do about it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "common/in_process.rs"]
mod in_process;

use futures::StreamExt;
use libp2p::{Swarm, gossipsub, gossipsub::IdentTopic, swarm::SwarmEvent};
use multinodes::{Heard, Keypair, Node, PublishError, SubscribeError, Subscription, SwarmName, TopicMessage};
use multinodes_behaviour::{Behaviour, Config, SignedMessage, rationed, wire};
use tokio::{sync::mpsc, task::JoinHandle};

use in_process::{in_process, pair, within};

async fn next(subscription: &mut Subscription) -> TopicMessage {
    match within(subscription.next()).await {
        Some(Heard::Message(message)) => message,
        other => panic!("{other:?}"),
    }
}

async fn value(subscription: &mut Subscription) -> String {
    next(subscription).await.value.decode().unwrap()
}

#[tokio::test]
async fn who_has_subscribed_hears_it_and_who_has_sent_it() {
    let (one, other) = pair("alpha", "beta").await;
    let mut there = other.subscribe("news").unwrap();
    let mut here = one.subscribe("news").unwrap();
    let mut elsewhere = other.subscribe("weather").unwrap();
    let published = within(one.publish("news", "hello")).await.unwrap();
    assert_eq!((published.here, published.neighbours), (1, 1));
    for subscription in [&mut there, &mut here] {
        let message = next(subscription).await;
        assert_eq!((message.from, message.node.as_deref()), (one.peer_id(), Some("alpha")));
        assert_eq!(message.value.decode::<String>().unwrap(), "hello");
    }
    within(one.publish("weather", "rain")).await.unwrap();
    assert_eq!(value(&mut elsewhere).await, "rain", "and nothing of the other topic");
    other.stop().await;
    assert_eq!(within(there.next()).await, None);
}

#[tokio::test]
async fn nodes_that_are_not_neighbours_hear_each_other() {
    let (first, address) = in_process("first");
    let first = first.start().await.unwrap();
    let (second, next_address) = in_process("second");
    let second = second.join(&address).start().await.unwrap();
    // The last one is passive: nobody dials it, and it dials only the one that it joins.
    let last = Node::builder().passive(true).mdns(false).rendezvous(false).join(&next_address).start().await.unwrap();
    let mut subscription = last.subscribe("news").unwrap();
    within(second.wait_for_node("first")).await.unwrap();
    let sender = tokio::spawn(async move {
        loop {
            within(first.publish("news", "hello")).await.unwrap();
        }
    });
    assert_eq!(value(&mut subscription).await, "hello");
    sender.abort();
}

#[tokio::test]
async fn a_young_node_waits_for_its_first_neighbour_and_one_alone_says_so() {
    let (one, address) = in_process("alpha");
    let one = one.start().await.unwrap();
    let mut subscription = one.subscribe("news").unwrap();
    let passing = Node::builder().passive(true).mdns(false).rendezvous(false).join(&address).start().await.unwrap();
    let published = within(passing.publish("news", "hello")).await.unwrap();
    assert_eq!((published.here, published.neighbours), (0, 1));
    // What was published last is written before the connections are closed.
    within(passing.stop()).await;
    let message = next(&mut subscription).await;
    assert_eq!((message.from, message.node), (passing.peer_id(), None));
    let alone = in_process("alone").0.start().await.unwrap();
    assert_eq!(within(alone.publish("news", "hello")).await.unwrap().neighbours, 0);
    assert_eq!(within(passing.publish("news", "hello")).await, Err(PublishError::Stopped));
}

#[tokio::test]
async fn the_largest_value_arrives_and_a_larger_one_is_refused_with_its_size_and_limit() {
    let (one, other) = pair("alpha", "beta").await;
    let mut subscription = other.subscribe("news").unwrap();
    let largest = "x".repeat(multinodes::MAX_TOPIC_VALUE - 3);
    within(one.publish("news", &largest)).await.unwrap();
    assert!(value(&mut subscription).await == largest);
    let error = within(one.publish("news", largest + "x")).await.unwrap_err();
    assert_eq!(error.to_string(), "the `value` has 49153 bytes, the limit is 49152");
    let error = within(one.publish(&"t".repeat(257), 1)).await.unwrap_err();
    assert!(error.to_string().ends_with("cannot name a topic: it has 257 bytes, the limit is 256"), "{error}");
    assert!(matches!(one.subscribe(""), Err(SubscribeError::Topic { .. })));
}

#[tokio::test]
async fn a_slow_subscriber_is_told_how_much_it_has_lost_and_subscriptions_are_bounded() {
    let node = in_process("alpha").0.start().await.unwrap();
    let mut slow = node.subscribe("news").unwrap();
    // A megabyte more than what is kept.
    let text = "x".repeat(40_000);
    for _ in 0..130 {
        within(node.publish("news", &text)).await.unwrap();
    }
    let Some(Heard::Missed(missed)) = within(slow.next()).await else { panic!("nothing was missed") };
    assert_eq!(node.counters().missed_messages, missed);
    drop(slow);
    let all: Vec<_> = (0..multinodes::MAX_SUBSCRIPTIONS).map(|_| node.subscribe("news").unwrap()).collect();
    assert!(matches!(node.subscribe("other"), Err(SubscribeError::TooMany)));
    drop(all);
    assert!(node.subscribe("other").is_ok());
}

/// Somebody who speaks the protocols, and sends what it likes.
struct Attacker {
    send: mpsc::UnboundedSender<Vec<u8>>,
    keypair: Keypair,
    task: JoinHandle<()>,
}

impl Drop for Attacker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn name() -> SwarmName {
    SwarmName::default()
}

impl Attacker {
    /// Connects, and waits until it could publish.
    async fn at(address: &str) -> Self {
        let keypair = Keypair::generate_ed25519();
        let config = Config {
            swarm: name(),
            keypair: keypair.clone(),
            passive: true,
            mdns: false,
            kademlia: false,
            high_mark: 96,
            privacy: None,
            doorkeeper: None,
            credential: None,
            interfaces: Vec::new(),
            refused_subscriptions: Default::default(),
        };
        let mut swarm = multinodes_behaviour::build(&config).unwrap();
        swarm.dial(address.parse::<libp2p::Multiaddr>().unwrap()).unwrap();
        within(heard_of(&mut swarm)).await;
        let (send, mut envelopes) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = swarm.select_next_some() => {}
                    Some(envelope) = envelopes.recv() => {
                        // Full queues are the attacker's own affair.
                        let _ = swarm.behaviour_mut().gossip.publish(name().message_topic(), envelope);
                    }
                }
            }
        });
        Self { send, keypair, task }
    }

    fn publish(&self, envelope: &[u8]) {
        self.send.send(envelope.to_vec()).unwrap();
    }
}

async fn heard_of(swarm: &mut Swarm<Behaviour>) {
    loop {
        if let SwarmEvent::Behaviour(multinodes_behaviour::BehaviourEvent::Gossip(rationed::Event::Inner(event))) =
            swarm.select_next_some().await
            && let gossipsub::Event::Subscribed { topic, .. } = event
            && topic == name().message_topic().hash()
        {
            return;
        }
    }
}

fn signed(keypair: &Keypair, incarnation: u64, sequence: u64, text: &str) -> Vec<u8> {
    let value = multinodes::Payload::encode(&text).unwrap().into_bytes().to_vec().into();
    let message = wire::TopicMessage { topic: "news".into(), incarnation, sequence, value };
    SignedMessage::sign(keypair, &name(), message).unwrap().envelope().to_vec()
}

/// A node that is attacked, an honest one with that key which it knows, and the way to the first.
async fn victim_and_honest(keypair: Keypair) -> (Node, Node, String) {
    let (victim, address) = in_process("victim");
    let victim = victim.start().await.unwrap();
    let honest = in_process("honest").0.keypair(keypair).join(&address).start().await.unwrap();
    within(victim.wait_for_node("honest")).await.unwrap();
    (victim, honest, address)
}

/// Waits until a counter of a node has got so far.
async fn counted(node: &Node, wanted: u64, counter: impl Fn(multinodes::Counters) -> u64) {
    within(async {
        while counter(node.counters()) < wanted {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn forged_and_altered_messages_are_dropped_and_counted() {
    let (victim, honest, address) = victim_and_honest(Keypair::generate_ed25519()).await;
    let mut subscription = victim.subscribe("news").unwrap();
    let attacker = Attacker::at(&address).await;

    // The key of somebody else in the envelope: the signature is still the attacker's.
    let own = signed(&attacker.keypair, 1, 1, "forged");
    let (mine, theirs) = (attacker.keypair.public().encode_protobuf(), Keypair::generate_ed25519().public());
    let at = own.windows(mine.len()).position(|bytes| bytes == mine).unwrap();
    let mut forged = own.clone();
    forged[at..at + mine.len()].copy_from_slice(&theirs.encode_protobuf());
    attacker.publish(&forged);
    counted(&victim, 1, |counters| counters.bad_messages).await;
    // A letter of the payload is another one.
    let at = own.windows(6).position(|bytes| bytes == b"forged").unwrap();
    let mut altered = own.clone();
    altered[at] = b'F';
    attacker.publish(&altered);
    counted(&victim, 2, |counters| counters.bad_messages).await;
    // More than that, and the attacker is not listened to.
    for number in 0..1000_u32 {
        attacker.publish(&number.to_be_bytes());
    }
    counted(&victim, 16, |counters| counters.bad_messages).await;

    within(honest.publish("news", "honest")).await.unwrap();
    assert_eq!(value(&mut subscription).await, "honest");
    assert!(victim.counters().bad_messages < 1000, "{:?}", victim.counters());
    assert_eq!(honest.counters().bad_messages, 0, "nothing bad is passed on");
}

#[tokio::test]
async fn a_replayed_message_is_dropped_and_counted() {
    let keypair = Keypair::generate_ed25519();
    let (victim, honest, address) = victim_and_honest(keypair.clone()).await;
    let mut subscription = victim.subscribe("news").unwrap();
    let attacker = Attacker::at(&address).await;
    // What the honest node has signed in an earlier life, which the victim has never heard.
    attacker.publish(&signed(&keypair, 1_000, 7, "old news"));
    counted(&victim, 1, |counters| counters.repeated_messages).await;
    // The same number twice, as only the sender itself can sign it.
    attacker.publish(&signed(&attacker.keypair, 1, 1, "first"));
    assert_eq!(value(&mut subscription).await, "first");
    attacker.publish(&signed(&attacker.keypair, 1, 1, "second"));
    counted(&victim, 2, |counters| counters.repeated_messages).await;
    within(honest.publish("news", "news")).await.unwrap();
    assert_eq!(value(&mut subscription).await, "news");
}

#[tokio::test]
async fn a_flood_of_messages_of_endless_senders_is_dropped_and_counted_and_honest_ones_arrive() {
    let (victim, honest, address) = victim_and_honest(Keypair::generate_ed25519()).await;
    let mut subscription = victim.subscribe("honest news").unwrap();
    let attacker = Attacker::at(&address).await;
    let text = "x".repeat(40_000);
    let flood = async {
        for number in 0_u64.. {
            attacker.publish(&signed(&Keypair::generate_ed25519(), 1, number, &text));
            if victim.counters().refused_messages >= 50 {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    within(flood).await;
    for number in 0..5 {
        within(honest.publish("honest news", number.to_string())).await.unwrap();
        assert_eq!(value(&mut subscription).await, number.to_string());
    }
}

#[tokio::test]
async fn a_flood_of_subscriptions_is_dropped_and_counted() {
    let (victim, honest, address) = victim_and_honest(Keypair::generate_ed25519()).await;
    let mut subscription = victim.subscribe("news").unwrap();
    let keypair = Keypair::generate_ed25519();
    let transport = multinodes_behaviour::transport::new(&keypair).unwrap();
    let peer_id = keypair.public().to_peer_id();
    let mut swarm =
        Swarm::new(transport, Anything::new(&keypair), peer_id, libp2p::swarm::Config::with_tokio_executor());
    swarm.dial(address.parse::<libp2p::Multiaddr>().unwrap()).unwrap();
    let task = tokio::spawn(async move {
        let mut flooded = false;
        loop {
            let event = swarm.select_next_some().await;
            if matches!(event, SwarmEvent::Behaviour(AnythingEvent::Gossip(gossipsub::Event::Subscribed { .. })))
                && !std::mem::replace(&mut flooded, true)
            {
                for number in 0..500 {
                    let topic = IdentTopic::new(format!("multinodes/default/message/{number}"));
                    swarm.behaviour_mut().gossip.subscribe(&topic).unwrap();
                }
            }
        }
    });
    counted(&victim, 499, |counters| counters.refused_subscriptions).await;
    within(honest.publish("news", "honest")).await.unwrap();
    assert_eq!(value(&mut subscription).await, "honest");
    task.abort();
}

/// As much of a node as is needed not to be taken for a stranger, and gossip that knows no limit of topics.
#[derive(libp2p::swarm::NetworkBehaviour)]
struct Anything {
    gossip: gossipsub::Behaviour,
    sync: multinodes_behaviour::sync::Behaviour,
    identify: libp2p::identify::Behaviour,
}

impl Anything {
    fn new(keypair: &Keypair) -> Self {
        let config = gossipsub::ConfigBuilder::default()
            .protocol_id_prefix(name().gossip_protocol_prefix())
            .validation_mode(gossipsub::ValidationMode::Anonymous)
            .build()
            .unwrap();
        Self {
            gossip: gossipsub::Behaviour::new(gossipsub::MessageAuthenticity::Anonymous, config).unwrap(),
            sync: multinodes_behaviour::sync::new(&name()),
            identify: multinodes_behaviour::identity::identify(keypair.public(), &name(), None).unwrap(),
        }
    }
}
