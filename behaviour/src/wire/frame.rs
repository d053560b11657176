//! The frames of a lane.

mod array;
mod begun;

use bytes::Bytes;

use self::array::Whole;
pub use self::begun::Begun;

/// The longest name of an application or an action, in bytes.
pub const MAX_NAME: usize = 256;

/// The longest trace context taken from a peer, in bytes. A W3C `traceparent` has 55.
const MAX_TRACE: usize = 512;

/// The longest progress report, in bytes: more often than anything else it is a number.
pub const MAX_PROGRESS: usize = 16 * 1024;

/// The longest error text taken from a peer, in bytes.
const MAX_ERROR_TEXT: usize = 64 * 1024;

/// One frame of a lane, borrowing what it can from the buffer it was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Frame<'a> {
    /// Asks an application to run an action and to answer.
    Call(Call<'a>),
    /// Hands a message to an application; answered by `Accepted` or `Error` unless it is a cast.
    Tell(Tell<'a>),
    /// The result of call `id`.
    Reply {
        /// The caller's number for the call.
        id: u64,
        /// The result, encoded by the application.
        payload: &'a [u8],
    },
    /// Tell `id` is in the application's queue.
    Accepted {
        /// The caller's number for the tell.
        id: u64,
    },
    /// Call or tell `id` failed.
    Error(ErrorFrame<'a>),
    /// The caller has lost interest in `id`.
    Cancel {
        /// The caller's number for the call.
        id: u64,
    },
    /// The sender takes nothing new on this lane; what is running is still answered.
    Goodbye,
    /// How far call `id` is; only sent if the caller watches it. The newest counts.
    Progress {
        /// The caller's number for the call.
        id: u64,
        /// It waits for its turn; else it runs.
        waiting: bool,
        /// What the application says of it, CBOR; empty if nothing.
        payload: &'a [u8],
    },
    /// A kind that a later version may have added: read over, and never sent.
    Unknown {
        /// Its number.
        kind: u64,
    },
}

/// Asks an application to run an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call<'a> {
    /// The caller's number for this call, unique among all that it has open to this peer, over all lanes.
    pub id: u64,
    /// The application's name.
    pub application: &'a str,
    /// The action's name.
    pub action: &'a str,
    /// What is left of the caller's deadline, in milliseconds.
    pub deadline_ms: u64,
    /// The caller's options.
    pub options: Options,
    /// The caller's trace context (W3C `traceparent`), if it has one.
    pub trace: Option<&'a str>,
    /// The arguments, a CBOR array.
    pub payload: &'a [u8],
}

/// Hands a message to an application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tell<'a> {
    /// The sender's number for this tell; of no meaning in a cast.
    pub id: u64,
    /// The application's name.
    pub application: &'a str,
    /// What is left of the sender's deadline, in milliseconds.
    pub deadline_ms: u64,
    /// The sender's options.
    pub options: Options,
    /// The sender's trace context (W3C `traceparent`), if it has one.
    pub trace: Option<&'a str>,
    /// The message, any CBOR value.
    pub payload: &'a [u8],
}

/// Says that a call or a tell failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorFrame<'a> {
    /// The caller's number for what failed.
    pub id: u64,
    /// What kind of failure.
    pub code: ErrorCode,
    /// The application's own code, for [`ErrorCode::Failed`]; else empty.
    pub name: &'a str,
    /// What happened, for people.
    pub message: &'a str,
    /// The application's own data about it, CBOR; empty if there is none.
    pub data: &'a [u8],
}

/// The caller's options, a set of bits. Unknown bits are kept and ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options(pub u64);

/// Where the depth begins among the bits.
const DEPTH: u32 = 8;

impl Options {
    /// Running it twice does no harm.
    pub const IDEMPOTENT: Self = Self(1);
    /// A tell that nobody waits for: it is answered by nothing.
    pub const CAST: Self = Self(2);
    /// The caller wants to be told how far a call is.
    pub const WATCHED: Self = Self(4);

    /// How many calls within calls led to this one, 0 to 255, in bits 8 to 15.
    #[must_use]
    pub fn depth(self) -> u8 {
        u8::try_from(self.0 >> DEPTH & 0xff).unwrap_or(u8::MAX)
    }

