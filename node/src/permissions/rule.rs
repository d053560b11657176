//! Whether a peer is meant.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    str::FromStr,
    sync::Arc,
};

use libp2p::PeerId;

use super::{
    Caller,
    rule_file::{RuleFile, RuleFileError},
};
#[cfg(feature = "cel")]
use crate::predicate::{Predicate, PredicateError};

/// What every peer is.
const ANY: &str = "any";

/// What a file begins with.
const FILE: char = '@';

/// What peer ids begin with: those that are a short key, and those that are the hash of a long one.
const PEER_IDS: [&str; 2] = ["12D3KooW", "Qm"];

/// Says which peers are meant: one peer id, a condition, a function, or a file of rules.
///
/// As a text, as in `multinodes start --allow-peer`, it is one of these:
///
/// | text | means |
/// |---|---|
/// | `any` | every peer |
/// | `12D3KooW...` | the peer with that id |
/// | `@FILE` | whom one of the lines of the regular file means; `#` begins a comment. Read again when it changes |
/// | anything else | a condition in [CEL](https://cel.dev), with the feature `cel` |
///
/// A condition has at most 2 KiB, and the variables `peer.id` and `peer.labels` (texts by name: those that the peer has proven, not those it
/// gives itself), and for calls `application` and `action` (texts; `action` is empty for what is told). As in
/// [predicates](crate::AppRef::matching), a wrong text is refused when it is written, and a label that a peer lacks makes
/// the condition false. So it is of no use to deny `peer.labels.role != 'admin'`: whoever has no role at all is not meant.
/// Allow the others instead, or deny `!has(peer.labels.role) || peer.labels.role != 'admin'`.
///
/// ```
/// use multinodes::Rule;
///
/// # #[cfg(feature = "cel")] {
/// let admins = Rule::new("peer.labels.role == 'admin'")?;
/// assert!(Rule::new("peer.role == 'admin'").is_err());
/// # }
/// # Ok::<(), multinodes::RuleError>(())
/// ```
#[derive(Clone)]
pub struct Rule(Kind);

