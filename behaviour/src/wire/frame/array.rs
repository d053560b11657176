//! A frame as it travels: a CBOR array that begins with its kind.

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, IgnoredAny, SeqAccess, Visitor},
    ser::SerializeTuple,
};

use super::{Call, ErrorCode, ErrorFrame, Frame, FrameError, Options, Tell, begun::Begun, begun::Trailing};

impl Serialize for Frame<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Call(call) => {
                let mut frame = serializer.serialize_tuple(8)?;
                frame.serialize_element(&Kind::Call.number())?;
                frame.serialize_element(&call.id)?;
                frame.serialize_element(call.application)?;
                frame.serialize_element(call.action)?;
                frame.serialize_element(&call.deadline_ms)?;
                frame.serialize_element(&call.options.0)?;
                frame.serialize_element(&call.trace)?;
                frame.serialize_element(serde_bytes::Bytes::new(call.payload))?;
                frame.end()
            }
            Self::Tell(tell) => {
                let mut frame = serializer.serialize_tuple(7)?;
                frame.serialize_element(&Kind::Tell.number())?;
                frame.serialize_element(&tell.id)?;
                frame.serialize_element(tell.application)?;
                frame.serialize_element(&tell.deadline_ms)?;
                frame.serialize_element(&tell.options.0)?;
                frame.serialize_element(&tell.trace)?;
                frame.serialize_element(serde_bytes::Bytes::new(tell.payload))?;
                frame.end()
            }
            Self::Reply { id, payload } => {
                let mut frame = serializer.serialize_tuple(3)?;
                frame.serialize_element(&Kind::Reply.number())?;
                frame.serialize_element(id)?;
                frame.serialize_element(serde_bytes::Bytes::new(payload))?;
                frame.end()
            }
            Self::Accepted { id } => (Kind::Accepted.number(), id).serialize(serializer),
            Self::Error(error) => {
                let mut frame = serializer.serialize_tuple(6)?;
                frame.serialize_element(&Kind::Error.number())?;
                frame.serialize_element(&error.id)?;
                frame.serialize_element(&error.code.number())?;
                frame.serialize_element(error.name)?;
                frame.serialize_element(error.message)?;
                frame.serialize_element(serde_bytes::Bytes::new(error.data))?;
                frame.end()
            }
            Self::Cancel { id } => (Kind::Cancel.number(), id).serialize(serializer),
            Self::Goodbye => (Kind::Goodbye.number(),).serialize(serializer),
            Self::Progress { id, waiting, payload } => {
                (Kind::Progress.number(), id, waiting, serde_bytes::Bytes::new(payload)).serialize(serializer)
            }
            Self::Unknown { .. } => Err(serde::ser::Error::custom(FrameError::Unknown)),
        }
    }
}

/// A frame with what may stand behind the elements that it must have.
pub(super) struct Whole<'a> {
    pub(super) frame: Frame<'a>,
    pub(super) begun: Option<Begun>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Whole<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(FrameVisitor)
    }
}

struct FrameVisitor;

impl<'de> Visitor<'de> for FrameVisitor {
    type Value = Whole<'de>;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a frame: an array that begins with its kind")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Whole<'de>, A::Error> {
        let kind: u64 = next(&mut elements, 0)?;
        let frame = match Kind::try_from(kind) {
            Err(UnknownKind) => Frame::Unknown { kind },
            Ok(Kind::Call) => Frame::Call(Call {
                id: next(&mut elements, 1)?,
                application: next(&mut elements, 2)?,
                action: next(&mut elements, 3)?,
                deadline_ms: next(&mut elements, 4)?,
                options: Options(next(&mut elements, 5)?),
                trace: next(&mut elements, 6)?,
                payload: next::<&serde_bytes::Bytes, _>(&mut elements, 7)?,
            }),
            Ok(Kind::Tell) => Frame::Tell(Tell {
                id: next(&mut elements, 1)?,
                application: next(&mut elements, 2)?,
                deadline_ms: next(&mut elements, 3)?,
                options: Options(next(&mut elements, 4)?),
                trace: next(&mut elements, 5)?,
                payload: next::<&serde_bytes::Bytes, _>(&mut elements, 6)?,
            }),
            Ok(Kind::Reply) => {
                Frame::Reply { id: next(&mut elements, 1)?, payload: next::<&serde_bytes::Bytes, _>(&mut elements, 2)? }
            }
            Ok(Kind::Accepted) => Frame::Accepted { id: next(&mut elements, 1)? },
            Ok(Kind::Error) => Frame::Error(ErrorFrame {
                id: next(&mut elements, 1)?,
                code: ErrorCode::from(next::<u64, _>(&mut elements, 2)?),
                name: next(&mut elements, 3)?,
                message: next(&mut elements, 4)?,
                data: next::<&serde_bytes::Bytes, _>(&mut elements, 5)?,
            }),
            Ok(Kind::Cancel) => Frame::Cancel { id: next(&mut elements, 1)? },
            Ok(Kind::Goodbye) => Frame::Goodbye,
            Ok(Kind::Progress) => Frame::Progress {
                id: next(&mut elements, 1)?,
                waiting: next(&mut elements, 2)?,
                payload: next::<&serde_bytes::Bytes, _>(&mut elements, 3)?,
            },
        };
        let begun = elements.next_element::<Trailing>()?.and_then(|trailing| trailing.0);
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Whole { frame, begun })
    }
}

fn next<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(elements: &mut A, index: usize) -> Result<T, A::Error> {
    elements.next_element()?.ok_or_else(|| de::Error::invalid_length(index, &"a longer frame"))
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Call,
    Tell,
    Reply,
    Accepted,
    Error,
    Cancel,
    Goodbye,
    Progress,
}

impl Kind {
    fn number(self) -> u8 {
        self as u8
    }
}

struct UnknownKind;

impl TryFrom<u64> for Kind {
    type Error = UnknownKind;

    fn try_from(number: u64) -> Result<Self, UnknownKind> {
        Ok(match number {
            0 => Self::Call,
            1 => Self::Tell,
            2 => Self::Reply,
            3 => Self::Accepted,
            4 => Self::Error,
            5 => Self::Cancel,
            6 => Self::Goodbye,
            7 => Self::Progress,
            _ => return Err(UnknownKind),
        })
    }
}
