//! What may be a name: of nodes, applications, actions, topics, flows and code by one rule, and of swarms by a narrower
//! one, as a swarm's name is in every protocol id and topic.

use std::{borrow::Cow, fmt, str::FromStr, sync::Arc};

use libp2p::{StreamProtocol, gossipsub::IdentTopic};
use unicode_normalization::{UnicodeNormalization, char::is_combining_mark, is_nfc};
use unicode_security::{GeneralSecurityProfile, RestrictionLevel, RestrictionLevelDetection, skeleton};

/// The rule for names, for people.
pub const RULE: &str = "visible ASCII, and letters and digits of one script";

/// So much of a name that is wrong is shown, in characters.
const SHOWN: usize = 80;

/// The form in which a name is compared and sent: NFC, so that there are no two of what looks the same.
#[must_use]
pub fn normal(name: &str) -> Cow<'_, str> {
    if name.is_ascii() || is_nfc(name) { Cow::Borrowed(name) } else { Cow::Owned(name.nfc().collect()) }
}

/// The same of a name of one's own: one that is so already is not copied.
#[must_use]
pub fn into_normal(name: String) -> String {
    match normal(&name) {
        Cow::Borrowed(_) => name,
        Cow::Owned(name) => name,
    }
}

/// Checks a name of 1 to `limit` bytes: visible ASCII characters, single blanks between others, and beside them letters,
/// marks and digits that Unicode recommends for identifiers, of one script or as in UTS 39, "Highly Restrictive", in NFC.
/// So nothing in it is invisible, and letters of one script do not pass for those of another. `what` is what is named.
///
/// # Errors
///
/// Says which character breaks it, or what else.
pub fn check(what: &'static str, name: &str, limit: usize) -> Result<(), BadName> {
    match fault(name, limit) {
        None => Ok(()),
        Some(reason) => {
            let shown: String = name.chars().take(SHOWN).collect();
            Err(BadName { what, name: printable(&shown), reason })
        }
    }
}

/// Checks the name of a node, which has no blanks either.
///
/// # Errors
///
/// As those of [`check`].
pub fn check_node(name: &str, limit: usize) -> Result<(), BadName> {
    check("a node", name, limit)?;
    if name.contains(' ') {
        let reason = "it has a blank (U+0020)".to_owned();
        return Err(BadName { what: "a node", name: printable(name), reason });
    }
    Ok(())
}

fn fault(name: &str, limit: usize) -> Option<String> {
    if name.is_empty() {
        return Some("it is empty".to_owned());
    }
    if name.len() > limit {
        return Some(format!("it has {} bytes, the limit is {limit}", name.len()));
    }
    if name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    if name.starts_with(' ') || name.ends_with(' ') || name.contains("  ") {
        return Some("a blank (U+0020) stands alone between others, not at an end".to_owned());
    }
    let allowed = |letter: &char| match letter.is_ascii() {
        true => letter.is_ascii_graphic() || *letter == ' ',
        false => GeneralSecurityProfile::identifier_allowed(*letter),
    };
    if let Some(letter) = name.chars().find(|letter| !allowed(letter)) {
        return Some(format!("U+{:04X} is not among {RULE}", u32::from(letter)));
    }
    if !is_nfc(name) {
        return Some("it is not in the normal form NFC".to_owned());
    }
    let mut before = ' ';
    for letter in name.chars() {
        if is_combining_mark(letter) && !before.is_alphanumeric() && !is_combining_mark(before) {
            return Some(format!("the mark U+{:04X} is not behind a letter", u32::from(letter)));
        }
        before = letter;
    }
    let letters: String = name.chars().filter(|letter| letter.is_alphanumeric() || !letter.is_ascii()).collect();
    if letters.detect_restriction_level() > RestrictionLevel::HighlyRestrictive {
        return Some("it mixes scripts whose letters look alike".to_owned());
    }
    let foreign = !letters.is_ascii() && !letters.chars().any(|letter| letter.is_ascii_alphabetic());
    if foreign && !letters.chars().any(is_latin) && skeleton(&letters).all(|letter| letter.is_ascii()) {
        return Some(format!("it looks like `{}`", skeleton(name).take(SHOWN).collect::<String>()));
    }
    None
}

/// Letters of Latin alphabets beside ASCII: they may look like each other, but nobody mixes alphabets with them.
fn is_latin(letter: char) -> bool {
    matches!(letter, '\u{c0}'..='\u{24f}' | '\u{1e00}'..='\u{1eff}')
}

/// `text` without anything that a terminal would obey or not show: other nodes choose their names and texts.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut clean, letter| {
        match letter {
            '\n' => clean.push(' '),
            letter if letter.is_control() || is_hidden(letter) => clean.extend(letter.escape_unicode()),
            letter => clean.push(letter),
        }
        clean
    })
}

