//! The time that a guest computes is what its threads have worked, however long one of its instructions lasts.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod code;

use std::time::Duration;

use code::{Engine, limits};
use multinodes::GuestError;

/// An empty list in CBOR.
const ARGUMENTS: &[u8] = &[0x80];

#[tokio::test]
async fn instructions_that_last_longer_than_a_tick_of_the_clock_count_for_what_they_last() {
    let engine = Engine::new();
    let (cpu, wall) = (Duration::from_secs(1), Duration::from_secs(5));
    // By the ticks alone it would compute for some milliseconds each, and meet the other limit first.
    let error = engine.run("filling", ARGUMENTS, limits(|limits| (limits.cpu, limits.wall) = (cpu, wall))).await;
    assert_eq!(error.unwrap_err(), GuestError::CpuLimit { limit: cpu });
}
