//! Reads a policy's configuration: one flat JSON object of numbers and choices, in a few kilobytes of component.
//!
//! The host hands a component the `config` of its `[plugin.NAME]` as JSON text, once an instance. A policy needs little of
//! JSON: an object of numbers and of words out of a list. So this reads just that, allocates only to refuse, and builds without
//! the machinery for parsing and printing floats that would be most of a small component.
//!
//! A configuration is taken whole or not at all, as far as the caller is concerned: on an error, drop what was written.
//! Every refusal names the key and says what it expects. What is left out: nested values, escapes in strings, and the last bit
//! of numbers with more than 15 digits.

/// One key that a policy understands.
#[derive(Debug)]
pub struct Field<'a> {
    /// The key.
    pub name: &'static str,
    /// What the value must be, for the refusal: "a number from 0 to 1".
    pub expects: &'static str,
    /// Where the value goes. Holds the default before.
    pub slot: Slot<'a>,
}

impl<'a> Field<'a> {
    /// A key that takes a number from `least` to `most`.
    pub fn number(name: &'static str, expects: &'static str, value: &'a mut f64, least: f64, most: f64) -> Self {
        Self { name, expects, slot: Slot::Number { value, least, most } }
    }

    /// A key that takes a whole number from `least` to `most`.
    pub fn whole(name: &'static str, expects: &'static str, value: &'a mut u32, least: u32, most: u32) -> Self {
        Self { name, expects, slot: Slot::Whole { value, least, most } }
    }
}

/// Where a value goes, and which ones are allowed.
#[derive(Debug)]
pub enum Slot<'a> {
    /// A number from `least` to `most`.
    Number {
        /// Destination.
        value: &'a mut f64,
        /// Least allowed.
        least: f64,
        /// Most allowed.
        most: f64,
    },
    /// A whole number from `least` to `most`.
    Whole {
        /// Destination.
        value: &'a mut u32,
        /// Least allowed.
        least: u32,
        /// Most allowed.
        most: u32,
    },
    /// A word out of a list; its position is kept.
    Choice {
        /// Destination: the position in `of`.
        value: &'a mut usize,
        /// The words.
        of: &'static [&'static str],
    },
}

/// Reads `json` into `fields`. `null` and blank text leave the defaults.
///
/// # Errors
///
/// In words fit for an operator: what is wrong, at which key, and what is expected. Some fields may have been written.
pub fn read(json: &str, fields: &mut [Field<'_>]) -> Result<(), String> {
    let mut text = Text { rest: json.as_bytes() };
    text.skip_space();
    if text.rest.is_empty() || text.take_word(b"null") {
        return text.end();
    }
    if !text.take(b'{') {
        return Err(String::from("the configuration must be an object"));
    }
    if !text.take(b'}') {
        loop {
            read_member(&mut text, fields)?;
            if text.take(b',') {
                continue;
            }
            if text.take(b'}') {
                break;
            }
            return Err(text.broken());
        }
    }
    text.end()
}

fn read_member(text: &mut Text<'_>, fields: &mut [Field<'_>]) -> Result<(), String> {
    let key = text.string().ok_or_else(|| text.broken())?;
    if !text.take(b':') {
        return Err(text.broken());
    }
    let Some(position) = fields.iter().position(|field| field.name.as_bytes() == key) else {
        return Err(unknown(key, fields));
    };
    let field = &mut fields[position];
    if write(text, &mut field.slot) {
        return Ok(());
    }
    Err(concat(&[b"`", field.name.as_bytes(), b"` must be ", field.expects.as_bytes()]))
}

/// Puts the next value into `slot`; false when it does not fit.
fn write(text: &mut Text<'_>, slot: &mut Slot<'_>) -> bool {
    match slot {
        Slot::Number { value, least, most } => match text.number() {
            Some(number) if number >= *least && number <= *most => **value = number,
            _ => return false,
        },
        Slot::Whole { value, least, most } => match text.number() {
            Some(number) if number >= f64::from(*least) && number <= f64::from(*most) && is_whole(number) => {
                **value = number as u32;
            }
            _ => return false,
        },
        Slot::Choice { value, of } => {
            let word = text.string();
            match of.iter().position(|known| word == Some(known.as_bytes())) {
                Some(position) => **value = position,
                None => return false,
            }
        }
    }
    true
}

/// Of a number within `u32`; spares the component `f64::fract`.
fn is_whole(number: f64) -> bool {
    f64::from(number as u32) == number
}

