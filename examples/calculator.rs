//! The two ways to write an application: closures, and the `Application` trait; and errors that programs understand.
//!
//! ```text
//! cargo run --release --example calculator
//! ```
#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use multinodes::{Actions, AppError, Application, CallError, Context, Node, Payload, Profile, json};
use serde::{Deserialize, Serialize};

/// What goes along with the calculator's errors, so that a program need not read their texts.
#[derive(Debug, Serialize, Deserialize)]
struct Division {
    dividend: i64,
    divisor: i64,
}

/// Closures: enough for most applications.
fn calculator() -> Actions {
    Actions::new()
        .version("1.0.0")
        .description(json!({"numbers": "64-bit integers"}))
        .action("add", |(a, b): (i64, i64)| async move { a + b })
        .try_action("div", |(dividend, divisor): (i64, i64)| async move {
            dividend.checked_div(divisor).ok_or_else(|| {
                AppError::new("impossible_division", format!("{dividend} cannot be divided by {divisor}"))
                    .with_data(&Division { dividend, divisor })
            })
        })
}

/// The trait: for applications that have state, or decide about their actions by themselves.
#[derive(Default)]
struct Memory {
    value: AtomicI64,
}

impl Application for Memory {
    fn profile(&self) -> Profile {
        let mut profile = Profile::default();
        profile.description = json!({"kind": "one number"});
        profile.actions = vec!["recall".into(), "add".into()];
        profile
    }

    async fn call(&self, _: Context, action: &str, arguments: Payload) -> Result<Payload, AppError> {
        let value = match action {
            "recall" => self.value.load(Relaxed),
            "add" => {
                let amount: i64 = arguments.decode_arguments().map_err(AppError::bad_arguments)?;
                self.value.fetch_add(amount, Relaxed) + amount
            }
            _ => return Err(AppError::no_such_action(action)),
        };
        Payload::encode(&value).map_err(AppError::of)
    }

    async fn process(&self, context: Context, message: Payload) -> Result<(), AppError> {
        let value: i64 = message.decode().map_err(AppError::bad_arguments)?;
        println!("  {} sets the memory to {value}", context.caller());
        self.value.store(value, Relaxed);
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let host = Node::builder().name("host").swarm("calculator-example").start().await?;
    host.register("calculator", calculator())?;
    host.register("memory", Memory::default())?;

    let user = Node::builder().name("user").swarm("calculator-example").start().await?;
    user.wait_for("calculator").await?;
    user.wait_for("memory").await?;

    let sum: i64 = user.call("calculator", "add", (40, 2)).await?;
    println!("40 + 2 = {sum}");

    match user.call::<i64>("calculator", "div", (1, 0)).await {
        Ok(quotient) => println!("1 / 0 = {quotient}?"),
        Err(error @ CallError::Failed { .. }) => {
            println!("{error}");
            if let Some(Division { dividend, divisor }) = error.data() {
                println!("  for programs: dividend {dividend}, divisor {divisor}");
            }
        }
        Err(error) => return Err(error.into()),
    }

    user.tell("memory", 10).await?;
    let total: i64 = user.call("memory", "add", 5).await?;
    println!("memory + 5 = {total}");

    user.stop().await;
    host.stop().await;
    Ok(())
}
