//! Parameters, as a caller gives them.
//!
//! They are held while their request waits for a connection, and a caller chooses how many there are and what is in them. As
//! trees, arrays and objects would take up to a hundred times the length of their text: so text is what they stay.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::Number;

/// A parameter. Each backend renders its own form.
#[derive(Clone, Debug, PartialEq)]
pub enum Param {
    /// JSON's null.
    Null,
    /// A boolean.
    Bool(bool),
    /// A number; what 64 bits do not hold exactly is rounded.
    Number(Number),
    /// A string.
    Text(Box<str>),
    /// An array, as JSON without spaces.
    Array(Box<str>),
    /// An object, as JSON without spaces.
    Object(Box<str>),
}

impl<'de> Deserialize<'de> for Param {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Reading)
    }
}

#[cfg(test)]
impl From<serde_json::Value> for Param {
    fn from(value: serde_json::Value) -> Self {
        serde_json::from_value(value).unwrap()
    }
}

struct Reading;

impl<'de> Visitor<'de> for Reading {
    type Value = Param;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Param, E> {
        Ok(Param::Null)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Param, E> {
        Ok(Param::Bool(truth))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Param, E> {
        Ok(Param::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Param, E> {
        Ok(Param::Number(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Param, E> {
        // JSON has no infinities, and no NaN.
        Ok(Number::from_f64(number).map_or(Param::Null, Param::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Param, E> {
        Ok(Param::Text(text.into()))
    }

    fn visit_string<E>(self, text: String) -> Result<Param, E> {
        Ok(Param::Text(text.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Param, A::Error> {
        let mut text = String::new();
        Render(&mut text).visit_seq(items)?;
        Ok(Param::Array(text.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Param, A::Error> {
        let mut text = String::new();
        Render(&mut text).visit_map(members)?;
        Ok(Param::Object(text.into()))
    }
}

/// Writes what is read as JSON without spaces.
pub(super) struct Render<'a>(pub(super) &'a mut String);

impl Render<'_> {
    fn scalar<E: Error>(self, value: &impl serde::Serialize) -> Result<(), E> {
        self.0.push_str(&serde_json::to_string(value).map_err(E::custom)?);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Render<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Render<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Reading.expecting(f)
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.0.push_str("null");
        Ok(())
    }

    fn visit_bool<E: Error>(self, truth: bool) -> Result<(), E> {
        self.scalar(&truth)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        self.scalar(&number)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        self.scalar(&number)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        self.scalar(&number)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.scalar(&text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        self.0.push('[');
        let start = self.0.len();
        while items.next_element_seed(After(&mut *self.0, start))?.is_some() {}
        self.0.push(']');
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        self.0.push('{');
        let start = self.0.len();
        while members.next_key_seed(After(&mut *self.0, start))?.is_some() {
            self.0.push(':');
            members.next_value_seed(Render(&mut *self.0))?;
        }
        self.0.push('}');
        Ok(())
    }
}

/// Writes an item, and a comma before it if it is not the first: those begin at this length.
struct After<'a>(&'a mut String, usize);

impl<'de> DeserializeSeed<'de> for After<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        if self.0.len() > self.1 {
            self.0.push(',');
        }
        Render(self.0).deserialize(from)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn read(text: &str) -> Param {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_has_parts_stays_text() {
        assert_eq!(read("null"), Param::Null);
        assert_eq!(read("true"), Param::Bool(true));
        assert_eq!(read("-7"), Param::Number((-7).into()));
        assert_eq!(read(r#""a\"\u0000""#), Param::Text("a\"\0".into()));
        assert_eq!(read(r#"[ 1, [ null ], {}, "\n" ]"#), Param::Array(r#"[1,[null],{},"\n"]"#.into()));
        assert_eq!(read(r#"{ "b" : 1.5 , "a" : { "c" : [ ] } }"#), Param::Object(r#"{"b":1.5,"a":{"c":[]}}"#.into()));
        assert!(size_of::<Param>() <= 24);
    }

    proptest! {
        #[test]
        fn it_is_the_same_value(numbers in prop::collection::vec(any::<f64>(), 0..4), text in ".{0,20}", whole in any::<i64>()) {
            let numbers: Vec<f64> = numbers.into_iter().filter(|number| number.is_finite()).collect();
            let value = json!([{ &text: numbers, "": [whole, u64::MAX, null] }, text, false]);
            let Param::Array(rendered) = read(&value.to_string()) else { panic!("{value}") };
            prop_assert_eq!(serde_json::from_str::<Value>(&rendered).unwrap(), value);
        }
    }
}