#[derive(Clone)]
enum Kind {
    Any,
    Peer(PeerId),
    #[cfg(feature = "cel")]
    Condition(Predicate),
    Function(Arc<dyn Fn(&Caller<'_>) -> bool + Send + Sync>),
    File(Arc<RuleFile>),
}

impl Rule {
    /// Reads the text of a rule, and the file if it names one.
    ///
    /// # Errors
    ///
    /// The text is none of the above, or its file cannot be used, see [`file`](Self::file).
    pub fn new(text: &str) -> Result<Self, RuleError> {
        match text.trim().strip_prefix(FILE) {
            Some(path) => Ok(Self::file(path)?),
            None => Self::plain(text),
        }
    }

    /// Every peer.
    #[must_use]
    pub fn any() -> Self {
        Self(Kind::Any)
    }

    /// Those peers that the function takes. It must not block: it runs where messages are received. One that panics
    /// permits nothing: it takes nobody who is to be allowed, and everybody who is to be denied.
    #[must_use]
    pub fn of(takes: impl Fn(&Caller<'_>) -> bool + Send + Sync + 'static) -> Self {
        Self(Kind::Function(Arc::new(takes)))
    }

    /// Those peers that a line of the file takes: a rule each, without further files; `#` begins a comment. The file is
    /// read again within 2 s when it changes; if it is wrong or gone then, what it said before holds.
    ///
    /// # Errors
    ///
    /// The file cannot be read now, is no regular file (a pipe cannot be read again), is over 1 MiB
    /// ([`MAX_RULE_FILE`](crate::MAX_RULE_FILE)), or has more than 256 conditions or a line that is no rule.
    pub fn file(path: impl AsRef<Path>) -> Result<Self, RuleFileError> {
        Ok(Self(Kind::File(Arc::new(RuleFile::open(path.as_ref())?))))
    }

    /// Reads a text that names no file.
    pub(super) fn plain(text: &str) -> Result<Self, RuleError> {
        let text = text.trim();
        if text == ANY {
            return Ok(Self::any());
        }
        if let Ok(peer_id) = PeerId::from_str(text) {
            return Ok(peer_id.into());
        }
        if text.starts_with(FILE) {
            return Err(RuleError::Nested);
        }
        if is_like_a_peer_id(text) {
            return Err(RuleError::PeerId { text: shortened(text) });
        }
        Self::condition(text)
    }

    #[cfg(feature = "cel")]
    fn condition(text: &str) -> Result<Self, RuleError> {
        Ok(Self(Kind::Condition(Predicate::of_peer(text)?)))
    }

    #[cfg(not(feature = "cel"))]
    fn condition(text: &str) -> Result<Self, RuleError> {
        Err(RuleError::Unreadable { text: shortened(text) })
    }

    /// Whether a peer is meant. A function is called; one that panics means nobody here.
    #[must_use]
    pub fn takes(&self, caller: &Caller<'_>) -> bool {
        self.judge(caller).unwrap_or(false)
    }

    /// Whether a peer is meant, or it cannot be told: nobody gets in because a rule is broken.
    pub(super) fn may_take(&self, caller: &Caller<'_>) -> bool {
        self.judge(caller).unwrap_or(true)
    }

    /// Nothing if its function has panicked.
    fn judge(&self, caller: &Caller<'_>) -> Option<bool> {
        match &self.0 {
            Kind::Any => Some(true),
            Kind::Peer(peer_id) => Some(peer_id == caller.peer_id),
            #[cfg(feature = "cel")]
            Kind::Condition(condition) => Some(condition.permits(caller)),
            Kind::Function(takes) => {
                let taken = catch_unwind(AssertUnwindSafe(|| takes(caller)));
                taken.inspect_err(|_| tracing::error!("the function of a rule panicked: it permits nothing")).ok()
            }
            Kind::File(file) => Some(file.rules().takes(caller)),
        }
    }

    /// Whether it looks at what a peer has to prove. A function may, and a file may after its next change.
    pub(crate) fn looks_at_labels(&self) -> bool {
        match &self.0 {
            Kind::Any | Kind::Peer(_) => false,
            #[cfg(feature = "cel")]
            Kind::Condition(condition) => condition.looks_at_labels(),
            Kind::Function(_) => true,
            Kind::File(file) => file.rules().look_at_labels(),
        }
    }

    /// Whether it looks at what is asked for, and so gives another answer for each action.
    pub(crate) fn looks_at_request(&self) -> bool {
        match &self.0 {
            Kind::Any | Kind::Peer(_) => false,
            #[cfg(feature = "cel")]
            Kind::Condition(condition) => condition.looks_at_request(),
            Kind::Function(_) => true,
            Kind::File(file) => file.rules().look_at_request(),
        }
    }

    /// Whether it surely looks at what is asked for: of no use for connections.
    pub(crate) fn is_about_requests(&self) -> bool {
        !matches!(self.0, Kind::Function(_)) && self.looks_at_request()
    }

    /// Whether it takes everybody, whatever is asked for.
    #[cfg(feature = "wasm")]
    pub(crate) fn is_any(&self) -> bool {
        matches!(self.0, Kind::Any)
    }

    pub(super) fn peer(&self) -> Option<&PeerId> {
        if let Kind::Peer(peer_id) = &self.0 { Some(peer_id) } else { None }
    }

    /// Whether it may say another thing when its file changes.
    #[cfg(feature = "wasm")]
    pub(crate) fn is_file(&self) -> bool {
        self.as_file().is_some()
    }

    pub(super) fn as_file(&self) -> Option<&Arc<RuleFile>> {
        if let Kind::File(file) = &self.0 { Some(file) } else { None }
    }
}

/// Whether a text can only be meant as a peer id: no condition looks like that.
fn is_like_a_peer_id(text: &str) -> bool {
    let is_fit = |letter: char| letter.is_ascii_alphanumeric() || letter == '.';
    PEER_IDS.iter().any(|beginning| text.starts_with(*beginning)) && text.chars().all(is_fit)
}

/// As much of a text as an error shows.
fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

impl From<PeerId> for Rule {
    fn from(peer_id: PeerId) -> Self {
        Self(Kind::Peer(peer_id))
    }
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        Self::new(text)
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Any => formatter.write_str(ANY),
            Kind::Peer(peer_id) => write!(formatter, "{peer_id}"),
            #[cfg(feature = "cel")]
            Kind::Condition(condition) => write!(formatter, "{condition}"),
            Kind::Function(_) => formatter.write_str("a function"),
            Kind::File(file) => write!(formatter, "{FILE}{}", file.path().display()),
        }
    }
}

/// Why a text is no rule.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// It begins like a peer id, and is none.
    #[error("`{text}` is no peer id, though it begins like one")]
    PeerId {
        /// The text, shortened.
        text: String,
    },
    /// It is no condition.
    #[cfg(feature = "cel")]
    #[error("neither `any` nor a peer id nor `@FILE`, and as a condition: {0}")]
    Condition(#[from] PredicateError),
    /// It is none of what is known without the feature `cel`.
    #[error("`{text}` is neither `any` nor a peer id nor `@FILE`; for conditions the feature `cel` is needed")]
    Unreadable {
        /// The text, shortened.
        text: String,
    },
    /// Its file cannot be used.
    #[error(transparent)]
    File(#[from] RuleFileError),
    /// A file names another file.
    #[error("a file of rules cannot name another file")]
    Nested,
    /// A rule for connections looks at what is called.
    #[error("`{rule}` looks at `application` or `action`, which nobody asks for who connects")]
    Request {
        /// The rule.
        rule: String,
    },
}
