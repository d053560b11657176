//! Answers to exchanges that are being written. Each may have megabytes, and a neighbour need not read them before the
//! exchange's time is over.

use std::{collections::HashMap, hash::Hash};

use libp2p::{PeerId, request_response::InboundRequestId};
use multinodes_behaviour::wire::SyncResponse;

/// What is being written to one neighbour, in bytes of records: more is answered when that has come to its end.
const MAX_TO_PEER: usize = 8 << 20;

/// What is being written to all.
const MAX_TO_ALL: usize = 64 << 20;

/// The answers that are being written, and how large they are. An entry for each open exchange at the most.
#[derive(Debug)]
pub(super) struct Answering<Id: Eq + Hash = InboundRequestId>(HashMap<Id, (PeerId, usize)>);

impl<Id: Eq + Hash> Answering<Id> {
    /// Whether a neighbour may be sent one more.
    pub(super) fn has_room(&self, peer_id: &PeerId) -> bool {
        let to_peer: usize = self.0.values().filter(|(to, _)| to == peer_id).map(|(_, bytes)| bytes).sum();
        let to_all: usize = self.0.values().map(|(_, bytes)| bytes).sum();
        to_peer < MAX_TO_PEER && to_all < MAX_TO_ALL
    }

    pub(super) fn begin(&mut self, id: Id, to: PeerId, answer: &SyncResponse) {
        let bytes = answer.records.iter().map(|record| record.len()).sum();
        if bytes > 0 {
            self.0.insert(id, (to, bytes));
        }
    }

    /// It was written, or will not be.
    pub(super) fn end(&mut self, id: Id) {
        self.0.remove(&id);
    }
}

impl<Id: Eq + Hash> Default for Answering<Id> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

#[cfg(test)]
mod tests {
    use serde_bytes::ByteBuf;

    use super::*;

    const LARGE: usize = 2 << 20;

    fn answer() -> SyncResponse {
        SyncResponse { records: vec![ByteBuf::from(vec![0; LARGE / 4]); 4], ..SyncResponse::default() }
    }

    /// How many a neighbour gets of those that it asks for, and does not read.
    fn get(answering: &mut Answering<usize>, to: PeerId, ids: std::ops::Range<usize>) -> usize {
        ids.filter(|id| {
            let may = answering.has_room(&to);
            if may {
                answering.begin(*id, to, &answer());
            }
            may
        })
        .count()
    }

    #[test]
    fn one_neighbour_that_does_not_read_gets_few_answers_and_leaves_room_for_others() {
        let mut answering = Answering::default();
        let (one, other) = (PeerId::random(), PeerId::random());
        assert_eq!(get(&mut answering, one, 0..100), MAX_TO_PEER / LARGE);
        assert_eq!(get(&mut answering, other, 100..101), 1);
        answering.end(0);
        assert_eq!(get(&mut answering, one, 200..300), 1, "one was written");
        let all: usize = (3..100).map(|peer| get(&mut answering, PeerId::random(), peer * 100..peer * 100 + 100)).sum();
        assert_eq!(all + MAX_TO_PEER / LARGE + 1, MAX_TO_ALL / LARGE);
        answering.begin(0, other, &SyncResponse { same: true, ..SyncResponse::default() });
        assert!(!answering.0.contains_key(&0), "what has no records is not counted");
    }
}