    /// The same options at another depth.
    #[must_use]
    pub fn at_depth(self, depth: u8) -> Self {
        Self(self.0 & !(0xff << DEPTH) | u64::from(depth) << DEPTH)
    }

    /// Whether all bits of `other` are set.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::ops::BitOr for Options {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Why a call or a tell failed on the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorCode {
    /// The application ran and says that it failed.
    Failed,
    /// No such application is hosted there.
    NoSuchApplication,
    /// The application has no such action, or takes no tells.
    NoSuchAction,
    /// The arguments or the message could not be decoded.
    BadArguments,
    /// The application has all the work that it takes.
    Busy,
    /// The node is stopping and takes nothing new.
    Draining,
    /// The deadline had passed before it was started.
    Expired,
    /// The application panicked.
    Panicked,
    /// The result is larger than the largest message.
    TooLarge,
    /// The caller is not allowed to.
    Forbidden,
    /// The deadline passed while it ran, and it was stopped.
    TimedOut,
    /// A code of a later version.
    Other(u64),
}

impl ErrorCode {
    /// Whether the action surely did not run.
    #[must_use]
    pub fn surely_did_not_run(self) -> bool {
        match self {
            Self::NoSuchApplication
            | Self::NoSuchAction
            | Self::BadArguments
            | Self::Busy
            | Self::Draining
            | Self::Expired
            | Self::Forbidden => true,
            Self::Failed | Self::Panicked | Self::TooLarge | Self::TimedOut | Self::Other(_) => false,
        }
    }

    fn number(self) -> u64 {
        match self {
            Self::Failed => 0,
            Self::NoSuchApplication => 1,
            Self::NoSuchAction => 2,
            Self::BadArguments => 3,
            Self::Busy => 4,
            Self::Draining => 5,
            Self::Expired => 6,
            Self::Panicked => 7,
            Self::TooLarge => 8,
            Self::Forbidden => 9,
            Self::TimedOut => 10,
            Self::Other(number) => number,
        }
    }
}

impl From<u64> for ErrorCode {
    fn from(number: u64) -> Self {
        match number {
            0 => Self::Failed,
            1 => Self::NoSuchApplication,
            2 => Self::NoSuchAction,
            3 => Self::BadArguments,
            4 => Self::Busy,
            5 => Self::Draining,
            6 => Self::Expired,
            7 => Self::Panicked,
            8 => Self::TooLarge,
            9 => Self::Forbidden,
            10 => Self::TimedOut,
            other => Self::Other(other),
        }
    }
}

impl<'a> Frame<'a> {
    /// Reads one frame (without its length prefix). Never panics, and copies nothing.
    ///
    /// Strings of indefinite length are refused: there is nothing that could be borrowed.
    ///
    /// # Errors
    ///
    /// Bytes that are no frame, a name or a text over its limit. A kind that is not known is no error, see
    /// [`Unknown`](Self::Unknown).
    pub fn decode(bytes: &'a [u8]) -> Result<Self, FrameError> {
        Self::decode_with_begun(bytes).map(|(frame, _)| frame)
    }

    /// The same, and what the frame says besides of tells that are begun, if it does.
    ///
    /// # Errors
    ///
    /// As [`decode`](Self::decode). What stands in that place and is something else is none.
    pub fn decode_with_begun(bytes: &'a [u8]) -> Result<(Self, Option<Begun>), FrameError> {
        let Whole { frame, begun } = serde_cbor::from_slice(bytes)?;
        if !matches!(frame, Self::Unknown { .. }) {
            frame.check()?;
        }
        Ok((frame, begun))
    }

    /// Appends the frame with its length prefix (four bytes, big-endian, not counting themselves) to `buffer`.
    ///
    /// # Errors
    ///
    /// When a name or a text is over its limit, the frame is longer than a length prefix can say, or of a kind that is
    /// [not known](Self::Unknown); `buffer` is then as it was.
    pub fn encode(&self, buffer: &mut Vec<u8>) -> Result<(), FrameError> {
        self.encode_apart(buffer, 0)
    }

