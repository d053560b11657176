//! A ticket: everything that it takes to join a swarm, as one string.

use std::{
    collections::BTreeMap,
    fmt,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use data_encoding::{BASE64URL_NOPAD, DecodeKind};
use libp2p::{Multiaddr, PeerId, identity::Keypair, multiaddr::Protocol};
use multinodes_behaviour::{Grant, RecordError, SwarmName, codec};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use crate::{
    addresses,
    node::Node,
    private_file::{self, PrivateFileError},
    secret::Secret,
};

/// What the text of a ticket begins with, before its version.
const PREFIX: &str = "multinodes-ticket-";

/// The only version so far, with what ends it.
const VERSION: &str = "1:";

/// The longest text of a ticket, in bytes: it could still be sent by mail.
const MAX_TEXT: usize = 64 * 1024;

/// The most addresses that are taken from a ticket: each is dialled.
const MAX_ADDRESSES: usize = 64;

/// The most that a new ticket has: some of so many are still there tomorrow, and the string stays handy.
const ADDRESSES: usize = 16;

/// The most of one node in a new ticket.
const ADDRESSES_OF_NODE: usize = 4;

/// The length of the content, before it.
const LENGTH: usize = 2;

/// The part of its SHA-256 behind the content.
const SUM: usize = 8;

/// Everything that it takes to join a swarm: its name, its secret if it has one, and where some of its nodes are.
///
/// Made by [`Node::ticket`], used by [`Builder::ticket`](crate::Builder::ticket). Whoever has a ticket to a private swarm
/// has its secret: it is never printed unless [`reveal`](Self::reveal) is asked to, and kept in files that only their
/// owner may read. It can be kept longer than the ticket is good for: the expiry binds honest programs only.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
///
/// use multinodes::{Node, Secret, Ticket};
///
/// let builder = Node::builder().swarm("garden").secret(Secret::generate());
/// let inside = builder.listen("/memory/77").start().await?;
/// let ticket = inside.ticket(Some(Duration::from_secs(3600)))?.reveal();
///
/// let outside = Node::builder().ticket(Ticket::parse(&ticket)?).listen("/memory/78").start().await?;
/// outside.wait_for_node(inside.name()).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    swarm: SwarmName,
    secret: Option<Secret>,
    addresses: Vec<Multiaddr>,
    /// In seconds since 1970.
    expires: Option<u64>,
    grant: Option<Grant>,
}

/// What is inside: see PROTOCOL.md.
#[derive(Serialize, Deserialize)]
struct Content {
    swarm: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<ByteBuf>,
    addresses: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<u64>,
    /// Labels that its issuer has signed, and the key that goes with them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    grant: Option<ByteBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<ByteBuf>,
}

impl Drop for Content {
    fn drop(&mut self) {
        for secret in [&mut self.secret, &mut self.key].into_iter().flatten() {
            secret.zeroize();
        }
    }
}

