//! Flows between applications: items of a source go through stages that are spread over the swarm, and nothing is lost.
//!
//! ```text
//!   source ──▶ split ──▶ count ──▶ outputs          each stage is an application on any number of nodes;
//!   (here)     (any      (the owner  (here)         tuples go straight from host to host;
//!      ▲        host)     of the word) │            each tells the source what it has processed
//!      └─────────────◀── acknowledgements ◀
//! ```
//!
//! Every node that registers a [`Stage`] takes part, newcomers at once, and needs no configuration: the [`Flow`] is
//! described where its source is, and the plan travels along with the tuples. There is no scheduler and no coordinator.
//!
//! ```no_run
//! use futures::stream;
//! use multinodes::{
//!     Node,
//!     topology::{Emitter, Event, Flow, Grouping, Stage},
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // On any number of nodes.
//! let worker = Node::start().await?;
//! let split = Stage::new(|line: String, out: Emitter| async move {
//!     for word in line.split_whitespace() {
//!         out.emit(word).await?;
//!     }
//!     Ok(())
//! });
//! worker.register("split", split)?;
//! worker.register("shout", Stage::new(|word: String, out: Emitter| async move { Ok(out.emit(word + "!").await?) }))?;
//!
//! // On one node.
//! let node = Node::start().await?;
//! let flow = Flow::new("shouting").stage("split", Grouping::Shuffle).stage("shout", Grouping::by_key(""));
//! let mut run = flow.run(&node, stream::iter(["to be or not", "to be"]))?;
//! while let Some(event) = run.next().await {
//!     match event {
//!         Event::Output(output) => println!("{}", output.value.decode::<String>()?),
//!         Event::Failed(failed) => println!("item {} was given up: {}", failed.root, failed.reason),
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What is promised
//!
//! * **At least once.** An item is [`Completed`](Event::Completed) when every tuple that came of it, over all stages,
//!   was processed without an error, and every output has reached the source. If that has not happened within
//!   [`ack_timeout`](Flow::ack_timeout), or a stage fails, or a host is lost with tuples in its hands, the whole item is
//!   replayed, up to [`max_replays`](Flow::max_replays) times; then it is [`Failed`](Event::Failed). Nothing is ever
//!   silently dropped. Items that wait live in the memory of the source's node: when that one is lost the run is.
//! * **Possibly more than once.** A replay begins anew: tuples that were processed in an earlier attempt are processed
//!   again, perhaps while some of that attempt are still on their way, and outputs come again. Within one attempt
//!   nothing is processed twice. So *outputs* can be had exactly once: keep those of an item until it is completed, and
//!   take those with the attempt that was (see [`Event::Output`]). What a stage does *besides* emitting has to bear
//!   repetition: set instead of add, or remember [`Emitter::root`] with what was done. What a stage keeps in memory is
//!   gone with its node, and [`Grouping::ByKey`] gives its keys to others.
//! * **Bounded.** At most [`max_pending`](Flow::max_pending) items, and [`MAX_PENDING_BYTES`] of them, are under way;
//!   what a stage has taken on a node, what it has emitted there, and the outputs that nobody has read yet have a limit in
//!   bytes each, and whoever finds one reached waits: a slow stage slows down the source, and memory stays flat with a
//!   source without end. Runs of others share what a stage has: when there are more than 256 on one node, those of whoever
//!   has brought the most give way, and one flow does not take all [places](Stage::concurrency) of a stage.
//! * **A panic fails loudly.** One in a stage fails the tuple, one in the source's stream ends the run with
//!   [`Event::Broken`], when nothing more is taken: what is pending goes on.
//! * **No order** among tuples, except those of one emitter to one host of a stage with a
//!   [concurrency](Stage::concurrency) of 1, as long as no host is lost.
//! * A node that [stops](crate::Node::stop) finishes what it has taken, as long as its drain timeout allows, and takes
//!   nothing new. What a node has when it dies is replayed after the time-out.
//! * Acknowledgements and outputs are taken only from those who got tuples of the run: they hold a secret that travels
//!   with the plan. Whoever hosts a stage is trusted with that: swarm members that must not be belong into another swarm.
//! * **Rights.** A stage is no way around the rules of the next one. The plan is signed by the node that runs the flow, and
//!   every host asks its rules ([`Builder::allow`](crate::Builder::allow), [`Actions::allow`](crate::Actions::allow) of
//!   [`Stage::actions`]) about that node as well as about whoever brings the tuples; labels go along with the plan. It
//!   takes them only from the source, or from hosts of the stages that come before in the plan, whatever else they are.
//!   Items of which a host says so are given up at once. A stage that calls other applications by itself, through
//!   [`Emitter::node`], does so with the rights of its own node.
//!
//! # Reading order
//!
//! `flow.rs` and `run.rs` (what users see), `plan.rs` and `wire.rs` (what travels), `trees.rs` (the rule of completion),
//! `source.rs` (the source's side), `stage.rs`, `parts.rs` and `emitter.rs` (a host's side), `router.rs`, `owner.rs` and `outlet.rs`
//! (where tuples go, and how they get there), `acker.rs`, `inbox.rs`, `queue.rs`, `budget.rs`.

mod acker;
mod budget;
mod emitter;
mod flow;
mod inbox;
mod outlet;
pub(crate) mod owner;
mod parts;
mod plan;
mod queue;
mod router;
mod run;
mod source;
mod stage;
mod trees;
mod wire;

pub use emitter::{EmitError, Emitter};
pub use flow::{DEFAULT_ACK_TIMEOUT, DEFAULT_MAX_PENDING, DEFAULT_MAX_REPLAYS, Flow, FlowError};
pub use owner::Key;
pub use plan::{Grouping, MAX_STAGES};
pub use run::{Event, Failed, Output, Run};
pub use stage::{DEFAULT_STAGE_CONCURRENCY, DEFAULT_STAGE_QUEUE, MAX_EMITTED_BYTES, Stage};
pub use trees::{Counters, MAX_PENDING_BYTES};
