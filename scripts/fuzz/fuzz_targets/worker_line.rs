//! Lines of a served process: none of them breaks the node, and an answer is only what names the request under way.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[allow(dead_code, reason = "the node does more with it")]
#[path = "../../../node/src/cli/child/said.rs"]
mod said;
#[allow(dead_code, reason = "the node does more with it")]
#[path = "../../../node/src/cli/child/unreadable.rs"]
mod unreadable;

use said::{Heard, Said};

fuzz_target!(|line: &[u8]| {
    assert!(!matches!(said::read(line, None), Heard::Broken(_)), "nobody waits for an answer");
    match said::read(line, Some(7)) {
        Heard::Said(Said::Done { outcome: Err(error), .. }) => drop(error.of("action")),
        Heard::Unanswerable { id, .. } => {
            serde_json::from_str::<serde::de::IgnoredAny>(&id).expect("it goes back as JSON");
        }
        _ => {}
    }
});
