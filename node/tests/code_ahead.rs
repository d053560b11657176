//! Instances that are made before somebody asks for them.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod code;

use std::{sync::Arc, time::Duration};

use code::{Engine, guest, limits, within};
use multinodes::{
    GuestError, GuestLimits,
    code::{Allowance, Alone, Compiled, Outcome, run},
};

async fn once(engine: &Engine, compiled: &Compiled, limits: GuestLimits) -> Result<Outcome, GuestError> {
    within(run(&engine.runtime, compiled, vec![0x80], &Allowance::new(limits), Arc::new(Alone))).await
}

/// Runs it until an instance was there already: it is made after the answer before was given.
async fn until_one_was_ready(engine: &Engine, compiled: &Compiled) -> Outcome {
    loop {
        let outcome = once(engine, compiled, GuestLimits::default()).await.unwrap();
        if outcome.timings.ahead {
            return outcome;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_instance_that_was_made_ahead_is_as_fresh_as_any_other_and_is_used_once() {
    let engine = Engine::new();
    let compiled = engine.compile(&guest("fresh")).await.unwrap();
    for _ in 0..3 {
        let outcome = within(until_one_was_ready(&engine, &compiled)).await;
        assert_eq!(outcome.result, [1]);
    }
}

#[tokio::test]
async fn an_instance_that_was_made_ahead_keeps_to_the_limits_of_whoever_gets_it() {
    let engine = Engine::new();
    let compiled = engine.compile(&guest("fresh")).await.unwrap();
    within(until_one_was_ready(&engine, &compiled)).await;
    let error = once(&engine, &compiled, limits(|limits| limits.memory = 1 << 20)).await.unwrap_err();
    assert_eq!(error, GuestError::MemoryLimit { limit: 1 << 20 });
    let forever = engine.compile(&guest("forever")).await.unwrap();
    let cpu = Duration::from_millis(20);
    for _ in 0..3 {
        let error = once(&engine, &forever, limits(|limits| limits.cpu = cpu)).await.unwrap_err();
        assert_eq!(error, GuestError::CpuLimit { limit: cpu });
    }
}
