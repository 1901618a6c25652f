//! Any record as JSON, byte for byte what `serde_json` writes, straight into a line that is used again and again. Names
//! of fields and values are identifiers of ours and go out as they are; nothing is formatted on the way that can be
//! copied.

use serde::{
    Serialize, Serializer,
    ser::{
        Error as _, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
        SerializeTupleStruct, SerializeTupleVariant,
    },
};
use serde_json::Error;

/// Writes one value at the end of a line.
pub(super) struct Json<'a>(pub(super) &'a mut Vec<u8>);

impl Json<'_> {
    fn put(self, text: &str) -> Result<(), Error> {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn integer(self, value: impl itoa::Integer) -> Result<(), Error> {
        self.put(itoa::Buffer::new().format(value))
    }

    /// A text in quotes that is known to need no escapes.
    fn name(self, text: &'static str) -> Result<(), Error> {
        self.0.push(b'"');
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(b'"');
        Ok(())
    }
}

/// Whether a text has bytes that cannot stand in a JSON string. Without an early end, so that it is done in
/// vectors.
pub(super) fn needs_escapes(text: &str) -> bool {
    text.bytes().fold(false, |found, byte| found | (byte < 0x20) | (byte == b'"') | (byte == b'\\'))
}

impl<'a> Serializer for Json<'a> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Items<'a>;
    type SerializeTuple = Items<'a>;
    type SerializeTupleStruct = Items<'a>;
    type SerializeTupleVariant = Items<'a>;
    type SerializeMap = Items<'a>;
    type SerializeStruct = Items<'a>;
    type SerializeStructVariant = Items<'a>;

    fn serialize_bool(self, value: bool) -> Result<(), Error> {
        self.put(if value { "true" } else { "false" })
    }

    fn serialize_i8(self, value: i8) -> Result<(), Error> {
        self.integer(value)
    }

    fn serialize_i16(self, value: i16) -> Result<(), Error> {
        self.integer(value)
    }

    fn serialize_i32(self, value: i32) -> Result<(), Error> {
        self.integer(value)
    }

    fn serialize_i64(self, value: i64) -> Result<(), Error> {
        self.integer(value)
    }

    fn serialize_u8(self, value: u8) -> Result<(), Error> {
        self.integer(value)
    }

    fn serialize_u16(self, value: u16) -> Result<(), Error> {
        self.integer(value)
    }

    fn serialize_u32(self, value: u32) -> Result<(), Error> {
        self.integer(value)
    }

    fn serialize_u64(self, value: u64) -> Result<(), Error> {
        self.integer(value)
    }

    fn serialize_f32(self, value: f32) -> Result<(), Error> {
        serde_json::to_writer(self.0, &value)
    }

    fn serialize_f64(self, value: f64) -> Result<(), Error> {
        serde_json::to_writer(self.0, &value)
    }

    fn serialize_char(self, value: char) -> Result<(), Error> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, text: &str) -> Result<(), Error> {
        if needs_escapes(text) {
            return serde_json::to_writer(self.0, text);
        }
        self.0.push(b'"');
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(b'"');
        Ok(())
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<(), Error> {
        bytes.serialize(self)
    }

    fn serialize_none(self) -> Result<(), Error> {
        self.put("null")
    }

    fn serialize_some<T: ?Sized + Serialize>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Error> {
        self.put("null")
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Error> {
        self.put("null")
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), Error> {
        self.name(variant)
    }

    fn serialize_newtype_struct<T: ?Sized + Serialize>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: ?Sized + Serialize>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        let items = Items::of_variant(self.0, variant, b"", b"");
        value.serialize(Json(items.out))?;
        items.close()
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Items<'a>, Error> {
        Ok(Items::new(self.0, b'[', b"]"))
    }

    fn serialize_tuple(self, _: usize) -> Result<Items<'a>, Error> {
        Ok(Items::new(self.0, b'[', b"]"))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Items<'a>, Error> {
        Ok(Items::new(self.0, b'[', b"]"))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Items<'a>, Error> {
        Ok(Items::of_variant(self.0, variant, b"[", b"]"))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Items<'a>, Error> {
        Ok(Items::new(self.0, b'{', b"}"))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Items<'a>, Error> {
        Ok(Items::new(self.0, b'{', b"}"))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Items<'a>, Error> {
        Ok(Items::of_variant(self.0, variant, b"{", b"}"))
    }
}

/// A list or an object that is being written.
pub(super) struct Items<'a> {
    out: &'a mut Vec<u8>,
    is_first: bool,
    closing: &'static [u8],
    /// Whether an object around it, of a variant with content, closes with it.
    is_wrapped: bool,
}

