//! Tells a peer who this is, and whether it belongs here.

use libp2p::{identify, identity::PublicKey};

use crate::SwarmName;

/// What a node calls itself towards other libp2p programs.
pub const AGENT: &str = concat!("multinodes/", env!("CARGO_PKG_VERSION"));

/// The longest credential, in bytes. Identify's whole message has 4096: with the longest name of a swarm some 400 are left
/// for addresses, more than 20 of them.
pub const MAX_CREDENTIAL: usize = 2800;

/// Creates identify. The agent version is [`AGENT`] and, after a blank, the credential if there is one. It shows the
/// swarm's name as the protocol version.
///
/// No signed peer record: with one, js-libp2p peers kept their routing tables empty (measured).
///
/// # Errors
///
/// The credential cannot be shown.
pub fn identify(
    key: PublicKey,
    swarm: &SwarmName,
    credential: Option<&str>,
) -> Result<identify::Behaviour, CredentialError> {
    let agent = match credential {
        None => AGENT.to_owned(),
        Some(credential) => {
            check(credential)?;
            format!("{AGENT} {credential}")
        }
    };
    let config = identify::Config::new(swarm.identify_version(), key)
        .with_agent_version(agent)
        // A node whose network comes up later, or changes, is reachable at once.
        .with_push_listen_addr_updates(true)
        // The driver has an address book of its own, which knows scopes.
        .with_cache_size(0);
    Ok(identify::Behaviour::new(config))
}

/// The credential in an agent version, which is what follows the first blank. What it says is still to be checked.
///
/// `None` if there is none, or it is over [`MAX_CREDENTIAL`], or anything but printable ASCII without blanks.
#[must_use]
pub fn credential_of(agent_version: &str) -> Option<&str> {
    let (_, credential) = agent_version.split_once(' ')?;
    check(credential).ok()?;
    Some(credential)
}

fn check(credential: &str) -> Result<(), CredentialError> {
    if credential.len() > MAX_CREDENTIAL {
        return Err(CredentialError::TooLong { length: credential.len() });
    }
    if credential.is_empty() || !credential.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(CredentialError::Unprintable);
    }
    Ok(())
}

/// A credential that cannot be shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// It would not fit identify's message.
    #[error("`credential` of {length} bytes is over the limit of {MAX_CREDENTIAL}")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// It would not be read as one.
    #[error("`credential` must be printable ascii without blanks, and not empty")]
    Unprintable,
}

/// Whether a peer that has shown this belongs to the swarm: it speaks one of the swarm's own protocols, or it shows the
/// swarm's protocol version. The latter alone is shown by a node that has not admitted us yet. Not every implementation
/// lets its users choose that version, so another one means nothing.
#[must_use]
pub fn belongs(info: &identify::Info, swarm: &SwarmName) -> bool {
    let prefix = swarm.protocol_prefix();
    info.protocol_version == swarm.identify_version()
        || info.protocols.iter().any(|protocol| protocol.as_ref().starts_with(&prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_follows_the_first_blank_of_the_agent_version() {
        assert_eq!(credential_of("multinodes/0.1.0 abc.def=="), Some("abc.def=="));
        let longest = "x".repeat(MAX_CREDENTIAL);
        assert_eq!(credential_of(&format!("{AGENT} {longest}")), Some(longest.as_str()));
    }

    #[test]
    fn what_is_no_credential_is_none() {
        let too_long = format!("{AGENT} {}", "x".repeat(MAX_CREDENTIAL + 1));
        for agent in ["", AGENT, "a ", "a b c", "a  b", "a b\n", "a b\u{7f}", "a bä", &too_long] {
            assert_eq!(credential_of(agent), None, "{agent:?}");
        }
    }
}
