//! The same code from several nodes at once: it travels once, and all of them get what they asked for.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod code;
#[path = "common/in_process.rs"]
mod in_process;

use std::{fs, path::Path};

use code::within;
use futures::future::join_all;
use in_process::in_process;
use multinodes::Code;

/// Echo, with three megabytes that it does not need: too many to go along with a request.
fn large() -> Code {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guests/echo.wat")).unwrap();
    let ballast = format!(r#"(memory (export "memory") 64) (data (i32.const 65536) "{}")"#, "x".repeat(3 << 20));
    Code::from_bytes(text.replace(r#"(memory (export "memory") 1)"#, &ballast)).unwrap()
}

#[tokio::test]
async fn nobody_is_sent_away_because_the_same_code_is_on_its_way_from_another_node() {
    let (alpha, address) = in_process("alpha");
    let alpha = alpha.compiler(env!("CARGO_BIN_EXE_multinodes")).allow_code("any:size=8MiB".parse().unwrap());
    let _alpha = alpha.start().await.unwrap();
    let large = large();
    let runs = (0..6).map(|number| {
        let builder = in_process(&format!("sender-{number}")).0.join(&address);
        let large = large.clone();
        async move {
            let sender = builder.start().await.unwrap();
            within(sender.wait_for_node("alpha")).await.unwrap();
            let run = sender.run(&large).on("alpha").timeout(code::LIMIT);
            within(run.call::<Vec<usize>>((number,))).await
        }
    });
    for (number, result) in join_all(runs).await.into_iter().enumerate() {
        assert_eq!(result.unwrap(), [number]);
    }
}
