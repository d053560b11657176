//! The transports of the feature `wan`.

#![cfg(feature = "wan")]

mod common;

use common::connected;

#[tokio::test]
async fn nodes_connect_over_quic() {
    connected("here", "here", "/ip4/127.0.0.1/udp/0/quic-v1").await;
}

#[tokio::test]
async fn nodes_connect_over_websocket() {
    connected("here", "here", "/ip4/127.0.0.1/tcp/0/ws").await;
}

#[tokio::test]
async fn nodes_connect_over_tcp_as_without_the_feature() {
    connected("here", "here", "/ip4/127.0.0.1/tcp/0").await;
}
