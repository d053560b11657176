//! Predicates: which hosts, or nodes, somebody wants, written in [CEL](https://cel.dev).
//!
//! A text is compiled once: [`compile`] bounds and checks it, and lets the interpreter count its steps ([`meter`]).
//! [`values`] is what an expression sees of a node and an application, [`matching`] keeps what came out for each record.
//!
//! The texts are written by the user of this node, what they look at by any peer: neither may panic, hang, or use up
//! the stack.

mod compile;
mod error;
pub(crate) mod matching;
mod meter;
mod values;

use std::{
    fmt,
    panic::{self, AssertUnwindSafe},
    sync::Arc,
    thread,
};

use cel::{Context, Value, common::types::CelBool};
use multinodes_behaviour::names;

pub use self::error::{PredicateError, PredicateFault};
use self::{
    compile::{Compiled, Scope},
    values::{Boxed, Subject, Variables},
};
use crate::{
    description::{ApplicationInfo, NodeInfo},
    permissions::Caller,
};

/// The longest predicate, in bytes.
pub const MAX_PREDICATE: usize = 2048;

/// The interpreter takes some 40 KiB of stack for each level of an expression when it is not optimised, a tenth of it
/// when it is: deeper ones than this, which nobody writes by hand, get a stack of their own.
const MAX_DEPTH_HERE: usize = 12;

/// The stack for deep expressions: the deepest ones need 2 MiB.
const DEEP_STACK: usize = 16 * 1024 * 1024;

/// A condition on a node, or on an application on a node, in [CEL](https://cel.dev): compiled once, cheap to clone.
///
/// | variable | what it has |
/// |---|---|
/// | `node` | `name`, `peer_id`, `version` (of the software), `labels` (texts by name), `load` (calls running there) |
/// | `app` | `name`, `version` (`null` if it has none), `load` (that of its node), `slots` (`null` if unlimited), `actions` (a list of names) |
/// | `description` | whatever the application says of itself on that node |
///
/// A wrong text is refused when it is written, with the position: bad syntax, unknown variables, fields of `node` and
/// `app` and functions that do not exist, and what cannot give a boolean, such as `1 + 1`. What depends on the host is
/// no error: a field that its description or its labels lack, a comparison of a text with a number, a result that is
/// no boolean, or more than 20,000 steps of work (a list of a few thousand entries can be searched) make that host not
/// match.
///
/// It has CEL's operators, `in`, `has()`, the macros `all`, `exists`, `exists_one`, `map` and `filter`, and of its
/// functions `size`, `contains`, `startsWith`, `endsWith`, `int`, `uint`, `double`, `string`, `bool`, `type` and `dyn`;
/// neither regular expressions nor dates. Labels are texts: `int(node.labels.gpus) >= 2`.
///
/// ```
/// use multinodes::Predicate;
///
/// let predicate = Predicate::new("description.gpu >= 1 && node.labels.region == 'eu'")?;
/// assert_eq!(predicate.to_string(), "description.gpu >= 1 && node.labels.region == 'eu'");
///
/// let error = Predicate::new("nod.name == 'alpha'").unwrap_err();
/// assert_eq!((error.line(), error.column()), (1, 1));
/// # Ok::<(), multinodes::PredicateError>(())
/// ```
#[derive(Clone)]
pub struct Predicate {
    text: Arc<str>,
    compiled: Arc<Compiled>,
}

impl Predicate {
    /// A condition on an application on a node: it may look at `node`, `app` and `description`.
    ///
    /// # Errors
    ///
    /// The text is no predicate, see [`PredicateError`].
    pub fn new(text: &str) -> Result<Self, PredicateError> {
        Self::compile(text, Scope::Host)
    }

    /// A condition on a node, whatever it hosts: it may look at `node` only.
    ///
    /// # Errors
    ///
    /// The text is no predicate, or looks at an application, see [`PredicateError`].
    pub fn of_node(text: &str) -> Result<Self, PredicateError> {
        Self::compile(text, Scope::Node)
    }

    /// Whether it is true of an application on a node.
    #[must_use]
    pub fn takes(&self, node: &NodeInfo, application: &ApplicationInfo) -> bool {
        self.is_true_of(&Subject::of(node, application))
    }

    /// Whether it is true of a node. One that looks at an application is true of none.
    #[must_use]
    pub fn takes_node(&self, node: &NodeInfo) -> bool {
        self.is_true_of(&Subject { node, application: None })
    }

    /// Whether it looks at what changes from one sign of life to the next.
    pub(crate) fn looks_at_load(&self) -> bool {
        self.compiled.looks_at_load
    }

    /// A condition on a peer that wants something: see [`Rule`](crate::Rule).
    pub(crate) fn of_peer(text: &str) -> Result<Self, PredicateError> {
        Self::compile(text, Scope::Peer)
    }

    /// Whether it is true of who asks for what.
    pub(crate) fn permits(&self, caller: &Caller<'_>) -> bool {
        self.is_true(&|used| caller.values(used))
    }

    /// Whether it looks at what a peer has to prove.
    pub(crate) fn looks_at_labels(&self) -> bool {
        self.compiled.looks_at_labels
    }

    /// Whether it looks at what is asked for.
    pub(crate) fn looks_at_request(&self) -> bool {
        self.compiled.variables.request
    }

    fn compile(text: &str, scope: Scope) -> Result<Self, PredicateError> {
        // Names and labels are in this form: what looks like one of them is to be equal to it.
        let text = &*names::normal(text);
        let compiled = compile::compile(text, scope)?;
        Ok(Self { text: text.into(), compiled: Arc::new(compiled) })
    }

    fn is_true_of(&self, subject: &Subject<'_>) -> bool {
        self.is_true(&|used| subject.values(used))
    }

    fn is_true<'a>(&self, values: &(impl Fn(&Variables) -> Vec<(&'static str, Boxed<'a>)> + Sync)) -> bool {
        if self.compiled.depth <= MAX_DEPTH_HERE {
            // No panic of the interpreter is known; if there is one it is not our caller's.
            return panic::catch_unwind(AssertUnwindSafe(|| self.evaluate(values))).unwrap_or(false);
        }
        thread::scope(|threads| {
            let evaluation = thread::Builder::new().name("predicate".to_owned()).stack_size(DEEP_STACK);
            let evaluation = evaluation.spawn_scoped(threads, || self.evaluate(values));
            evaluation.is_ok_and(|evaluation| evaluation.join().unwrap_or(false))
        })
    }

    fn evaluate<'a>(&self, values: &impl Fn(&Variables) -> Vec<(&'static str, Boxed<'a>)>) -> bool {
        let values = values(&self.compiled.variables);
        let mut context = Context::with_env(compile::environment().clone());
        for (name, value) in values {
            context.add_variable_as_val(name, value);
        }
        meter::within_budget(|| match Value::resolve_val(&self.compiled.expression, &context) {
            Ok(value) => value.downcast_ref::<CelBool>().is_some_and(|value| *value.inner()),
            Err(_) => false,
        })
    }
}

impl fmt::Display for Predicate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl fmt::Debug for Predicate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Predicate").field(&self.text).finish()
    }
}

impl std::str::FromStr for Predicate {
    type Err = PredicateError;

    fn from_str(text: &str) -> Result<Self, PredicateError> {
        Self::new(text)
    }
}

#[cfg(test)]
mod tests;
