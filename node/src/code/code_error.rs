//! Why code is not taken.

use std::{io, path::PathBuf, time::Duration};

use super::{
    cid::Cid,
    code_ref::{MAX_CODE_NAME, World},
    rate::Rate,
};
use crate::length::length;

/// Why code is refused, or cannot be made ready to run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodeError {
    /// A file cannot be read.
    #[error("the file `{}` cannot be read: {reason}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// Neither WebAssembly, nor its text form, or damaged.
    #[error("it is not WebAssembly: {reason}")]
    NotWasm {
        /// What is wrong, and where.
        reason: String,
    },
    /// A module for something else, that cannot be made a component.
    #[error("the module cannot be made a component of this package's world: {reason}")]
    NotAComponent {
        /// What is missing or wrong.
        reason: String,
    },
    /// It exports neither what a task nor what an application must.
    #[error("it is of the wrong world: {reason}")]
    WrongWorld {
        /// What is missing or wrong.
        reason: String,
    },
    /// It wants something that no node has.
    #[error("it imports `{import}`, which no node has")]
    UnknownImport {
        /// The interface, or the function of one.
        import: String,
    },
    /// More bytes than are taken.
    #[error("its {size} bytes are more than the limit of {limit}")]
    TooLarge {
        /// In bytes.
        size: u64,
        /// In bytes.
        limit: u64,
    },
    /// A shape that would take the compiler far more than its size lets expect.
    #[error("its shape costs the compiler too much: {cost} is more than the limit of {limit} for {what}")]
    TooComplex {
        /// One function, or all of them.
        what: &'static str,
        /// Local variables times branches.
        cost: u64,
        /// The most that is taken.
        limit: u64,
    },
    /// Parts that are instantiated more often than is taken.
    #[error("it has {count} {what} or more, and {limit} are taken")]
    TooManyParts {
        /// What there are too many of.
        what: &'static str,
        /// How many there are, as far as was counted.
        count: u64,
        /// The most that is taken.
        limit: u64,
    },
    /// An instance takes more memory than it may have, before it has any of its own.
    #[error(
        "the globals, functions and segments of one instance take {bytes} bytes, more than its limit of {limit} bytes of memory"
    )]
    TooHeavy {
        /// In bytes.
        bytes: u64,
        /// In bytes.
        limit: u64,
    },
    /// The code of its sender has had the compiler for as long as it may, by now.
    #[error("the code of this sender has had the compiler for {rate}, which is its limit: wait {} s", .wait.as_secs() + 1)]
    CompileRate {
        /// The limit for all code of one sender.
        rate: Rate,
        /// Until some may be compiled again.
        wait: Duration,
    },
    /// Too much waits for the compiler.
    #[error("{waiting} pieces of code wait for the compiler already, which is the limit{}", if *.own { " for one sender" } else { "" })]
    CompilerBusy {
        /// How many wait.
        waiting: usize,
        /// They are of the same sender.
        own: bool,
    },
    /// The compiler was stopped because it took too much.
    #[error("compiling it takes more than {memory} bytes of memory or {}", length(*.cpu))]
    CompileLimit {
        /// The most memory that the compiler may take, in bytes.
        memory: u64,
        /// The most time that the compiler may take.
        cpu: Duration,
    },
    /// The compiler does not take it.
    #[error("it cannot be compiled: {reason}")]
    Compile {
        /// What the compiler says.
        reason: String,
    },
    /// The compiler itself does not work.
    #[error("the compiler does not work: {reason}")]
    Compiler {
        /// What is wrong.
        reason: String,
    },
    /// The bytes are not those that the name means.
    #[error("the bytes are `{actual}` and not `{expected}`")]
    WrongHash {
        /// What was asked for.
        expected: Cid,
        /// What it is.
        actual: Cid,
    },
    /// It is not what its description says.
    #[error("it is {actual} and not {expected}")]
    Misdescribed {
        /// What it is said to be.
        expected: World,
        /// What it is.
        actual: World,
    },
    /// The name is empty, too long, or has control characters.
    #[error("`{name}` cannot name code: 1 to {MAX_CODE_NAME} bytes of {} can", multinodes_behaviour::names::RULE)]
    Name {
        /// The name, shortened.
        name: String,
    },
    /// The version cannot be compared with others.
    #[error("`{version}` is no version such as `1.2.3`")]
    Version {
        /// The version, shortened.
        version: String,
    },
    /// The signature is not that of its publisher.
    #[error("the signature is not that of its publisher")]
    BadSignature,
    /// The key cannot sign.
    #[error("the key cannot sign: {reason}")]
    Unsigned {
        /// What is wrong with it.
        reason: String,
    },
}

/// What errors count: the names are passed on by the process that looks at code, and read by the node.
pub(super) mod counted {
    pub(in crate::code) const ONE_FUNCTION: &str = "one function";
    pub(in crate::code) const ALL_FUNCTIONS: &str = "all functions";
    pub(in crate::code) const NESTED: &str = "components and modules within each other";
    pub(in crate::code) const CORE_INSTANCES: &str = "core instances";
    pub(in crate::code) const COMPONENT_INSTANCES: &str = "instances of components";
    pub(in crate::code) const NAMES: &str = "names in types";

    /// All of them.
    pub(in crate::code) const EACH: [&str; 6] =
        [ONE_FUNCTION, ALL_FUNCTIONS, NESTED, CORE_INSTANCES, COMPONENT_INSTANCES, NAMES];
}

impl CodeError {
    pub(crate) fn unreadable(path: &std::path::Path, error: &io::Error) -> Self {
        Self::Unreadable { path: path.to_owned(), reason: error.to_string() }
    }

    pub(crate) fn not_wasm(reason: impl std::fmt::Display) -> Self {
        Self::NotWasm { reason: shorten(reason) }
    }

    pub(crate) fn compiler(reason: impl std::fmt::Display) -> Self {
        Self::Compiler { reason: shorten(reason) }
    }

    /// Whether the same bytes will be refused again, so that nobody needs to look at them twice.
    pub(crate) fn is_lasting(&self) -> bool {
        !matches!(
            self,
            Self::Compiler { .. }
                | Self::Unreadable { .. }
                | Self::Unsigned { .. }
                | Self::CompileRate { .. }
                | Self::CompilerBusy { .. }
        )
    }
}

/// Texts that quote foreign bytes are cut: a name in a component may be long.
pub(crate) fn shorten(text: impl std::fmt::Display) -> String {
    const MOST: usize = 500;
    let text = text.to_string();
    if text.chars().count() > MOST { text.chars().take(MOST).chain("...".chars()).collect() } else { text }
}