/// Whether a character shows nothing, but changes how others are shown, or ends a line.
#[must_use]
pub fn is_hidden(letter: char) -> bool {
    matches!(letter,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A text that cannot be a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` cannot name {what}: {reason}")]
pub struct BadName {
    what: &'static str,
    /// Shortened, without what a terminal would obey.
    name: String,
    reason: String,
}

impl BadName {
    /// The name, shortened and escaped.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is wrong with it.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// The longest name of a swarm, in bytes.
pub const MAX_SWARM_NAME: usize = 64;

/// The name of a swarm: 1 to 64 of the characters `A-Z a-z 0-9 . _ -`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SwarmName(Arc<str>);

impl SwarmName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The protocol of lanes: calls and tells.
    #[must_use]
    pub fn lane_protocol(&self) -> StreamProtocol {
        self.protocol("lane")
    }

    /// The protocol by which neighbours level their directories.
    #[must_use]
    pub fn sync_protocol(&self) -> StreamProtocol {
        self.protocol("sync")
    }

    /// The protocol of the swarm's own Kademlia.
    #[must_use]
    pub fn kademlia_protocol(&self) -> StreamProtocol {
        self.protocol("kad")
    }

    /// What the protocols of gossip begin with: who gossips in another swarm, or in none, is never spoken to.
    #[must_use]
    pub fn gossip_protocol_prefix(&self) -> String {
        format!("/multinodes/{self}/gossip")
    }

    /// What all protocols of the swarm begin with, and no other protocol does.
    #[must_use]
    pub fn protocol_prefix(&self) -> String {
        format!("/multinodes/{self}/")
    }

    /// What identify names as its `protocol_version`: whoever shows it belongs to the swarm, another one means nothing.
    #[must_use]
    pub fn identify_version(&self) -> String {
        format!("/multinodes/{self}/1")
    }

    /// The gossip topic of all messages that users publish, whatever their topic.
    #[must_use]
    pub fn message_topic(&self) -> IdentTopic {
        IdentTopic::new(format!("multinodes/{self}/message/1"))
    }

    /// The gossip topic of records and beats.
    #[must_use]
    pub fn gossip_topic(&self) -> IdentTopic {
        IdentTopic::new(format!("multinodes/{self}/1"))
    }

    fn protocol(&self, name: &str) -> StreamProtocol {
        StreamProtocol::try_from_owned(format!("/multinodes/{self}/{name}/1")).expect("the path begins with a slash")
    }
}

impl Default for SwarmName {
    fn default() -> Self {
        Self("default".into())
    }
}

impl FromStr for SwarmName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        let fits = (1..=MAX_SWARM_NAME).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if fits {
            Ok(Self(name.into()))
        } else {
            Err(NameError { name: printable(&name.chars().take(SHOWN).collect::<String>()) })
        }
    }
}

impl fmt::Display for SwarmName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A text that cannot name a swarm.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` cannot name a swarm: 1 to 64 of the characters A-Z a-z 0-9 . _ - can")]
pub struct NameError {
    name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_can_be_told_apart() {
        for name in
            ["alpha", "team/render", "flow:words:7", "tell()", "a.b-c_d", "Grüße", "узел", "東京-1", "café", "altın"]
        {
            assert_eq!(check_node(name, 128), Ok(()), "{name}");
        }
        for topic in ["honest news", "1 2", "2 + 2", "100 %"] {
            assert_eq!(check("a topic", topic, 256), Ok(()), "{topic}");
        }
        for (name, reason) in [
            ("", "empty"),
            ("node ", "U+0020"),
            ("two words", "U+0020"),
            ("line\nbreak", "U+000A"),
            ("no\u{200b}de", "U+200B"),
            ("no\u{ad}de", "U+00AD"),
            ("\u{202e}edon", "U+202E"),
            ("n\u{43e}de", "mixes scripts"),
            ("\u{441}\u{43e}\u{441}\u{43e}", "looks like `coco`"),
            ("\u{ff4e}ode", "U+FF4E"),
            ("cafe\u{301}", "NFC"),
            ("/\u{301}x", "not behind a letter"),
        ] {
            let error = check_node(name, 128).unwrap_err();
            assert!(error.to_string().contains(reason), "{name:?}: {error}");
            assert!(!error.to_string().chars().any(|letter| letter.is_control() || is_hidden(letter)), "{error:?}");
        }
        assert!(check("a node", &"x".repeat(129), 128).is_err());
        assert_eq!(normal("cafe\u{301}"), "café");
    }
}
