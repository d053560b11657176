//! Every type that crosses the wire. `PROTOCOL.md` beside this crate describes the same in words and CDDL.
//!
//! Frames are CBOR arrays that begin with their kind; records and sync messages are CBOR maps. A reader ignores array
//! elements and map keys it does not know, and reads over frames of a kind it does not know, so that later versions may
//! add some. A new kind of gossip needs a new topic: who does not know it rejects the message.

mod frame;
mod message;
mod record;
mod sync;

pub(crate) use frame::share;
pub use frame::{Begun, Call, ErrorCode, ErrorFrame, Frame, FrameError, MAX_NAME, MAX_PROGRESS, Options, Tell};
pub use message::TopicMessage;
pub use record::{ApplicationRecord, Beat, Gossip, Record, Version};
pub use sync::{MAX_RECORDS, MAX_VERSIONS, MAX_WANTED, SyncRequest, SyncResponse};
