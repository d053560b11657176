//! What stands at the end of a frame that a host sends: how many tells it has accepted and begun.

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// How many tells of the reader its writer has accepted in this life, and how many of them it has begun.
///
/// Both grow, so of several the greatest counts. All that was accepted before is begun when they begin anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Begun {
    /// The writer's life: the incarnation in its record.
    pub incarnation: u64,
    /// Tells that were put into a queue, and answered by `accepted`.
    pub accepted: u64,
    /// Those of them that were handed to their application.
    pub begun: u64,
}

impl Begun {
    /// Its bytes.
    pub(crate) fn size(&self) -> usize {
        1 + self.numbers().map(size).iter().sum::<usize>()
    }

    /// Appends it.
    pub(crate) fn append(&self, buffer: &mut Vec<u8>) {
        // There is nothing in three numbers that could fail.
        let _ = serde_cbor::to_writer(buffer, &self.numbers());
    }

    fn numbers(&self) -> [u64; 3] {
        [self.incarnation, self.accepted, self.begun]
    }
}

/// Bytes of a number.
fn size(number: u64) -> usize {
    match number {
        0..24 => 1,
        24..=0xff => 2,
        0x100..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}

/// The element behind those that a frame must have. Whatever it is, it is no error.
pub(super) struct Trailing(pub(super) Option<Begun>);

/// A number, or whatever stands in its place.
struct Number(Option<u64>);

/// All that is not looked for, read over.
macro_rules! read_over_all_but {
    ($type:ident) => {
        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("anything")
        }

        fn visit_bool<E: Error>(self, _: bool) -> Result<$type, E> {
            Ok($type(None))
        }

        fn visit_i64<E: Error>(self, _: i64) -> Result<$type, E> {
            Ok($type(None))
        }

        fn visit_i128<E: Error>(self, _: i128) -> Result<$type, E> {
            Ok($type(None))
        }

        fn visit_f64<E: Error>(self, _: f64) -> Result<$type, E> {
            Ok($type(None))
        }

        fn visit_str<E: Error>(self, _: &str) -> Result<$type, E> {
            Ok($type(None))
        }

        fn visit_bytes<E: Error>(self, _: &[u8]) -> Result<$type, E> {
            Ok($type(None))
        }

        fn visit_none<E: Error>(self) -> Result<$type, E> {
            Ok($type(None))
        }

        fn visit_unit<E: Error>(self) -> Result<$type, E> {
            Ok($type(None))
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<$type, A::Error> {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            Ok($type(None))
        }
    };
}

impl<'de> Deserialize<'de> for Trailing {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TrailingVisitor)
    }
}

struct TrailingVisitor;

impl<'de> Visitor<'de> for TrailingVisitor {
    type Value = Trailing;

    read_over_all_but!(Trailing);

    fn visit_u64<E: Error>(self, _: u64) -> Result<Trailing, E> {
        Ok(Trailing(None))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Trailing, A::Error> {
        let mut next = || -> Result<_, A::Error> { Ok(elements.next_element::<Number>()?.and_then(|number| number.0)) };
        let numbers = (next()?, next()?, next()?);
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        let (Some(incarnation), Some(accepted), Some(begun)) = numbers else { return Ok(Trailing(None)) };
        Ok(Trailing(Some(Begun { incarnation, accepted, begun })))
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberVisitor)
    }
}

struct NumberVisitor;

impl<'de> Visitor<'de> for NumberVisitor {
    type Value = Number;

    read_over_all_but!(Number);

    fn visit_u64<E: Error>(self, number: u64) -> Result<Number, E> {
        Ok(Number(Some(number)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Number, A::Error> {
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Number(None))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::Frame, *};

    proptest! {
        #[test]
        fn what_is_written_behind_a_frame_is_read_again(
            incarnation in any::<u64>(),
            accepted in prop_oneof![0..300_u64, any::<u64>()],
            begun in prop_oneof![0..300_u64, 65_530..65_540_u64],
            payload in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let said = Begun { incarnation, accepted, begun };
            let mut bytes = Vec::new();
            Frame::Reply { id: 7, payload: &[] }.encode_before(&mut bytes, payload.len(), Some(&said)).unwrap();
            bytes.extend_from_slice(&payload);
            said.append(&mut bytes);
            let (length, frame) = bytes.split_at(4);
            prop_assert_eq!(length, u32::try_from(frame.len()).unwrap().to_be_bytes());
            let (frame, read) = Frame::decode_with_begun(frame).unwrap();
            prop_assert_eq!((frame, read), (Frame::Reply { id: 7, payload: &payload }, Some(said)));
        }
    }
}
