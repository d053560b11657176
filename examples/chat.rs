//! A chat over the LAN: tells, and events of the swarm. No server, no configuration.
//!
//! Start it in two terminals, or on two machines, and type. End with Ctrl-D.
//!
//! ```text
//! cargo run --release --example chat -- ann
//! cargo run --release --example chat -- bob
//! ```
#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use multinodes::{Actions, Event, LeftReason, Node, printable};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};

/// What is told to everybody's application `chat`.
#[derive(Serialize, Deserialize)]
struct Line {
    text: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut builder = Node::builder().swarm("chat-example");
    if let Some(name) = std::env::args().nth(1) {
        builder = builder.name(name);
    }
    let node = builder.start().await?;
    node.register("chat", Actions::new().on_tell_with(|context, line: Line| async move { show(&context, &line) }))?;
    println!("You are `{}`. Type a line and press Enter; Ctrl-D ends.", node.name());

    let mut events = node.events();
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    loop {
        tokio::select! {
            line = lines.next_line() => match line? {
                Some(text) => send(&node, &text).await,
                None => break,
            },
            Some(event) = events.next() => match event {
                Event::Joined(other) => println!("* {} is here", other.name),
                Event::Left { node: other, reason: LeftReason::Stopped } => println!("* {} has left", other.name),
                Event::Left { node: other, .. } => println!("* {} is lost", other.name),
                _ => {}
            },
        }
    }
    node.stop().await;
    Ok(())
}

/// The caller's peer id is proven by the connection; the name that goes with it is looked up here. What others write
/// may hold what a terminal would obey.
fn show(context: &multinodes::Context, line: &Line) {
    let sender = context.node().nodes().into_iter().find(|other| other.peer_id == context.caller());
    let name = sender.map_or_else(|| context.caller().to_string(), |sender| sender.name.clone());
    println!("<{name}> {}", printable(&line.text));
}

async fn send(node: &Node, text: &str) {
    for host in node.hosts("chat").iter().filter(|host| !host.local) {
        let line = Line { text: text.to_owned() };
        if let Err(error) = node.app("chat").on(host.peer_id.to_string()).tell(line).await {
            println!("* {} did not get it: {}", host.node, printable(&error.to_string()));
        }
    }
}
