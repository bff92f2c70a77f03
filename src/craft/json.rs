//! JSON from outside, in which no name means two things.
//!
//! RFC 8259 leaves open which of two values of one name counts, and programs differ: a value that a
//! check saw need not be the one that is used. Here such a text is refused.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Reads one value.
///
/// # Errors
/// The text is not JSON, or an object in it gives one name two different values.
pub fn parse(text: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str::<Unique>(text).map(|unique| unique.0)
}

struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor).map(Self)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut out = Vec::new();
        while let Some(Unique(value)) = list.next_element()? {
            out.push(value);
        }
        Ok(Value::Array(out))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        let mut out = Map::new();
        while let Some((name, Unique(value))) = object.next_entry::<String, Unique>()? {
            if out.get(&name).is_some_and(|before| *before != value) {
                return Err(A::Error::custom(format!("{name:?} has two different values")));
            }
            out.insert(name, value);
        }
        Ok(Value::Object(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_serde_json_reads_it_but_for_names_that_come_twice() {
        for text in [
            "null",
            "true",
            "-5",
            "18446744073709551615",
            "1.5",
            "\"a\\u00e9\\n\"",
            "[1, [], {\"a\": {\"b\": [null, false]}}]",
            "{\"a\": 1, \"b\": 1, \"a\": 1}",
        ] {
            let value: Value = serde_json::from_str(text).unwrap();
            assert_eq!(parse(text).unwrap(), value, "{text}");
        }
        for text in ["", "{", "[1,]", "1 2", "{\"a\" 1}"] {
            assert!(parse(text).is_err(), "{text}");
        }
        for text in [
            "{\"a\": 1, \"a\": 2}",
            "[{\"x\": {\"a\": \"1\", \"a\": 1}}]",
            "{\"a\": null, \"\\u0061\": {}}",
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains("\"a\" has two different values"), "{text}: {error}");
        }
    }
}
