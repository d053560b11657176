//! The verbs for code in a build without the feature `wasm`: `cargo test -p multinodes --test command_without_code`.
#![cfg(not(feature = "wasm"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::Swarm;

#[test]
fn a_build_without_the_feature_says_which_command_installs_one_that_has_it() {
    let swarm = Swarm::new();
    for arguments in [
        &["run", "task.wasm", "27", "--node", "beta"][..],
        &["run", "--app", "calculator", "task.wasm"],
        &["run"],
        &["code", "ls", "--data", "kept"],
        &["start", "--until-stdin-closes", "--allow-code", "any"],
        &["start", "--until-stdin-closes", "--data", "kept"],
    ] {
        let outcome = swarm.run(arguments).expect(2);
        assert!(
            outcome.stderr.contains("`cargo install --locked --path node --features wasm`"),
            "{arguments:?}: {outcome:?}"
        );
    }
    swarm.run(&["run", "--help"]).expect(0);
}