impl Ticket {
    /// Reads a ticket from a file.
    ///
    /// # Errors
    ///
    /// The file cannot be read, may be read by others than its owner, or holds no ticket that is still good.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, TicketError> {
        Self::parse(&private_file::read(path.as_ref(), MAX_TEXT as u64)?)
    }

    /// Reads the text of a ticket. White space in it is skipped, as mail programs break lines.
    ///
    /// # Errors
    ///
    /// The text is no ticket, was cut or altered, is of a later version, or has expired. It is not repeated in the error.
    pub fn parse(text: &str) -> Result<Self, TicketError> {
        Self::parse_at(text, SystemTime::now())
    }

    fn parse_at(text: &str, now: SystemTime) -> Result<Self, TicketError> {
        if text.len() > MAX_TEXT {
            return Err(TicketError::Foreign);
        }
        let mut compact = Zeroizing::new(String::with_capacity(text.len()));
        compact.extend(private_file::content(text).chars().filter(|character| !character.is_ascii_whitespace()));
        let Some(versioned) = compact.strip_prefix(PREFIX) else {
            let begun = !compact.is_empty() && PREFIX.starts_with(compact.as_str());
            return Err(if begun { TicketError::Cut } else { TicketError::Foreign });
        };
        let Some(encoded) = versioned.strip_prefix(VERSION) else {
            let begun = VERSION.starts_with(versioned);
            return Err(if begun { TicketError::Cut } else { TicketError::Version });
        };
        let ticket = Self::from_content(&content(encoded)?)?;
        match ticket.expires {
            Some(expires) if expires <= seconds(now) => Err(TicketError::Expired { ago: seconds(now) - expires }),
            _ => Ok(ticket),
        }
    }

    fn from_content(bytes: &[u8]) -> Result<Self, TicketError> {
        let content: Content = codec::decode(bytes, MAX_TEXT).map_err(|_| TicketError::Altered)?;
        let secret = content.secret.as_ref().map(|bytes| Secret::from_bytes(bytes).ok_or(TicketError::Altered));
        let swarm: SwarmName = content.swarm.parse().map_err(|_| TicketError::Altered)?;
        let grant = match (&content.grant, &content.key) {
            (Some(envelope), Some(key)) => {
                let key = key.as_slice().try_into().map_err(|_| TicketError::Altered)?;
                Some(Grant::open(&swarm, envelope, key).map_err(|_| TicketError::Altered)?)
            }
            _ => None,
        };
        Ok(Self {
            swarm,
            secret: secret.transpose()?,
            grant,
            // Those of a later version that are not understood here are left out.
            addresses: content.addresses.iter().take(MAX_ADDRESSES).filter_map(|text| text.parse().ok()).collect(),
            expires: content.expires,
        })
    }

    /// Its text. Whoever sees it can join the swarm.
    #[must_use]
    pub fn reveal(&self) -> Zeroizing<String> {
        let content = Content {
            swarm: self.swarm.to_string(),
            secret: self.secret.as_ref().map(|secret| ByteBuf::from(secret.bytes())),
            addresses: self.addresses.iter().map(ToString::to_string).collect(),
            expires: self.expires,
            grant: self.grant.as_ref().map(|grant| ByteBuf::from(grant.envelope())),
            key: self.grant.as_ref().map(|grant| ByteBuf::from(&grant.key()[..])),
        };
        let content = Zeroizing::new(codec::encode(&content).expect("texts, bytes and numbers can be encoded"));
        let length = u16::try_from(content.len()).expect("the most addresses of the longest kind have 32 KiB");
        let bytes = Zeroizing::new([&length.to_be_bytes()[..], &content, &sum(&content)].concat());
        let encoded = Zeroizing::new(BASE64URL_NOPAD.encode(&bytes));
        Zeroizing::new(format!("{PREFIX}{VERSION}{}", *encoded))
    }

    /// Writes it into a new file that only its owner may read.
    ///
    /// # Errors
    ///
    /// The file is there already, or cannot be written.
    pub fn create(&self, path: impl AsRef<Path>) -> Result<(), TicketError> {
        Ok(private_file::create(path.as_ref(), &self.reveal())?)
    }

    /// Signs labels into it, instead of those it may have: whoever joins with it proves them to all who trust the
    /// issuer, as long as the ticket is good. A node trusts itself, the issuer of the ticket with which it has joined,
    /// and those of [`Builder::trust`](crate::Builder::trust); what the labels permit is said by [`Rule`](crate::Rule)s.
    ///
    /// # Errors
    ///
    /// [`TicketError::Labels`]: there are more than 64 labels, one has a key or a value over 256 bytes, or all together
    /// have more than 1 KiB.
    pub fn labelled(self, issuer: &Keypair, labels: BTreeMap<String, String>) -> Result<Self, TicketError> {
        let grant = Grant::issue(issuer, &self.swarm, labels, self.expires)?;
        Ok(Self { grant: Some(grant), ..self })
    }

    /// The labels that are signed into it.
    #[must_use]
    pub fn labels(&self) -> BTreeMap<String, String> {
        self.grant.as_ref().map(|grant| grant.labels().clone()).unwrap_or_default()
    }

    /// Who has signed its labels, if it has any.
    #[must_use]
    pub fn issuer(&self) -> Option<PeerId> {
        self.grant.as_ref().map(Grant::issuer)
    }

    /// The name of the swarm.
    #[must_use]
    pub fn swarm(&self) -> &str {
        self.swarm.as_str()
    }

    /// Whether it has the secret of a private swarm in it.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.secret.is_some()
    }

    /// Whether it has this secret in it.
    #[must_use]
    pub fn has_secret(&self, secret: &Secret) -> bool {
        self.secret.as_ref() == Some(secret)
    }

    /// Where nodes of the swarm were when it was made, with their peer ids.
    #[must_use]
    pub fn addresses(&self) -> &[Multiaddr] {
        &self.addresses
    }

    /// When it expires; `None` if never.
    #[must_use]
    pub fn expires(&self) -> Option<SystemTime> {
        self.expires.and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)))
    }

    pub(crate) fn secret(&self) -> Option<&Secret> {
        self.secret.as_ref()
    }

    pub(crate) fn grant(&self) -> Option<&Grant> {
        self.grant.as_ref()
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Ticket").field("swarm", &self.swarm.as_str()).finish_non_exhaustive()
    }
}