fn unknown(key: &[u8], fields: &[Field<'_>]) -> String {
    let mut message = concat(&[b"unknown key `", key, b"`; known: "]);
    for (index, field) in fields.iter().enumerate() {
        if index > 0 {
            message.push_str(", ");
        }
        message.push_str(field.name);
    }
    message
}

/// Joins texts without `format!`, whose machinery would be half of a small component. What is not ASCII shows as `?`.
fn concat(parts: &[&[u8]]) -> String {
    parts
        .iter()
        .flat_map(|part| part.iter())
        .map(|byte| if byte.is_ascii() { char::from(*byte) } else { '?' })
        .collect()
}

/// What is left to read.
struct Text<'a> {
    rest: &'a [u8],
}

impl<'a> Text<'a> {
    fn skip_space(&mut self) {
        while let [b' ' | b'\t' | b'\r' | b'\n', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    /// Takes `byte` and the space behind it, if it is next.
    fn take(&mut self, byte: u8) -> bool {
        match self.rest {
            [first, rest @ ..] if *first == byte => {
                self.rest = rest;
                self.skip_space();
                true
            }
            _ => false,
        }
    }

    fn take_word(&mut self, word: &[u8]) -> bool {
        match self.rest.strip_prefix(word) {
            Some(rest) => {
                self.rest = rest;
                self.skip_space();
                true
            }
            None => false,
        }
    }

    /// A string without escapes; none of our words needs any.
    fn string(&mut self) -> Option<&'a [u8]> {
        let inside = self.rest.strip_prefix(b"\"")?;
        let length = inside.iter().position(|byte| *byte == b'"' || *byte == b'\\' || *byte < b' ')?;
        let (word, rest) = inside.split_at(length);
        self.rest = rest.strip_prefix(b"\"")?;
        self.skip_space();
        Some(word)
    }

    /// A JSON number. Exact where digits and exponent are small (15 digits, 10^22), else within a few units of the last place.
    fn number(&mut self) -> Option<f64> {
        let negative = self.skip(b"-").is_some();
        let mut decimal = Decimal { digits: 0, exponent: 0 };
        self.digits(&mut decimal, false)?;
        if self.skip(b".").is_some() {
            self.digits(&mut decimal, true)?;
        }
        if self.skip(b"eE").is_some() {
            let down = self.skip(b"+-") == Some(b'-');
            let mut exponent = Decimal { digits: 0, exponent: 0 };
            self.digits(&mut exponent, false)?;
            // Far beyond what matters, and far from overflow.
            let exponent = exponent.digits.min(100_000) as i32;
            decimal.exponent = decimal.exponent.saturating_add(if down { -exponent } else { exponent });
        }
        // A number ends where JSON goes on; `1x` is none.
        let ends = matches!(self.rest, [] | [b' ' | b'\t' | b'\r' | b'\n' | b',' | b'}', ..]);
        self.skip_space();
        let magnitude = decimal.value();
        ends.then_some(if negative { -magnitude } else { magnitude })
    }

    /// Takes one of `bytes`, if one is next.
    fn skip(&mut self, bytes: &[u8]) -> Option<u8> {
        let (first, rest) = self.rest.split_first().filter(|(first, _)| bytes.contains(first))?;
        self.rest = rest;
        Some(*first)
    }

    /// Takes digits; `None` when there is none.
    fn digits(&mut self, decimal: &mut Decimal, fraction: bool) -> Option<()> {
        let mut any = None;
        while let [digit @ b'0'..=b'9', rest @ ..] = self.rest {
            self.rest = rest;
            decimal.push(digit - b'0', fraction);
            any = Some(());
        }
        any
    }

    fn end(&self) -> Result<(), String> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.broken()) }
    }

    fn broken(&self) -> String {
        if self.rest.is_empty() {
            return String::from("the configuration ends too early");
        }
        let near = &self.rest[..self.rest.len().min(16)];
        concat(&[b"the configuration is not an object of plain values near `", near, b"`"])
    }
}

/// `digits` times ten to the `exponent`.
struct Decimal {
    digits: u64,
    exponent: i32,
}

impl Decimal {
    /// Digits beyond what fits are dropped, counting only their place.
    fn push(&mut self, digit: u8, fraction: bool) {
        let fits = self.digits < u64::MAX / 10 - 1;
        if fits {
            self.digits = self.digits * 10 + u64::from(digit);
        }
        match (fits, fraction) {
            (true, true) => self.exponent = self.exponent.saturating_sub(1),
            (false, false) => self.exponent = self.exponent.saturating_add(1),
            _ => {}
        }
    }