    /// Like [`encode`](Self::encode), but for a frame whose payload is empty: appends everything up to a payload of
    /// `payload_size` bytes, which has to be written right after. So a large payload is never copied.
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode).
    pub fn encode_apart(&self, buffer: &mut Vec<u8>, payload_size: usize) -> Result<(), FrameError> {
        self.encode_before(buffer, payload_size, None)
    }

    /// The same for a frame that says besides how many tells are begun: that has to be written right behind the payload.
    pub(crate) fn encode_before(
        &self,
        buffer: &mut Vec<u8>,
        payload_size: usize,
        begun: Option<&Begun>,
    ) -> Result<(), FrameError> {
        self.check()?;
        let start = buffer.len();
        buffer.extend_from_slice(&[0; 4]);
        let written = serde_cbor::to_writer(&mut *buffer, self).map_err(FrameError::from);
        let length = written.and_then(|()| {
            if payload_size > 0 {
                replace_empty_bytes(buffer, payload_size)?;
            }
            if begun.is_some() {
                // The head of an array of a few elements is one byte with their number.
                buffer[start + 4] += 1;
            }
            let behind = begun.map_or(0, Begun::size);
            let size = (buffer.len() - start - 4).saturating_add(payload_size).saturating_add(behind);
            u32::try_from(size).map_err(|_| FrameError::TooLong { what: "frame", limit: u32::MAX as usize })
        });
        match length {
            Ok(length) => {
                buffer[start..start + 4].copy_from_slice(&length.to_be_bytes());
                Ok(())
            }
            Err(error) => {
                buffer.truncate(start);
                Err(error)
            }
        }
    }

    fn check(&self) -> Result<(), FrameError> {
        match self {
            Self::Call(call) => {
                within("application name", call.application.len(), MAX_NAME)?;
                within("action name", call.action.len(), MAX_NAME)?;
                within("trace context", call.trace.map_or(0, str::len), MAX_TRACE)
            }
            Self::Tell(tell) => {
                within("application name", tell.application.len(), MAX_NAME)?;
                within("trace context", tell.trace.map_or(0, str::len), MAX_TRACE)
            }
            Self::Error(error) => {
                within("error code", error.name.len(), MAX_NAME)?;
                within("error text", error.message.len(), MAX_ERROR_TEXT)
            }
            Self::Progress { payload, .. } => within("progress report", payload.len(), MAX_PROGRESS),
            Self::Unknown { .. } => Err(FrameError::Unknown),
            Self::Reply { .. } | Self::Accepted { .. } | Self::Cancel { .. } | Self::Goodbye => Ok(()),
        }
    }
}

/// Replaces the empty byte string at the end of `buffer` by the head of one with `size` bytes.
fn replace_empty_bytes(buffer: &mut Vec<u8>, size: usize) -> Result<(), FrameError> {
    const BYTES: u8 = 0x40;
    debug_assert_eq!(buffer.last(), Some(&BYTES), "a frame ends with its payload");
    buffer.pop();
    if let Ok(size) = u8::try_from(size) {
        if size < 24 {
            buffer.push(BYTES | size);
        } else {
            buffer.extend_from_slice(&[BYTES | 24, size]);
        }
    } else if let Ok(size) = u16::try_from(size) {
        buffer.push(BYTES | 25);
        buffer.extend_from_slice(&size.to_be_bytes());
    } else {
        let size =
            u32::try_from(size).map_err(|_| FrameError::TooLong { what: "payload", limit: u32::MAX as usize })?;
        buffer.push(BYTES | 26);
        buffer.extend_from_slice(&size.to_be_bytes());
    }
    Ok(())
}

/// Gives the part of `frame` that `payload` borrows from it, without copying.
#[must_use]
pub(crate) fn share(frame: &Bytes, payload: &[u8]) -> Bytes {
    if payload.is_empty() { Bytes::new() } else { frame.slice_ref(payload) }
}

fn within(what: &'static str, size: usize, limit: usize) -> Result<(), FrameError> {
    if size > limit { Err(FrameError::TooLong { what, limit }) } else { Ok(()) }
}

/// Bytes that are no frame, or a frame that cannot be sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A part is over its limit.
    #[error("the {what} is longer than {limit} bytes")]
    TooLong {
        /// Which part.
        what: &'static str,
        /// Its limit, in bytes.
        limit: usize,
    },
    /// A kind that this version does not know is not sent.
    #[error("a frame of an unknown kind cannot be sent")]
    Unknown,
    /// Not CBOR, or CBOR of another shape.
    #[error("not a frame: {0}")]
    Malformed(#[from] serde_cbor::Error),
}