impl Node {
    /// Makes a ticket to this node's swarm that is good for so long, or for ever: with the swarm's secret if it has one,
    /// and up to 16 addresses of this node and of others that are known now. It may be used any number of times.
    ///
    /// # Errors
    ///
    /// [`TicketError::Nobody`]: this node does not listen, and knows no other.
    pub fn ticket(&self, lifetime: Option<Duration>) -> Result<Ticket, TicketError> {
        let settings = &self.core().settings;
        let addresses = self.ticket_addresses();
        if addresses.is_empty() {
            return Err(TicketError::Nobody);
        }
        let expires = lifetime.map(|lifetime| seconds(SystemTime::now()).saturating_add(lifetime.as_secs().max(1)));
        Ok(Ticket { swarm: settings.swarm.clone(), secret: settings.secret.clone(), addresses, expires, grant: None })
    }

    /// The same with labels that this node's key signs into it, see [`Ticket::labelled`].
    ///
    /// # Errors
    ///
    /// Those of [`ticket`](Self::ticket), and [`TicketError::Labels`].
    pub fn ticket_with_labels(
        &self,
        lifetime: Option<Duration>,
        labels: BTreeMap<String, String>,
    ) -> Result<Ticket, TicketError> {
        self.ticket(lifetime)?.labelled(&self.core().keypair, labels)
    }

    fn ticket_addresses(&self) -> Vec<Multiaddr> {
        let mut nodes: Vec<(PeerId, Vec<Multiaddr>)> =
            vec![(self.peer_id(), addresses::advertised(&self.addresses()).0)];
        nodes.extend(self.nodes().iter().filter(|node| !node.local).map(|node| (node.peer_id, node.addresses.clone())));
        // Whatever leads beyond this host is better than what does not.
        let beyond = |address: &Multiaddr| addresses::scope(address) >= Some(addresses::Scope::Private);
        if nodes.iter().any(|(_, addresses)| addresses.iter().any(beyond)) {
            nodes.iter_mut().for_each(|(_, addresses)| addresses.retain(beyond));
        }
        let of_node = |(peer_id, addresses): (PeerId, Vec<Multiaddr>)| {
            let whole = move |address: Multiaddr| address.with(Protocol::P2p(peer_id));
            addresses.into_iter().take(ADDRESSES_OF_NODE).map(whole)
        };
        nodes.into_iter().flat_map(of_node).take(ADDRESSES).collect()
    }
}

/// What the characters stand for, if all of them are there as they were.
fn content(encoded: &str) -> Result<Zeroizing<Vec<u8>>, TicketError> {
    let decoded = match BASE64URL_NOPAD.decode(encoded.as_bytes()) {
        Ok(decoded) => decoded,
        Err(error) if error.kind == DecodeKind::Symbol => return Err(TicketError::Altered),
        // The end of a text that was cut somewhere: the groups before it say how long it was.
        Err(_) => {
            let whole = &encoded.as_bytes()[..encoded.len() / 4 * 4];
            BASE64URL_NOPAD.decode(whole).map_err(|_| TicketError::Altered)?
        }
    };
    let decoded = Zeroizing::new(decoded);
    let Some((length, rest)) = decoded.split_first_chunk::<LENGTH>() else { return Err(TicketError::Cut) };
    let length = usize::from(u16::from_be_bytes(*length));
    if rest.len() < length + SUM {
        return Err(TicketError::Cut);
    }
    let (content, found) = rest.split_at(length);
    // A whole ticket whose last character alone is wrong also comes here, one byte too short or not at all.
    if found != sum(content) || BASE64URL_NOPAD.encode_len(decoded.len()) != encoded.len() {
        return Err(TicketError::Altered);
    }
    Ok(Zeroizing::new(content.to_vec()))
}

fn sum(content: &[u8]) -> [u8; SUM] {
    let digest = Sha256::new().chain_update(PREFIX).chain_update(VERSION).chain_update(content).finalize();
    std::array::from_fn(|index| digest[index])
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A length of time in its largest unit.
fn rough(seconds: &u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Why there is no ticket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TicketError {
    /// The file is not used.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// The text is something else.
    #[error("this is no ticket: one begins with `{PREFIX}{VERSION}`; the verb `ticket` of the command makes one")]
    Foreign,
    /// It is of a later version.
    #[error("the ticket is of another version: this software knows those that begin with `{PREFIX}{VERSION}`")]
    Version,
    /// Its end is missing.
    #[error("the ticket is cut: its end is missing; copy it again, all of it")]
    Cut,
    /// It is not as it was made.
    #[error("the ticket was altered: its check sum is wrong; copy it again")]
    Altered,
    /// It was good until some time ago.
    #[error("the ticket expired {} ago: ask for a new one", rough(.ago))]
    Expired {
        /// For how long, in seconds.
        ago: u64,
    },
    /// The labels cannot be signed into it.
    #[error("the labels cannot be signed into a ticket: {0}")]
    Labels(#[from] RecordError),
    /// A new ticket would lead nowhere.
    #[error("no node of the swarm is known that could be joined, so a ticket would lead nowhere")]
    Nobody,
}

#[cfg(test)]
mod tests;
