//! Lanes: many requests in flight over one long-lived stream, answers in any order.
//!
//! An [`Exchange`] is all that goes on between two peers. It opens lanes when it needs them (one for ordinary messages,
//! a few more for large ones, so that a large message never delays small ones), accepts those that the other side
//! opens, and owns everything that is open on them: when a lane or the peer goes, whoever waits is told.
//!
//! Nothing here knows of libp2p: any `AsyncRead + AsyncWrite` will do, see the tests.
//!
//! What is deliberately absent: a task or a channel per request. A caller encodes its frame straight into the lane's
//! outbox; one task per lane writes what has gathered there with one flush, and hands over what it reads.

mod asking;
mod called;
mod exchange;
mod incoming;
mod interest;
mod oddities;
mod outbox;
mod pace;
mod pulse;
mod reader;
mod requests;
mod run;
mod standstill;
mod table;
mod tells;
#[cfg(test)]
mod tests;
mod writer;

use std::{io, time::Duration};

use bytes::Bytes;

pub use asking::Outgoing;
pub use called::{Answers, Called, Mark};
pub use exchange::{Exchange, Io, Limits, Opener, Unopened};
pub use incoming::{Assignment, Delivery, Incoming, Refusal, Reporter, Responder, Service, Unwritten};
pub use oddities::Oddities;
pub use pulse::{News, Pulse};
pub use reader::Charge;
pub use standstill::{Standstill, TURN};
pub use tells::{Heard, Tells};

use crate::wire::{ErrorCode, FrameError};

/// Messages above this size travel on lanes of their own.
pub const LARGE_FROM: usize = 256 * 1024;

/// What a frame may have beside its payload: names, trace context, numbers.
const HEADER: usize = 8 * 1024;

/// Lanes for large messages to one peer: enough that their flow-control windows add up, few enough for the peer.
const LARGE_LANES: usize = 4;

/// Lanes that one peer may have open to us: its ordinary one, its large ones, and as many that are just closing.
pub const MAX_INBOUND_LANES: usize = 2 * (1 + LARGE_LANES);

/// Calls and tells to one peer that may wait for an answer; ids have 16 bits for their place.
const MAX_ASKED: usize = 1 << 15;

/// Calls of one peer that may run here at once.
const MAX_SERVED: usize = 1 << 13;

/// Each request is answered once, at the most. A peer that has sent more answers that nobody waits for than there were
/// requests, and so many beside, sends them for no other reason than to have them read.
const UNASKED: u64 = 256;

/// How often deadlines are looked at while something is open. Shorter ones are kept by the caller itself.
const SWEEP: Duration = Duration::from_millis(50);

/// A lane without use for so long is closed by the side that opened it.
const IDLE: Duration = Duration::from_secs(60);

/// Who reads nothing for so long is cut off.
const WRITE_STALL: Duration = Duration::from_secs(30);

/// Why something that was asked of a peer failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LaneError {
    /// The message is over the limit; nothing was sent.
    #[error("the message has {size} bytes, the limit is {limit}")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The largest message, in bytes.
        limit: usize,
    },
    /// Too much is waiting for this peer already; nothing was sent.
    #[error("{limit} requests to this peer are open already")]
    TooManyOpen {
        /// How many may be open.
        limit: usize,
    },
    /// No lane could be opened; nothing was sent.
    #[error("{0}")]
    NotOpened(String),
    /// Nothing was heard of the peer while a lane was being opened; nothing was sent, and it may be opened later.
    #[error("{0}")]
    Silent(String),
    /// The lane was just being closed; nothing was sent, and another one can be opened.
    #[error("the lane was being closed")]
    Closing,
    /// A name or another part of the header is over its limit; nothing was sent.
    #[error("{0}")]
    Unsendable(String),
    /// The lane broke after the message was queued: it may or may not have arrived.
    #[error("the connection was lost before the answer came")]
    Lost,
    /// No answer within the deadline: it may or may not have run.
    #[error("no answer within the deadline")]
    TimedOut,
    /// The other side answered with an error.
    #[error("{0}")]
    Refused(Refusal),
}

impl LaneError {
    /// Whether the message may have been acted on.
    #[must_use]
    pub fn may_have_run(&self) -> bool {
        match self {
            Self::TooLarge { .. }
            | Self::TooManyOpen { .. }
            | Self::NotOpened(_)
            | Self::Silent(_)
            | Self::Closing
            | Self::Unsendable(_) => false,
            Self::Lost | Self::TimedOut => true,
            Self::Refused(refusal) => !refusal.code.surely_did_not_run(),
        }
    }
}

/// Why a lane has ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaneEnd {
    /// This side has closed it.
    #[error("closed")]
    Closed,
    /// The stream ended in the middle of a frame.
    #[error("the stream ended in the middle of a frame")]
    CutOff,
    /// Nothing was read or written for too long while something was due.
    #[error("the peer stalled in the middle of a frame")]
    Stalled,
    /// More answers came than were asked for.
    #[error("more answers came than were asked for")]
    Unasked,
    /// A frame over the limit was announced.
    #[error("a frame of {length} bytes was announced, the limit is {limit}")]
    FrameTooLong {
        /// The announced length in bytes.
        length: usize,
        /// The longest frame, in bytes.
        limit: usize,
    },
    /// The other side asked for something on a lane that this side has opened.
    #[error("a request came on a lane that is for answers")]
    Misplaced,
    /// What came is no frame.
    #[error(transparent)]
    Malformed(#[from] FrameError),
    /// The stream failed.
    #[error("the stream failed: {0}")]
    Io(#[from] io::Error),
}

/// The answer to a call: the encoded result.
pub type Reply = Result<Bytes, LaneError>;

fn duplicate_id() -> Refusal {
    Refusal::new(ErrorCode::BadArguments, "the request's id is in use already")
}
