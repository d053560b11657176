//! What tests of guests share.
#![allow(unreachable_pub, reason = "each test program includes it as a module of its own")]
#![allow(dead_code, reason = "each test program uses a part of it")]

pub mod bombs;

use std::{
    future::Future,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use multinodes::{
    Code, CodeError, GuestError, GuestLimits,
    code::{
        Allowance, Alone, Budget, CompileLimits, Compiled, Compiler, CompilerHome, Outcome, Runtime, Surroundings, run,
    },
};
use tokio::{sync::Notify, time::timeout};

/// No test takes anywhere near so long: without optimisation the compiler needs seconds for a bomb.
pub const LIMIT: Duration = Duration::from_secs(60);

pub async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(LIMIT, future).await.expect("in time")
}

pub fn command() -> CompilerHome {
    CompilerHome::Command(PathBuf::from(env!("CARGO_BIN_EXE_multinodes")))
}

pub fn guest(name: &str) -> Code {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guests").join(name).with_extension("wat");
    Code::from_file(path).unwrap()
}

/// A runtime, and a compiler that keeps nothing on disk.
pub struct Engine {
    pub runtime: Arc<Runtime>,
    pub compiler: Compiler,
}

impl Engine {
    pub fn new() -> Self {
        let runtime = Runtime::new(2, 32).unwrap();
        let compiler = Compiler::new(runtime.clone(), command(), None, CompileLimits::default()).unwrap();
        Self { runtime, compiler }
    }

    pub async fn compile(&self, code: &Code) -> Result<Compiled, CodeError> {
        within(self.compiler.compile(code, &Budget::default())).await
    }

    pub async fn run(&self, name: &str, arguments: &[u8], limits: GuestLimits) -> Result<Outcome, GuestError> {
        self.run_among(name, arguments, limits, Arc::new(Alone)).await
    }

    pub async fn run_among(
        &self,
        name: &str,
        arguments: &[u8],
        limits: GuestLimits,
        surroundings: Arc<dyn Surroundings>,
    ) -> Result<Outcome, GuestError> {
        let compiled = self.compile(&guest(name)).await.unwrap();
        let allowance = Allowance::new(limits);
        within(run(&self.runtime, &compiled, arguments.to_vec(), &allowance, surroundings)).await
    }
}

/// Limits of which one is another.
pub fn limits(change: impl FnOnce(&mut GuestLimits)) -> GuestLimits {
    let mut limits = GuestLimits::default();
    change(&mut limits);
    limits
}

/// Gives the arguments back, or never answers, and notes what it was asked for.
#[derive(Default)]
pub struct Recorder {
    pub asked: Mutex<Vec<String>>,
    /// A guest has asked for a name.
    pub named: Notify,
    pub is_silent: bool,
}

impl Recorder {
    fn answer(&self, asked: String, answer: Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, String>> {
        let asked = format!("{asked} on {}", std::thread::current().name().unwrap_or_default());
        self.asked.lock().unwrap().push(asked);
        if self.is_silent { std::future::pending().boxed() } else { async { Ok(answer) }.boxed() }
    }
}

impl Surroundings for Recorder {
    fn call(
        &self,
        application: String,
        action: String,
        arguments: Vec<u8>,
    ) -> BoxFuture<'static, Result<Vec<u8>, String>> {
        self.answer(format!("{application}.{action}"), arguments)
    }

    fn tell(&self, application: String, _: Vec<u8>) -> BoxFuture<'static, Result<(), String>> {
        self.answer(application, Vec::new()).map(|answer| answer.map(drop)).boxed()
    }

    fn describe_node(&self) -> Vec<u8> {
        vec![0xa0]
    }

    fn log(&self, text: String) {
        self.asked.lock().unwrap().push(text);
    }

    fn this_name(&self) -> String {
        self.named.notify_one();
        "node".to_owned()
    }

    fn this_call(&self, action: String, arguments: Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, String>> {
        self.answer(action, arguments)
    }

    fn this_tell(&self, _: Vec<u8>) -> BoxFuture<'static, Result<(), String>> {
        async { Ok(()) }.boxed()
    }
}

/// A module that is small and takes the compiler minutes and gigabytes: many variables, each changed in many loops.
pub fn bomb(locals: usize, loops: usize) -> String {
    let variables = " i32".repeat(locals);
    let mut body = String::new();
    for number in 0..loops {
        let (one, other) = (number % locals + 2, (number * 7 + 3) % locals + 2);
        body += &format!(
            "(block (loop (br_if 1 (local.get {one})) (local.set {other} (i32.add (local.get {one}) (i32.const 1))) (br_if 0 (local.get {other})) "
        );
    }
    body += &"))".repeat(loops);
    let sum: String =
        (0..locals).map(|local| format!("(local.set 0 (i32.add (local.get 0) (local.get {})))", local + 2)).collect();
    format!(
        r#"(module (memory (export "memory") 1)
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
        (func (export "run") (param i32 i32) (result i32) (local{variables}) {body} {sum} (local.get 0)))"#
    )
}
