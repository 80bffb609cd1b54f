//! The JSON of tokens and keys: RFC 8259 and nothing beside it, in bounded depth, no name twice.
//!
//! Envoy's reader also takes single quotes, trailing commas, names without quotes and control characters in texts. Two
//! readers of one token must not disagree about what it says, so none of that is JSON here.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::limits::JSON_DEPTH_MAX;

/// The object that `bytes` are, white space around it allowed; `None` if they are anything else.
///
/// Not JSON: a name that an object has twice (RFC 7519 §4 lets a reader refuse it, as Envoy does), more than
/// [`JSON_DEPTH_MAX`] objects and lists within each other, a number that no `f64` holds (`1e400`), half of a surrogate pair,
/// bytes that are not UTF-8. Costs no more than its length, and stops where the first of these stands.
pub(crate) fn object(bytes: &[u8]) -> Option<Map<String, Value>> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let reading = Reading {
        room: JSON_DEPTH_MAX,
    };
    let value = reading.deserialize(&mut reader).ok()?;
    reader.end().ok()?;
    match value {
        Value::Object(object) => Some(object),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            None
        }
    }
}

/// Reads one value.
#[derive(Clone, Copy)]
struct Reading {
    /// How many objects and lists may still be opened.
    room: usize,
}

impl Reading {
    fn within<E: Error>(self) -> Result<Self, E> {
        let room = self
            .room
            .checked_sub(1)
            .ok_or_else(|| E::custom("too deep"))?;
        Ok(Self { room })
    }
}

impl<'de> DeserializeSeed<'de> for Reading {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reading {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("no finite number"))?;
        Ok(Value::Number(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.within()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inner = self.within()?;
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(inner)?;
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom("a name stands twice"));
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_what_they_say() {
        let text = br#" {"a":[1,-2,1.5,1e3,true,null,"\u00e9\ud83d\ude00\u0000"],"b":{"a":18446744073709551615}} "#;
        let object = object(text).unwrap();
        assert_eq!(
            object["a"],
            json!([1, -2, 1.5, 1000.0, true, null, "é😀\0"])
        );
        assert_eq!(object["b"]["a"].as_u64(), Some(u64::MAX));
    }

    #[test]
    fn what_rfc_8259_does_not_know_is_refused() {
        for text in [
            "",
            "null",
            "[]",
            "\"a\"",
            "{\"a\":1",
            "{\"a\":1}x",
            "{\"a\":1}{}",
            "{\"a\":1,}",
            "{'a':1}",
            "{a:1}",
            "{\"a\":01}",
            "{\"a\":+1}",
            "{\"a\":1.}",
            "{\"a\":NaN}",
            "{\"a\":1e400}",
            "{\"a\":-1e400}",
            "{\"a\":\"\n\"}",
            "{\"a\":\"\\ud800\"}",
            "{\"a\":\"\\udc00\"}",
            "{\"a\":\"\\x\"}",
            "\u{feff}{}",
            "{}\0",
            "{}//",
        ] {
            assert_eq!(object(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(object(b"{\"a\":\"\xff\"}"), None);
        assert_eq!(object(b"{\"\xc0\xaf\":1}"), None);
    }

    #[test]
    fn a_name_stands_once_at_every_depth_however_it_is_written() {
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":1}"#,
            r#"{"x":[{"a":1,"b":2,"a":3}]}"#,
        ] {
            assert_eq!(object(text.as_bytes()), None, "{text}");
        }
        assert!(object(br#"{"a":{"a":1},"A":1}"#).is_some());
    }

    #[test]
    fn depth_ends_at_the_limit() {
        let nested = |lists: usize| {
            let text = format!("{{\"a\":{}{}}}", "[".repeat(lists), "]".repeat(lists));
            object(text.as_bytes()).is_some()
        };
        assert!(nested(JSON_DEPTH_MAX - 1));
        assert!(!nested(JSON_DEPTH_MAX));
        assert!(!nested(100_000));
        let objects = "{\"a\":".repeat(JSON_DEPTH_MAX) + "1" + &"}".repeat(JSON_DEPTH_MAX);
        assert!(object(objects.as_bytes()).is_some());
        assert!(object(format!("{{\"a\":{objects}}}").as_bytes()).is_none());
    }
}
