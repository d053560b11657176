//! What is counted of an instance before it is made is what the engine takes for it. By itself in its process: it looks at
//! the memory of all of it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![cfg(target_os = "linux")]

mod code;
#[path = "common/processes.rs"]
mod processes;

use std::sync::Arc;

use code::{
    Engine, LIMIT,
    bombs::{elements, globals, repeated, task},
    limits, within,
};
use multinodes::{
    Code,
    code::{Allowance, Alone, Budget, run},
};
use processes::{forget_peak, peak};

/// Modules in one component.
const TIMES: usize = 100;

/// What an engine takes besides, for its stacks and for what is the same for all instances.
const BESIDES: u64 = 4 << 20;

fn each(count: usize, of: impl Fn(usize) -> String) -> String {
    (0..count).map(of).collect()
}

#[tokio::test]
async fn no_more_is_taken_for_an_instance_than_was_counted() {
    let exported = each(5_000, |number| format!(r#"(func (export "f{number}"))"#));
    let imported = each(500, |number| format!(r#"(import "a" "f{number}" (func))"#));
    let few = each(500, |number| format!(r#"(func (export "f{number}"))"#));
    let importing = format!(
        r#"(core module $a {few}) (core instance $i (instantiate $a)) (core module $m {imported})
        {}"#,
        r#"(core instance (instantiate $m (with "a" (instance $i))))"#.repeat(TIMES)
    );
    let all = [
        ("globals", repeated(&globals(20_000), TIMES)),
        ("elements", repeated(&elements(30_000), TIMES)),
        ("segments", repeated(&format!("(func $f) {}", "(elem func)".repeat(20_000)), TIMES)),
        ("data", repeated(&format!("(memory 0) {}", r#"(data "")"#.repeat(20_000)), TIMES)),
        (
            "active",
            repeated(&format!("(table 30000 funcref) (func $f) (elem (i32.const 0) {})", "$f ".repeat(30_000)), TIMES),
        ),
        ("functions", repeated(&exported, TIMES)),
        ("imports", task(&importing)),
        ("tables", repeated("(table 0 funcref)", TIMES)),
        ("memories", repeated("(memory 0)", TIMES)),
        ("nothing", repeated("", TIMES)),
    ];
    let engine = Engine::new();
    for (what, bytes) in all {
        let code = Code::from_bytes(bytes).unwrap();
        let mut budget = Budget::default();
        budget.size = 16 << 20;
        budget.instance = u64::MAX;
        let compiled = within(engine.compiler.compile(&code, &budget)).await.unwrap();
        let counted = compiled.vetted().instance;
        forget_peak();
        let before = peak(std::process::id());
        // Memory is what is looked at: on a busy machine the time is not.
        let allowance = Allowance::new(limits(|limits| {
            limits.memory = 1 << 30;
            limits.wall = LIMIT;
            limits.cpu = LIMIT;
        }));
        within(run(&engine.runtime, &compiled, vec![0x80], &allowance, Arc::new(Alone))).await.unwrap();
        let taken = peak(std::process::id()).saturating_sub(before);
        assert!(taken <= counted + BESIDES, "{what}: {counted} bytes were counted, {taken} taken");
    }
}
