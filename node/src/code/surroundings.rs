//! What a guest can reach.

use futures::{FutureExt, future::BoxFuture};

/// What a guest can reach of the node that runs it: made by whoever runs it, who also says who may reach what. All of it is
/// asked again at each use.
///
/// The futures run on the runtime that the guests' [`Runtime`](super::Runtime) was made on, not among the guests, and are
/// dropped with the request. Their errors are texts for the guest.
pub trait Surroundings: Send + Sync + 'static {
    /// Calls an action of an application anywhere, with CBOR arguments, and gives its result.
    fn call(
        &self,
        application: String,
        action: String,
        arguments: Vec<u8>,
    ) -> BoxFuture<'static, Result<Vec<u8>, String>>;

    /// Tells an application anywhere a CBOR value.
    fn tell(&self, application: String, message: Vec<u8>) -> BoxFuture<'static, Result<(), String>>;

    /// What the node says of itself, as CBOR. Must not block.
    fn describe_node(&self) -> Vec<u8>;

    /// Takes a line for the log, at most 4 KiB. Must not block.
    fn log(&self, text: String);

    /// The name of what the guest is bound to. Must not block.
    fn this_name(&self) -> String;

    /// Calls an action of what the guest is bound to.
    fn this_call(&self, action: String, arguments: Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, String>>;

    /// Tells what the guest is bound to.
    fn this_tell(&self, message: Vec<u8>) -> BoxFuture<'static, Result<(), String>>;
}

/// Nobody and nothing: a guest that can only compute.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

/// What it is told.
const NOBODY: &str = "there is nobody here";

/// Null.
const NOTHING: u8 = 0xf6;

impl Surroundings for Alone {
    fn call(&self, _: String, _: String, _: Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, String>> {
        async { Err(NOBODY.to_owned()) }.boxed()
    }

    fn tell(&self, _: String, _: Vec<u8>) -> BoxFuture<'static, Result<(), String>> {
        async { Err(NOBODY.to_owned()) }.boxed()
    }

    fn describe_node(&self) -> Vec<u8> {
        vec![NOTHING]
    }

    fn log(&self, _: String) {}

    fn this_name(&self) -> String {
        String::new()
    }

    fn this_call(&self, _: String, _: Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, String>> {
        async { Err(NOBODY.to_owned()) }.boxed()
    }

    fn this_tell(&self, _: Vec<u8>) -> BoxFuture<'static, Result<(), String>> {
        async { Err(NOBODY.to_owned()) }.boxed()
    }
}
