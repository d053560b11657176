//! What two nodes tell each other.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Either, connected, until};
use libp2p::{
    Swarm, gossipsub, identify,
    request_response::{Event as Exchange, Message, OutboundFailure},
    swarm::SwarmEvent,
};
use multinodes_behaviour::{
    Behaviour, BehaviourEvent, gossip, rationed,
    sync::digest,
    wire::{Gossip, SyncRequest, SyncResponse},
};
use serde_bytes::ByteBuf;

const TCP: &str = "/ip4/127.0.0.1/tcp/0";

#[tokio::test]
async fn nodes_tell_each_other_who_they_are() {
    let [mut one, mut two] = connected("here", "here", TCP).await;
    let mut seen = [false; 2];
    until(&mut one, &mut two, |_, event| {
        let (side, event) = either(event);
        if let Some(BehaviourEvent::Identify(identify::Event::Received { info, .. })) = event {
            assert_eq!(info.protocol_version, "/multinodes/here/1");
            assert!(info.agent_version.starts_with("multinodes/"));
            assert!(info.signed_peer_record.is_none());
            seen[side] = true;
        }
        (seen == [true; 2]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_gossiped_change_reaches_the_other_node() {
    let [mut one, mut two] = connected("here", "here", TCP).await;
    subscribed(&mut one, &mut two).await;
    let sent = Gossip::Record(ByteBuf::from(vec![7; 1000]));
    let topic = "here".parse::<multinodes_behaviour::SwarmName>().unwrap().gossip_topic();
    one.behaviour_mut().gossip.publish(topic, gossip::encode(&sent).unwrap()).unwrap();
    let message = until(&mut one, &mut two, |_, event| match either(event) {
        (
            1,
            Some(BehaviourEvent::Gossip(rationed::Event::Inner(gossipsub::Event::Message {
                message, message_id, ..
            }))),
        ) => {
            assert_eq!(message_id.0.len(), 20);
            Some(message)
        }
        _ => None,
    })
    .await;
    assert_eq!(message.source, None, "gossip itself is unsigned");
    assert_eq!(gossip::decode(&message.data).unwrap(), sent);
}

#[tokio::test]
async fn a_sync_request_is_answered() {
    for address in [TCP, "/memory/0"] {
        let [mut one, mut two] = connected("here", "here", address).await;
        let response = SyncResponse { same: true, ..SyncResponse::default() };
        let request = SyncRequest::Offer { digest: digest([]), versions: None, records: Vec::new() };
        assert_eq!(exchange(&mut one, &mut two, request, response.clone()).await.unwrap(), response);
    }
}

#[tokio::test]
async fn large_directories_pass_in_both_directions() {
    let [mut one, mut two] = connected("here", "here", TCP).await;
    let records: Vec<_> = (0..60).map(|number| ByteBuf::from(vec![number; 40_000])).collect();
    let request = SyncRequest::Push { records: records.clone() };
    let response = SyncResponse { records, ..SyncResponse::default() };
    assert_eq!(exchange(&mut one, &mut two, request, response.clone()).await.unwrap(), response);
}

#[tokio::test]
async fn swarms_of_different_names_do_not_mix() {
    let [mut one, mut two] = connected("here", "there", TCP).await;
    let mut strangers = [false; 2];
    until(&mut one, &mut two, |_, event| {
        let (side, event) = either(event);
        match event {
            Some(BehaviourEvent::Gossip(rationed::Event::Inner(gossipsub::Event::GossipsubNotSupported {
                ..
            }))) => strangers[side] = true,
            Some(BehaviourEvent::Gossip(event)) => panic!("gossip crosses the border: {event:?}"),
            _ => {}
        }
        (strangers == [true; 2]).then_some(())
    })
    .await;
    let topic = "here".parse::<multinodes_behaviour::SwarmName>().unwrap().gossip_topic();
    let published = one.behaviour_mut().gossip.publish(topic, b"hello".to_vec());
    assert!(matches!(published, Err(gossipsub::PublishError::NoPeersSubscribedToTopic)));
    let failure = exchange(&mut one, &mut two, SyncRequest::Release, SyncResponse::default()).await.unwrap_err();
    assert!(matches!(failure, OutboundFailure::UnsupportedProtocols), "{failure}");
}

/// Sends a request from one to two, which answers with `response`.
async fn exchange(
    one: &mut Swarm<Behaviour>,
    two: &mut Swarm<Behaviour>,
    request: SyncRequest,
    response: SyncResponse,
) -> Result<SyncResponse, OutboundFailure> {
    let peer_id = *two.local_peer_id();
    one.behaviour_mut().sync.send_request(&peer_id, request.clone());
    let mut response = Some(response);
    until(one, two, |(_, two), event| match either(event) {
        (1, Some(BehaviourEvent::Sync(Exchange::Message { message, .. }))) => {
            let Message::Request { request: received, channel, .. } = message else { panic!("an answer to nothing") };
            assert!(received == request);
            two.behaviour_mut().sync.send_response(channel, response.take().unwrap()).unwrap();
            None
        }
        (0, Some(BehaviourEvent::Sync(Exchange::Message { message: Message::Response { response, .. }, .. }))) => {
            Some(Ok(response))
        }
        (0, Some(BehaviourEvent::Sync(Exchange::OutboundFailure { error, .. }))) => Some(Err(error)),
        _ => None,
    })
    .await
}

async fn subscribed(one: &mut Swarm<Behaviour>, two: &mut Swarm<Behaviour>) {
    let mut seen = [false; 2];
    until(one, two, |_, event| {
        let (side, event) = either(event);
        if matches!(event, Some(BehaviourEvent::Gossip(rationed::Event::Inner(gossipsub::Event::Subscribed { .. })))) {
            seen[side] = true;
        }
        (seen == [true; 2]).then_some(())
    })
    .await;
}

fn either(event: Either<BehaviourEvent, BehaviourEvent>) -> (usize, Option<BehaviourEvent>) {
    match event {
        Either::One(SwarmEvent::Behaviour(event)) => (0, Some(event)),
        Either::Two(SwarmEvent::Behaviour(event)) => (1, Some(event)),
        _ => (0, None),
    }
}
