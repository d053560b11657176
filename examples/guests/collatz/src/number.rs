//! A number on its way, as it travels: a CBOR map with texts as keys.

use minicbor::{Decoder, data::Type, decode::Error};

/// A number on its way.
#[derive(Default)]
pub struct Number {
    pub start: u64,
    pub value: u64,
    pub steps: u64,
    /// How often it was on which node. A list: the code for a map would travel along.
    pub visits: Vec<(String, u64)>,
    /// Whose number it is; for whoever gets it in the end.
    pub origin: String,
}

impl Number {
    /// What is missing is 0 or empty; only `value` may not be.
    pub fn decode(message: &[u8]) -> Result<Self, Error> {
        let mut number = Self::default();
        fields(message, |name, field| {
            match name {
                "start" => number.start = field.u64()?,
                "value" => number.value = field.u64()?,
                "steps" => number.steps = field.u64()?,
                "visits" => number.visits = field.map_iter()?.collect::<Result<_, _>>()?,
                "origin" => number.origin = field.str()?.to_owned(),
                _ => field.skip()?,
            }
            Ok(())
        })?;
        if number.value == 0 { Err(Error::message("it has no value")) } else { Ok(number) }
    }

    /// It has come to a node once more.
    pub fn visit(&mut self, node: String) {
        match self.visits.iter_mut().find(|(name, _)| *name == node) {
            Some((_, count)) => *count += 1,
            None => self.visits.push((node, 1)),
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        super::written(|map| {
            map.map(5)?.str("start")?.u64(self.start)?.str("value")?.u64(self.value)?;
            map.str("steps")?.u64(self.steps)?.str("origin")?.str(&self.origin)?;
            map.str("visits")?.map(self.visits.len() as u64)?;
            self.visits.iter().try_for_each(|(node, count)| map.str(node)?.u64(*count)?.ok())
        })
    }
}

/// The field of a map that has this name, if it is a text.
pub fn text_field(map: &[u8], wanted: &str) -> Option<String> {
    let mut text = None;
    let read = fields(map, |name, field| {
        if name == wanted && field.datatype()? == Type::String {
            text = Some(field.str()?.to_owned());
        } else {
            field.skip()?;
        }
        Ok(())
    });
    read.ok().and(text)
}

/// Goes through a map whose keys are texts.
fn fields(map: &[u8], mut on_field: impl FnMut(&str, &mut Decoder<'_>) -> Result<(), Error>) -> Result<(), Error> {
    let mut map = Decoder::new(map);
    let mut left = map.map()?;
    loop {
        match left {
            Some(0) => return Ok(()),
            Some(count) => left = Some(count - 1),
            // Of a map without a length the end is written.
            None if map.datatype()? == Type::Break => return Ok(()),
            None => {}
        }
        let name = map.str()?;
        on_field(name, &mut map)?;
    }
}
