//! Code that is small and stands for much more: the node's own memory and time are not what it costs.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![cfg(target_os = "linux")]

mod code;
#[path = "common/code_nodes.rs"]
mod code_nodes;
mod common;
#[path = "common/in_process.rs"]
mod in_process;
#[path = "common/processes.rs"]
mod processes;

use std::{sync::Arc, time::Duration};

use code::{
    bombs::{doubled, elements, globals, names, repeated},
    guest, limits, within,
};
use code_nodes::{answers, lie, raw, serves};
use common::{Process, Swarm};
use multinodes::{
    CallError, Cid, Code, CodeError, GuestError, Node, Payload,
    code::{Allowance, Alone, Budget, CompileLimits, Compiler, Runtime, run, vet},
};
use processes::{MIB, computed, peak, resident};
use serde_bytes::ByteBuf;

/// What a node may take on top of what it has, whatever it is sent: the bytes themselves, some times over, and what an
/// allocator keeps.
const LITTLE: u64 = 64 * MIB;

/// The same of its own time. It reads and passes on the bytes, in a build without optimisation.
const SHORT: Duration = Duration::from_secs(2);

/// A node as a process of its own, and one that sends code to it.
struct Attacked {
    node: Process,
    beta: Node,
    before: (u64, Duration),
    /// What it had at first, in bytes.
    resident: u64,
    _swarm: Swarm,
}

impl Attacked {
    async fn by_rule(rule: &str) -> Self {
        let swarm = Swarm::new();
        let node = swarm.start("alpha", &["--allow-code", rule]);
        let beta = swarm.builder().name("beta").start().await.unwrap();
        within(beta.wait_for_node("alpha")).await.unwrap();
        serves(&beta).await;
        let before = (peak(node.id()), computed(node.id()));
        let resident = resident(node.id());
        Self { node, beta, before, resident, _swarm: swarm }
    }

    /// Sends it as a program that keeps to no rules, and gives what is said of it.
    async fn sends(&self, bytes: &[u8]) -> (String, String) {
        let reference = lie(&guest("echo"), "cid", Cid::of(bytes));
        let reference = {
            let mut told = serde_json::to_value(&reference).unwrap();
            told["size"] = bytes.len().into();
            serde_json::from_value(told).unwrap()
        };
        let failed = raw::<ByteBuf>(&self.beta, &reference, Some(bytes)).await.unwrap_err();
        answers(&self.beta).await;
        match failed {
            CallError::Failed { code, message, .. } => (code, message),
            error => panic!("{error:?}"),
        }
    }

    #[track_caller]
    fn has_taken_little(&self) {
        let (memory, time) = self.before;
        let (memory, time) = (peak(self.node.id()) - memory, computed(self.node.id()) - time);
        assert!(memory < LITTLE, "{} MiB more", memory / MIB);
        assert!(time < SHORT, "it computed {time:?} itself");
    }
}

#[tokio::test]
async fn names_that_multiply_cost_the_node_nothing() {
    // Made before anybody could wait for it.
    let bombs = [names(5_000, 900), doubled(20)];
    let attacked = Attacked::by_rule("any:run,cpu=100ms").await;
    for bytes in bombs {
        let (code, text) = attacked.sends(&bytes).await;
        assert!(code == "bad_code" && text.contains("are taken"), "{code}: {text}");
    }
    serves(&attacked.beta).await;
    attacked.has_taken_little();
}

#[tokio::test]
async fn what_an_instance_takes_besides_its_memory_counts_against_its_limit() {
    let bombs = [repeated(&globals(400_000), 120), repeated(&elements(800_000), 120)];
    let attacked = Attacked::by_rule("any:run").await;
    for bytes in bombs {
        assert!(bytes.len() < 2 * MIB as usize);
        let (code, text) = attacked.sends(&bytes).await;
        assert!(
            code == "bad_code" && text.contains("more than its limit of 67108864 bytes of memory"),
            "{code}: {text}"
        );
    }
    serves(&attacked.beta).await;
    attacked.has_taken_little();
}