    fn value(&self) -> f64 {
        let mut scale = 1.0;
        // Beyond 10^400 everything is zero or infinite.
        for _ in 0..self.exponent.unsigned_abs().min(400) {
            scale *= 10.0;
        }
        let digits = self.digits as f64;
        match (self.digits, self.exponent) {
            (0, _) => 0.0,
            (_, ..=0) => digits / scale,
            _ => digits * scale,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy as _, any, prop_assert, prop_assert_eq, proptest};

    use super::{Field, Slot, read};

    #[derive(Debug, PartialEq)]
    struct Example {
        share: f64,
        step: u32,
        mode: usize,
    }

    fn parse(json: &str) -> Result<Example, String> {
        let mut example = Example { share: 0.5, step: 5, mode: 0 };
        read(
            json,
            &mut [
                Field::number("share", "a number from 0 to 1", &mut example.share, 0.0, 1.0),
                Field::whole("step", "a whole number from 1 to 100", &mut example.step, 1, 100),
                Field {
                    name: "mode",
                    expects: "`calm` or `busy`",
                    slot: Slot::Choice { value: &mut example.mode, of: &["calm", "busy"] },
                },
            ],
        )?;
        Ok(example)
    }

    fn number(json: &str) -> Option<f64> {
        let mut value = f64::NAN;
        let slot = Slot::Number { value: &mut value, least: f64::NEG_INFINITY, most: f64::INFINITY };
        let text = format!("{{\"n\":{json}}}");
        read(&text, &mut [Field { name: "n", expects: "a number", slot }]).ok().map(|()| value)
    }

    #[test]
    fn nothing_keeps_the_defaults() {
        for json in ["null", "", "  ", "{}", " { } "] {
            assert_eq!(parse(json), Ok(Example { share: 0.5, step: 5, mode: 0 }), "{json}");
        }
    }

    #[test]
    fn an_object_is_read() {
        let read = parse(" {\"share\" : 0.7, \"mode\":\"busy\",\n\"step\":3e1 } ");
        assert_eq!(read, Ok(Example { share: 0.7, step: 30, mode: 1 }));
    }

    #[test]
    fn refusals_say_what_is_expected() {
        let refusals = [
            (r#"{"shares":1}"#, "unknown key `shares`; known: share, step, mode"),
            (r#"{"share":1.5}"#, "`share` must be a number from 0 to 1"),
            (r#"{"share":"0.5"}"#, "`share` must be a number from 0 to 1"),
            (r#"{"share":null}"#, "`share` must be a number from 0 to 1"),
            (r#"{"step":1.5}"#, "`step` must be a whole number from 1 to 100"),
            (r#"{"step":-1}"#, "`step` must be a whole number from 1 to 100"),
            (r#"{"step":1x}"#, "`step` must be a whole number from 1 to 100"),
            (r#"{"mode":"mad"}"#, "`mode` must be `calm` or `busy`"),
            (r#"{"mode":1}"#, "`mode` must be `calm` or `busy`"),
            ("[1]", "the configuration must be an object"),
            (r#"{"step":1"#, "the configuration ends too early"),
            (r#"{"step":1}}"#, "the configuration is not an object of plain values near `}`"),
            (r#"{"step" 1}"#, "the configuration is not an object of plain values near `1}`"),
        ];
        for (json, refusal) in refusals {
            assert_eq!(parse(json), Err(refusal.to_owned()), "{json}");
        }
    }

    #[test]
    fn numbers_at_the_edges() {
        assert_eq!(number("1e400"), Some(f64::INFINITY));
        assert_eq!(number("1e-400"), Some(0.0));
        assert_eq!(number("0e999999999999"), Some(0.0));
        assert_eq!(number("-0.25"), Some(-0.25));
        assert_eq!(number("123456789012345678901234567890"), Some(123_456_789_012_345_678_901_234_567_890.0));
        for bad in ["", "-", ".5", "1.", "1e", "0x1", "NaN", "+1"] {
            assert_eq!(number(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn short_decimals_are_exact(digits in 0_u64..1_000_000_000_000_000, places in 0_usize..15) {
            let text = format!("{digits}e-{places}");
            prop_assert_eq!(number(&text), text.parse().ok());
        }

        #[test]
        fn any_number_is_read_closely(value in any::<f64>().prop_filter("finite", |v| v.is_finite() && v.abs() > 1e-280 && v.abs() < 1e280)) {
            let read = number(&serde_json::to_string(&value).expect("finite"));
            prop_assert!(read.is_some_and(|read| ((read - value) / value).abs() < 1e-13), "{value}: {read:?}");
        }

        #[test]
        fn any_text_is_answered(text in "\\PC*") {
            let _ = parse(&text);
        }

        #[test]
        fn any_object_is_read_or_refused_as_serde_would(text in r#"[{}\[\]",:a-e0-9.\-+nulshrtop ]{0,40}"#) {
            if parse(&text).is_ok() && !text.trim().is_empty() {
                // Leading zeros are ours to forgive.
                prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok() || text.contains('0'), "{text}");
            }
        }
    }
}