impl<'a> Items<'a> {
    fn new(out: &'a mut Vec<u8>, opening: u8, closing: &'static [u8]) -> Self {
        out.push(opening);
        Self { out, is_first: true, closing, is_wrapped: false }
    }

    /// A variant with content: an object whose only field has its name.
    fn of_variant(
        out: &'a mut Vec<u8>,
        variant: &'static str,
        opening: &'static [u8],
        closing: &'static [u8],
    ) -> Self {
        out.extend_from_slice(b"{\"");
        out.extend_from_slice(variant.as_bytes());
        out.extend_from_slice(b"\":");
        out.extend_from_slice(opening);
        Self { out, is_first: true, closing, is_wrapped: true }
    }

    fn comma(&mut self) {
        if !self.is_first {
            self.out.push(b',');
        }
        self.is_first = false;
    }

    fn item<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<(), Error> {
        self.comma();
        value.serialize(Json(self.out))
    }

    fn field<T: ?Sized + Serialize>(&mut self, name: &'static str, value: &T) -> Result<(), Error> {
        self.comma();
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        value.serialize(Json(self.out))
    }

    fn close(self) -> Result<(), Error> {
        self.out.extend_from_slice(self.closing);
        if self.is_wrapped {
            self.out.push(b'}');
        }
        Ok(())
    }
}

macro_rules! serialize_items {
    ($($kind:ident $method:ident),+) => {
        $(impl $kind for Items<'_> {
            type Ok = ();
            type Error = Error;

            fn $method<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<(), Error> {
                self.item(value)
            }

            fn end(self) -> Result<(), Error> {
                self.close()
            }
        })+
    };
}

serialize_items! {
    SerializeSeq serialize_element,
    SerializeTuple serialize_element,
    SerializeTupleStruct serialize_field,
    SerializeTupleVariant serialize_field
}

macro_rules! serialize_fields {
    ($($kind:ident),+) => {
        $(impl $kind for Items<'_> {
            type Ok = ();
            type Error = Error;

            fn serialize_field<T: ?Sized + Serialize>(&mut self, name: &'static str, value: &T) -> Result<(), Error> {
                self.field(name, value)
            }

            fn end(self) -> Result<(), Error> {
                self.close()
            }
        })+
    };
}

serialize_fields! { SerializeStruct, SerializeStructVariant }

impl SerializeMap for Items<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: ?Sized + Serialize>(&mut self, key: &T) -> Result<(), Error> {
        self.comma();
        let start = self.out.len();
        key.serialize(Json(self.out))?;
        if self.out.get(start) != Some(&b'"') {
            return Err(Error::custom("the key of an object is a text"));
        }
        self.out.push(b':');
        Ok(())
    }

    fn serialize_value<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<(), Error> {
        value.serialize(Json(self.out))
    }

    fn end(self) -> Result<(), Error> {
        self.close()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Serialize)]
    enum Choice {
        Unit,
        New(i32),
        Tuple(u8, String),
        Struct { one: Option<f64>, two: Vec<char> },
    }

    #[derive(Serialize)]
    struct Wrapped(i64);

    #[derive(Serialize)]
    struct Pair(u16, ());

    #[derive(Serialize)]
    struct Everything {
        choices: Vec<Choice>,
        map: BTreeMap<String, Option<bool>>,
        wrapped: Wrapped,
        pair: Pair,
        tuple: (i8, f32),
        nested: Vec<Vec<u32>>,
    }

    fn assert_same(value: &impl Serialize) {
        let mut line = Vec::new();
        value.serialize(Json(&mut line)).expect("written");
        assert_eq!(String::from_utf8(line).expect("UTF-8"), serde_json::to_string(value).expect("written"));
    }

    proptest! {
        #[test]
        fn any_value_is_written_as_serde_json_writes_it(
            texts in prop::collection::vec(any::<String>(), 0..4),
            one: Option<f64>,
            number: i64,
            small: i8,
            flag: Option<bool>,
            nested in prop::collection::vec(prop::collection::vec(any::<u32>(), 0..3), 0..3),
        ) {
            let choices = vec![
                Choice::Unit,
                Choice::New(i32::from(small)),
                Choice::Tuple(7, texts.concat()),
                Choice::Struct { one, two: texts.concat().chars().collect() },
            ];
            let map = texts.iter().map(|text| (text.clone(), flag)).collect();
            let (wrapped, pair, tuple) = (Wrapped(number), Pair(9, ()), (small, 1.5));
            assert_same(&Everything { choices, map, wrapped, pair, tuple, nested });
        }
    }

    #[test]
    fn an_object_whose_keys_are_no_texts_is_refused() {
        let mut line = Vec::new();
        assert!(BTreeMap::from([(1, 2)]).serialize(Json(&mut line)).is_err());
    }
}
