//! A deserializer that charges what it gives to a [`Meter`].
//!
//! What grows on the heap is charged before it is read: each element by the size of its type, whatever that is. A field
//! of a struct is part of the struct, and costs nothing of its own.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor};

use super::budget::{List, Map, Meter};

/// See [`Meter::watch`].
pub struct Metered<'m, T> {
    inner: T,
    meter: &'m Meter,
    holds: Holds,
}

impl Meter {
    /// Charges whatever this deserializer gives. It fails once too much was given; then
    /// [`overspent`](Self::overspent) says so.
    pub fn watch<T>(&self, inner: T) -> Metered<'_, T> {
        Metered { inner, meter: self, holds: Holds::Growing }
    }
}

/// Where the elements of a list or a map go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holds {
    /// Into what grows with them, and has no type of its own: keys are counted as values.
    Anything,
    /// Into what grows with them.
    Growing,
    /// Into a struct or a tuple.
    Fields,
    /// Nowhere: it is the name of a field.
    Nothing,
}

impl Holds {
    fn grows(self) -> bool {
        matches!(self, Self::Anything | Self::Growing)
    }
}

/// So many elements are made room for because their number was announced.
const BELIEVED: usize = 64;

impl<'m, T> Metered<'m, T> {
    fn with<U>(&self, inner: U) -> Metered<'m, U> {
        Metered { inner, meter: self.meter, holds: Holds::Growing }
    }
}

macro_rules! watch {
    ($($method:ident($($argument:ident: $type:ty),*) $holds:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, $($argument: $type,)* visitor: V) -> Result<V::Value, Self::Error> {
            self.inner.$method(
                $($argument,)*
                Metered { inner: visitor, meter: self.meter, holds: Holds::$holds },
            )
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Metered<'_, D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.meter.value().map_err(Error::custom)?;
        self.inner.deserialize_any(Metered { inner: visitor, meter: self.meter, holds: Holds::Anything })
    }

    watch! {
        deserialize_bool() Growing
        deserialize_i8() Growing
        deserialize_i16() Growing
        deserialize_i32() Growing
        deserialize_i64() Growing
        deserialize_i128() Growing
        deserialize_u8() Growing
        deserialize_u16() Growing
        deserialize_u32() Growing
        deserialize_u64() Growing
        deserialize_u128() Growing
        deserialize_f32() Growing
        deserialize_f64() Growing
        deserialize_char() Growing
        deserialize_str() Growing
        deserialize_string() Growing
        deserialize_bytes() Growing
        deserialize_byte_buf() Growing
        deserialize_option() Growing
        deserialize_unit() Growing
        deserialize_unit_struct(name: &'static str) Growing
        deserialize_newtype_struct(name: &'static str) Growing
        deserialize_seq() Growing
        deserialize_tuple(length: usize) Fields
        deserialize_tuple_struct(name: &'static str, length: usize) Fields
        deserialize_map() Growing
        deserialize_struct(name: &'static str, fields: &'static [&'static str]) Fields
        deserialize_enum(name: &'static str, variants: &'static [&'static str]) Fields
        deserialize_identifier() Nothing
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_ignored_any(visitor)
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Metered<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.inner.deserialize(Metered { inner: deserializer, meter: self.meter, holds: Holds::Growing })
    }
}

macro_rules! pass {
    ($($method:ident($type:ty))*) => {
        $(fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.inner.$method(value)
        })*
    };
}

macro_rules! charge {
    ($($method:ident($type:ty))*) => {
        $(fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            if self.holds != Holds::Nothing {
                self.meter.text(value.len()).map_err(E::custom)?;
            }
            self.inner.$method(value)
        })*
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Metered<'_, V> {
    type Value = V::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(formatter)
    }

    pass! {
        visit_bool(bool) visit_i8(i8) visit_i16(i16) visit_i32(i32) visit_i64(i64) visit_i128(i128)
        visit_u8(u8) visit_u16(u16) visit_u32(u32) visit_u64(u64) visit_u128(u128) visit_f32(f32) visit_f64(f64)
        visit_char(char)
    }

    charge! {
        visit_str(&str) visit_borrowed_str(&'de str) visit_string(String)
        visit_bytes(&[u8]) visit_borrowed_bytes(&'de [u8]) visit_byte_buf(Vec<u8>)
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        let deserializer = self.with(deserializer);
        self.inner.visit_some(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        let deserializer = self.with(deserializer);
        self.inner.visit_newtype_struct(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let Self { inner, meter, holds } = self;
        inner.visit_seq(Elements { access, meter, list: holds.grows().then(List::default) })
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let Self { inner, meter, holds } = self;
        let map = holds.grows().then(Map::default);
        inner.visit_map(Entries { access, meter, map, counts_keys: holds == Holds::Anything, key: 0 })
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let access = self.with(access);
        self.inner.visit_enum(access)
    }
}

struct Elements<'m, A> {
    access: A,
    meter: &'m Meter,
    list: Option<List>,
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Elements<'_, A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        let element = self.access.next_element_seed(self.meter.watch(seed))?;
        if let (Some(list), Some(_)) = (&mut self.list, &element) {
            // It is not in the list yet: room for it is made only now.
            list.grow(self.meter, size_of::<S::Value>()).map_err(Error::custom)?;
        }
        Ok(element)
    }

    fn size_hint(&self) -> Option<usize> {
        self.access.size_hint().map(|announced| announced.min(BELIEVED))
    }
}

struct Entries<'m, A> {
    access: A,
    meter: &'m Meter,
    map: Option<Map>,
    counts_keys: bool,
    /// The size of the last key.
    key: usize,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Entries<'_, A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.key = size_of::<S::Value>();
        let key = self.access.next_key_seed(self.meter.watch(seed))?;
        if self.counts_keys && key.is_some() {
            self.meter.value().map_err(Error::custom)?;
        }
        Ok(key)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        let value = self.access.next_value_seed(self.meter.watch(seed))?;
        if let Some(map) = &mut self.map {
            map.grow(self.meter, self.key + size_of::<S::Value>()).map_err(Error::custom)?;
        }
        Ok(value)
    }

    fn size_hint(&self) -> Option<usize> {
        self.access.size_hint().map(|announced| announced.min(BELIEVED))
    }
}

impl<'de, 'm, A: EnumAccess<'de>> EnumAccess<'de> for Metered<'m, A> {
    type Error = A::Error;
    type Variant = Metered<'m, A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), A::Error> {
        let meter = self.meter;
        let (value, variant) = self.inner.variant_seed(meter.watch(seed))?;
        Ok((value, meter.watch(variant)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Metered<'_, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.newtype_variant_seed(self.meter.watch(seed))
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, A::Error> {
        let visitor = Metered { inner: visitor, meter: self.meter, holds: Holds::Fields };
        self.inner.tuple_variant(length, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        let visitor = Metered { inner: visitor, meter: self.meter, holds: Holds::Fields };
        self.inner.struct_variant(fields, visitor)
    }
}
