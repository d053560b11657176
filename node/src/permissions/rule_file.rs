//! A file of rules, one a line, that may change while the node runs.

use std::{
    collections::HashSet,
    fs::OpenOptions,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use arc_swap::ArcSwap;
use libp2p::PeerId;
use multinodes_behaviour::quick_hash::QuickHash;

use super::{Caller, Rule, RuleError};
use crate::files;

/// The largest file of rules, in bytes: some 18,000 peer ids.
pub const MAX_RULE_FILE: u64 = 1024 * 1024;

/// The most lines that are conditions: each may be evaluated for each peer. Peer ids are looked up.
const MAX_CONDITIONS: usize = 256;

/// A file of rules, and what it said when it was last right.
pub(super) struct RuleFile {
    path: PathBuf,
    rules: ArcSwap<Rules>,
    /// How the file looked when it was last read, right or wrong.
    seen: Mutex<Option<Look>>,
}

/// The lines of a file.
#[derive(Default)]
pub(super) struct Rules {
    peers: HashSet<PeerId, QuickHash>,
    others: Vec<Rule>,
}

/// By what a change is noticed. The content itself is read only then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look {
    size: u64,
    modified: Option<SystemTime>,
    inode: u64,
}

impl RuleFile {
    pub(super) fn open(path: &Path) -> Result<Self, RuleFileError> {
        let (rules, look) = read(path)?;
        Ok(Self { path: path.to_owned(), rules: ArcSwap::from_pointee(rules), seen: Mutex::new(Some(look)) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn rules(&self) -> Arc<Rules> {
        self.rules.load_full()
    }

    /// Reads it again if it looks different; whether there is something new.
    pub(super) fn reload(&self) -> bool {
        let look = std::fs::metadata(&self.path).ok().as_ref().map(look);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == look {
            return false;
        }
        // What was half written is looked at again when it changes once more.
        *seen = look;
        match read(&self.path) {
            Ok((rules, look)) => {
                *seen = Some(look);
                self.rules.store(Arc::new(rules));
                tracing::info!(file = %self.path.display(), "the rules were read again");
                true
            }
            Err(error) => {
                tracing::error!(%error, "the rules that were there before still hold");
                false
            }
        }
    }
}

impl Rules {
    pub(super) fn takes(&self, caller: &Caller<'_>) -> bool {
        self.peers.contains(caller.peer_id) || self.others.iter().any(|rule| rule.takes(caller))
    }

    pub(super) fn look_at_labels(&self) -> bool {
        self.others.iter().any(Rule::looks_at_labels)
    }

    pub(super) fn look_at_request(&self) -> bool {
        self.others.iter().any(Rule::looks_at_request)
    }
}

fn read(path: &Path) -> Result<(Rules, Look), RuleFileError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::FileTooLarge => RuleFileError::TooLong { path: path.to_owned() },
        io::ErrorKind::InvalidInput => RuleFileError::Irregular { path: path.to_owned() },
        _ => RuleFileError::Io { path: path.to_owned(), source },
    };
    let file = files::open_regular(path, OpenOptions::new().read(true)).map_err(failed)?;
    let look = look(&file.metadata().map_err(failed)?);
    let bytes = files::bounded(&file, MAX_RULE_FILE).map_err(failed)?;
    let text =
        std::str::from_utf8(&bytes).map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))?;
    Ok((parse(path, text)?, look))
}

fn parse(path: &Path, text: &str) -> Result<Rules, RuleFileError> {
    let mut rules = Rules::default();
    // Some editors put a byte order mark before a text.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (index, line) in text.lines().enumerate() {
        let wrong = |error| RuleFileError::Line { path: path.to_owned(), line: index + 1, error: Box::new(error) };
        let line = without_comment(line).trim();
        if line.is_empty() {
            continue;
        }
        let rule = Rule::plain(line).map_err(wrong)?;
        match rule.peer() {
            Some(peer_id) => {
                rules.peers.insert(*peer_id);
            }
            None if rules.others.len() >= MAX_CONDITIONS => {
                return Err(RuleFileError::TooMany { path: path.to_owned() });
            }
            None => rules.others.push(rule),
        }
    }
    Ok(rules)
}

/// What is before a `#` that is not within quotes.
fn without_comment(line: &str) -> &str {
    let mut quote = None;
    for (index, character) in line.char_indices() {
        match (quote, character) {
            (None, '#') => return &line[..index],
            (None, '\'' | '"') => quote = Some(character),
            (Some(open), _) if open == character => quote = None,
            _ => {}
        }
    }
    line
}

fn look(metadata: &std::fs::Metadata) -> Look {
    #[cfg(unix)]
    let inode = std::os::unix::fs::MetadataExt::ino(metadata);
    #[cfg(not(unix))]
    let inode = 0;
    Look { size: metadata.len(), modified: metadata.modified().ok(), inode }
}

/// Why a file of rules is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuleFileError {
    /// It cannot be read.
    #[error("the file of rules `{}` cannot be read: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is a pipe, a folder or a device: nothing that can be read again when it changes.
    #[error("the file of rules `{}` is no regular file", .path.display())]
    Irregular {
        /// The file.
        path: PathBuf,
    },
    /// It is too long.
    #[error("the file of rules `{}` has more than {MAX_RULE_FILE} bytes", .path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// It has too many conditions.
    #[error("the file of rules `{}` has more than {MAX_CONDITIONS} conditions; peer ids are not counted", .path.display())]
    TooMany {
        /// The file.
        path: PathBuf,
    },
    /// One of its lines is no rule.
    #[error("line {line} of `{}`: {error}", .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        error: Box<RuleError>,
    },
}
