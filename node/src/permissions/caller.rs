//! Who asks for what.

use std::collections::BTreeMap;

use libp2p::PeerId;

/// A peer that wants something of this node, as a [`Rule`](super::Rule) sees it.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Caller<'a> {
    /// Who it is, proven by its connection.
    pub peer_id: &'a PeerId,
    /// The labels that it has proven: signed into its ticket by somebody whom this node trusts. What it says of itself
    /// in its record is not among them.
    pub labels: &'a BTreeMap<String, String>,
    /// The application that it asks for; empty when it connects.
    pub application: &'a str,
    /// The action; empty when it connects or tells.
    pub action: &'a str,
}