#[tokio::test]
async fn what_was_run_once_leaves_little_behind() {
    // Each as heavy as it may be.
    let heavy = repeated(&globals(300_000), 9);
    // With a custom section each, so that they are not the same.
    let other = |number: u8| Code::from_bytes([&heavy[..], &[0, 2, 1, b'a' + number]].concat()).unwrap();
    let bombs: Vec<Code> = (0..8).map(other).collect();
    let attacked = Attacked::by_rule("any:run").await;
    for code in &bombs {
        let arguments = Payload::arguments(&()).unwrap();
        within(attacked.beta.run(code).on("alpha").timeout(code::LIMIT).call_raw(arguments)).await.unwrap();
    }
    serves(&attacked.beta).await;
    let left = resident(attacked.node.id()).saturating_sub(attacked.resident);
    assert!(left < 256 * MIB, "{} MiB are left", left / MIB);
}

/// A runtime whose guests have so much together, and a compiler for it.
fn engine(memory: usize) -> (Arc<Runtime>, Compiler) {
    let runtime = Runtime::with_memory(1, 32, memory).unwrap();
    let compiler = Compiler::new(runtime.clone(), code::command(), None, CompileLimits::default()).unwrap();
    (runtime, compiler)
}

async fn compiled(compiler: &Compiler, bytes: Vec<u8>) -> multinodes::code::Compiled {
    within(compiler.compile(&Code::from_bytes(bytes).unwrap(), &Budget::default())).await.unwrap()
}

#[tokio::test]
async fn globals_and_segments_count_for_whoever_has_a_smaller_limit() {
    let (runtime, compiler) = engine(1 << 30);
    for module in [globals(10_000), elements(10_000)] {
        let heavy = compiled(&compiler, repeated(&module, 10)).await;
        let instance = usize::try_from(heavy.vetted().instance).unwrap();
        assert!((1_600_000..4_000_000).contains(&instance), "{instance}");
        let once = async |memory| {
            let allowance = Allowance::new(limits(|limits| limits.memory = memory));
            within(run(&runtime, &heavy, vec![0x80], &allowance, Arc::new(Alone))).await
        };
        // A page of its own goes on top.
        assert_eq!(once(instance).await.unwrap_err(), GuestError::MemoryLimit { limit: instance });
        assert_eq!(once(1 << 20).await.unwrap_err(), GuestError::MemoryLimit { limit: 1 << 20 });
        once(instance + 65_536).await.unwrap();
    }
}

#[tokio::test]
async fn all_guests_together_have_a_limit_and_what_was_made_ahead_goes_first() {
    // Room for three that are small, with what the engine needs for each.
    let memory = 3 << 20;
    let (runtime, compiler) = engine(memory);
    let run_once = async |compiled: &multinodes::code::Compiled| {
        within(run(&runtime, compiled, vec![0x80], &Allowance::default(), Arc::new(Alone))).await
    };
    for number in 0..6 {
        let small = compiled(&compiler, repeated(&globals(number + 1), 1)).await;
        // Until one is made ahead: there is room for it, whatever was made ahead of other code.
        within(async {
            while !run_once(&small).await.unwrap().timings.ahead {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    let large = compiled(&compiler, repeated(&globals(10_000), 9)).await;
    assert!(u64::try_from(memory).unwrap() - large.vetted().instance < MIB);
    run_once(&large).await.unwrap();
    let larger = compiled(&compiler, repeated(&globals(10_000), 20)).await;
    assert_eq!(run_once(&larger).await.unwrap_err(), GuestError::NodeMemory { limit: memory, begun: false });
    run_once(&large).await.unwrap();
}

#[test]
fn parts_that_multiply_are_counted_without_being_made() {
    let refused = |bytes: &[u8]| vet(bytes, &Budget::default()).unwrap_err();
    for (bytes, expected) in [
        (names(2_000, 130), "names in types"),
        (doubled(9), "core instances"),
        (doubled(25), "core instances"),
        (repeated("", 128), "core instances"),
        (doubled(40), "components and modules within each other"),
    ] {
        assert!(
            matches!(refused(&bytes), CodeError::TooManyParts { what, .. } if what == expected),
            "{:?}",
            refused(&bytes)
        );
    }
    for bytes in [names(500, 20), doubled(5), repeated("", 100)] {
        vet(&bytes, &Budget::default()).unwrap();
    }
    // What is passed around cannot be counted where it is instantiated.
    let passed = wat::parse_str(
        "(component (component $c (import \"m\" (core module $m)) (core instance (instantiate $m)))
         (core module $m) (instance (instantiate $c (with \"m\" (core module $m)))))",
    );
    let CodeError::NotWasm { reason } = refused(&passed.unwrap()) else { panic!("it is taken") };
    assert!(reason.contains("passed around"), "{reason}");
}
