//! The plan of a flow, signed with the key of the node that runs it. Whoever passes tuples on shows it, so that each
//! host can tell on whose behalf it works, and need not take the word of whoever brings them.

use bytes::Bytes;
use libp2p::{PeerId, identity::Keypair};
use serde::{Serialize, de::DeserializeOwned};

use crate::{RecordError, SwarmName, record::Kind};

/// The largest signed plan, in bytes. It goes with every batch of tuples, so it has to stay small beside it.
pub const MAX_PLAN: usize = 32 * 1024;

const PLAN: Kind = Kind { name: "plan", limit: MAX_PLAN };

/// Signs a plan: the bytes that travel.
///
/// # Errors
///
/// It cannot be encoded, is over [`MAX_PLAN`] with its signature, or the key cannot sign.
pub fn sign<T: Serialize>(keypair: &Keypair, swarm: &SwarmName, plan: &T) -> Result<Bytes, RecordError> {
    PLAN.seal(keypair, swarm, plan)
}

/// Opens a signed plan, which may come from anyone, and says whose key has signed it.
///
/// # Errors
///
/// It is too large, no envelope, not signed for this swarm and as a plan, or of another shape.
pub fn open<T: DeserializeOwned>(swarm: &SwarmName, envelope: &[u8]) -> Result<(PeerId, T), RecordError> {
    PLAN.open(swarm, envelope)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_believed_of_its_signer_alone_and_in_its_own_swarm() {
        let (keypair, swarm) = (Keypair::generate_ed25519(), SwarmName::default());
        let signed = sign(&keypair, &swarm, &"plan").unwrap();
        assert_eq!(open::<String>(&swarm, &signed).unwrap(), (keypair.public().to_peer_id(), "plan".to_owned()));
        assert!(open::<String>(&"other".parse().unwrap(), &signed).is_err());
        for index in 0..signed.len() {
            let mut altered = signed.to_vec();
            altered[index] ^= 1;
            assert!(open::<String>(&swarm, &altered).is_err(), "{index}");
        }
        let error = sign(&keypair, &swarm, &"x".repeat(MAX_PLAN)).unwrap_err();
        assert!(matches!(error, RecordError::TooLarge { what: "plan", limit: MAX_PLAN, .. }), "{error}");
    }
}
