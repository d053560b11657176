//! Nodes that take code, those that send it, and what is sent. Beside `code` and `in_process`, which it needs.
#![allow(unreachable_pub, reason = "each test program includes it as a module of its own")]
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use multinodes::{Actions, Builder, CallError, Cid, Code, CodeRef, CodeRule, Node};
use serde::de::DeserializeOwned;
use serde_bytes::ByteBuf;
use tokio::sync::Semaphore;

use crate::{
    code::{guest, within},
    in_process::in_process,
};

/// Under this name nodes ask each other for code.
pub const SERVICE: &str = "multinodes/code";

pub fn rule(text: &str) -> CodeRule {
    text.parse().unwrap()
}

pub fn compiling(name: &str) -> (Builder, String) {
    let (builder, address) = in_process(name);
    (builder.compiler(env!("CARGO_BIN_EXE_multinodes")), address)
}

/// A node that takes no code, and knows alpha.
pub async fn joined(name: &str, address: &str) -> Node {
    knowing_alpha(compiling(name).0.join(address)).await
}

/// Starts a node and waits until it knows alpha.
pub async fn knowing_alpha(builder: Builder) -> Node {
    let node = builder.start().await.unwrap();
    within(node.wait_for_node("alpha")).await.unwrap();
    node
}

/// Alpha, which takes code by these rules, and beta, which sends it.
pub async fn two(rules: &[&str]) -> (Node, Node) {
    let (builder, address) = compiling("alpha");
    let builder = rules.iter().fold(builder, |builder, text| builder.allow_code(rule(text)));
    let alpha = builder.start().await.unwrap();
    (alpha, joined("beta", &address).await)
}

/// Alpha answers, and runs what is honest.
pub async fn serves(beta: &Node) {
    answers(beta).await;
    let back: Vec<i64> = within(beta.run(&guest("echo")).on("alpha").call((1, 2))).await.unwrap();
    assert_eq!(back, [1, 2]);
}

/// Alpha answers a call to what is no guest.
pub async fn answers(beta: &Node) {
    within(beta.app("node").on("alpha").call::<u64>("ping", ())).await.unwrap();
}

/// What the application says, as its code and its text.
pub fn failed<T: std::fmt::Debug>(result: Result<T, CallError>) -> (String, String) {
    match result.unwrap_err() {
        CallError::Failed { code, message, .. } => (code, message),
        error => panic!("{error:?}"),
    }
}

/// What a program says that keeps to no rules.
pub async fn raw<R: DeserializeOwned>(node: &Node, reference: &CodeRef, bytes: Option<&[u8]>) -> Result<R, CallError> {
    within(node.app(SERVICE).on("alpha").call("run", run_arguments(reference, bytes))).await
}

/// What `run` of the service takes, for a task without arguments.
pub fn run_arguments(reference: &CodeRef, bytes: Option<&[u8]>) -> (CodeRef, Option<ByteBuf>, Option<String>, ByteBuf) {
    (reference.clone(), bytes.map(|bytes| ByteBuf::from(bytes.to_vec())), None, ByteBuf::from(vec![0x80]))
}

/// Some code, described as it is not.
pub fn lie(code: &Code, key: &str, value: impl serde::Serialize) -> CodeRef {
    let mut told = serde_json::to_value(code.reference()).unwrap();
    told[key] = serde_json::to_value(value).unwrap();
    serde_json::from_value(told).unwrap()
}

/// A guest that may `call`, with some text in its memory from 16 on.
pub fn calling(data: &str, exports: &str) -> Code {
    Code::from_bytes(format!(
        r#"(module
        (import "multinodes:guest/host@0.1.0" "call" (func $call (param i32 i32 i32 i32 i32 i32 i32)))
        (memory (export "memory") 1)
        (global $free (mut i32) (i32.const 4096))
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
          (global.get $free)
          (global.set $free (i32.add (global.get $free) (i32.and (i32.add (local.get 3) (i32.const 7)) (i32.const -8)))))
        (data (i32.const 16) "{data}")
        {exports})"#
    ))
    .unwrap()
}

/// A guest that asks `application` for `action` with its own arguments, and gives the answer: a task, or one that stays.
pub fn asking(application: &str, action: &str) -> (Code, Code) {
    let (at, lengths) = (16 + application.len(), (application.len(), action.len()));
    let ask = |pointer: &str, length: &str| {
        let (one, other) = lengths;
        format!(
            "(call $call (i32.const 16) (i32.const {one}) (i32.const {at}) (i32.const {other}) {pointer} {length} (i32.const 0)) (i32.const 0)"
        )
    };
    let module = |exports: String| calling(&format!("{application}{action}"), &exports);
    let task = ask("(local.get 0)", "(local.get 1)");
    let handle = ask("(local.get 2)", "(local.get 3)");
    (
        module(format!(r#"(func (export "run") (param i32 i32) (result i32) {task})"#)),
        module(format!(
            r#"(func (export "start") (param i32 i32) (result i32) (i32.const 0))
            (func (export "handle") (param i32 i32 i32 i32) (result i32) {handle})
            (func (export "process") (param i32 i32) (result i32) (i32.const 0))"#
        )),
    )
}

/// The application `gate`, in which guests wait until they are let through.
pub struct Gate {
    came: Arc<Semaphore>,
    go: Arc<Semaphore>,
}

impl Gate {
    pub fn of(node: &Node) -> Self {
        let (came, go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let gate = Self { came: came.clone(), go: go.clone() };
        let pass = move |()| {
            let (came, go) = (came.clone(), go.clone());
            async move {
                came.add_permits(1);
                go.acquire().await.unwrap().forget();
            }
        };
        node.register("gate", Actions::new().action("pass", pass)).unwrap();
        gate
    }

    /// A guest waits in it.
    pub async fn came(&self) {
        within(self.came.acquire()).await.unwrap().forget();
    }

    /// Lets one through: the one that waits, or the next.
    pub fn open(&self) {
        self.go.add_permits(1);
    }

    /// A guest that may go through it, by `$pass`; 0 lies at 0 if it could.
    pub fn guest(exports: &str) -> Code {
        let pass = r#"(func $pass
          (call $call (i32.const 16) (i32.const 4) (i32.const 20) (i32.const 4) (i32.const 24) (i32.const 1) (i32.const 0)))"#;
        calling("gatepass\\80", &format!("{pass}{exports}"))
    }
}

/// Echo, with three megabytes that it does not need.
pub fn large() -> Code {
    ballast(include_str!("../guests/echo.wat"))
}

/// A guest, with three megabytes that it does not need.
pub fn ballast(text: &str) -> Code {
    let ballast = format!(r#"(data (i32.const 65536) "{}")"#, "ballast!".repeat(3 << 17));
    let text = text.replace(r#"(memory (export "memory") 1)"#, &format!(r#"(memory (export "memory") 64) {ballast}"#));
    let code = Code::from_bytes(text).unwrap();
    assert!(code.size() > 3 << 20);
    code
}

/// The file in which a node keeps some code, or a part of it.
pub fn file(data: &Path, cid: Cid, extension: &str) -> PathBuf {
    fs::create_dir_all(data.join("code")).unwrap();
    data.join("code").join(format!("{cid}.{extension}"))
}
