//! What the nodes of the demo host.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use clap::ValueEnum;
use multinodes::{Actions, AppError, Node, RegisterError};
use serde_json::json;

/// An application of the demo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Adds and divides; dividing by zero is a typed error.
    Calculator,
    /// Says hello.
    Greeter,
    /// Counts what it is told.
    Journal,
    /// Calls the calculator of another node and tells the journal: work between nodes.
    Reporter,
    /// Takes its time, to try time-outs.
    Clock,
    /// Works on items, four at once, and does not get on with some of them.
    Worker,
}

impl Kind {
    /// Makes the node host it.
    pub(crate) fn register(self, node: &Node) -> Result<(), RegisterError> {
        match self {
            Self::Calculator => node.register("calculator", calculator()),
            Self::Greeter => node.register("greeter", greeter()),
            Self::Journal => node.register("journal", journal()),
            Self::Reporter => node.register("reporter", reporter()),
            Self::Clock => node.register("clock", clock()),
            Self::Worker => node.register("worker", worker()),
        }
    }
}

fn calculator() -> Actions {
    Actions::new()
        .version("1.0.0")
        .description(json!({ "precision": 64 }))
        .action("add", |(a, b): (i64, i64)| async move { a.saturating_add(b) })
        .try_action("div", |(a, b): (i64, i64)| async move {
            a.checked_div(b).ok_or_else(|| AppError::new("division_by_zero", format!("{a} cannot be divided by {b}")))
        })
        .action_with("where", |context, (): ()| async move { context.node().name().to_owned() })
}

fn greeter() -> Actions {
    Actions::new()
        .version("2.1.0")
        .description(json!({ "languages": ["en"] }))
        .action_with("hello", |context, who: String| async move {
            format!("hello {who}, this is {}", context.node().name())
        })
}

fn journal() -> Actions {
    let told = Arc::new(AtomicU64::new(0));
    let count = told.clone();
    Actions::new()
        .version("1.2.0")
        .action("count", move |(): ()| {
            let count = count.load(Relaxed);
            async move { count }
        })
        .on_tell(move |line: String| {
            told.fetch_add(1, Relaxed);
            async move { tracing::info!(%line, "written into the journal") }
        })
}

fn reporter() -> Actions {
    Actions::new().version("1.0.0").try_action_with("sum", |context, (a, b, whom): (i64, i64, String)| async move {
        let node = context.node();
        let sum: i64 = node.app("calculator").on(whom).call("add", (a, b)).await.map_err(relayed)?;
        node.tell("journal", format!("{a} + {b} = {sum}")).await.map_err(relayed)?;
        Ok::<_, AppError>(sum)
    })
}

fn clock() -> Actions {
    let asleep = Arc::new(AtomicU64::new(0));
    let count = asleep.clone();
    Actions::new()
        .action("sleep", move |milliseconds: u64| {
            let asleep = asleep.clone();
            async move {
                asleep.fetch_add(1, Relaxed);
                tokio::time::sleep(Duration::from_millis(milliseconds)).await;
                asleep.fetch_sub(1, Relaxed);
            }
        })
        .action("asleep", move |(): ()| {
            let count = count.load(Relaxed);
            async move { count }
        })
}

fn worker() -> Actions {
    let runs = Arc::new(AtomicU64::new(0));
    let count = runs.clone();
    Actions::new()
        .version("1.0.0")
        .slots(4)
        .action("square", |x: i64| async move { x.saturating_mul(x) })
        .action("square_slowly", move |(x, milliseconds): (i64, u64)| {
            runs.fetch_add(1, Relaxed);
            async move {
                tokio::time::sleep(Duration::from_millis(milliseconds)).await;
                x.saturating_mul(x)
            }
        })
        .action("runs", move |(): ()| {
            let count = count.load(Relaxed);
            async move { count }
        })
        .action("length", |text: String| async move { text.chars().count() })
        .try_action("root", |x: i64| async move {
            match u64::try_from(x) {
                Ok(x) if x == x.isqrt() * x.isqrt() => Ok(x.isqrt()),
                Ok(x) => Err(AppError::new("no_square", format!("{x} is no square")).with_data(&x.isqrt())),
                Err(_) => Err(AppError::crashed("a negative number is too much for it")),
            }
        })
}

fn relayed(error: multinodes::CallError) -> AppError {
    AppError::new(error.code(), error.to_string())
}
