//! Two nodes, one swarm, one call: the smallest program that does something.
//!
//! ```text
//! cargo run --release --example hello
//! ```
//!
//! Both nodes live in this process here. Put them into two processes, or on two machines of a LAN, and nothing changes:
//! nodes find each other by themselves.
#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use multinodes::{Actions, Node};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let alpha = Node::builder().name("alpha").swarm("hello-example").start().await?;
    let beta = Node::builder().name("beta").swarm("hello-example").start().await?;

    let greeter = Actions::new().action("greet", |name: String| async move { format!("Hello, {name}!") });
    alpha.register("greeter", greeter)?;

    for host in beta.wait_for("greeter").await? {
        println!("`greeter` is hosted on {}", host.node);
    }
    let greeting: String = beta.call("greeter", "greet", "world").await?;
    println!("{greeting}");

    beta.stop().await;
    alpha.stop().await;
    Ok(())
}
