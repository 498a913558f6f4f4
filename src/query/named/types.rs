//! Values of parameters against their types, as far as that needs no database.
//!
//! What passes comes out in one form, however it was written (`7`, `"7"`, `?id=7`), so that one question is one question to
//! the cache, too. What PostgreSQL would read by the clock (`now`, `tomorrow`) does not pass.

use serde_json::{Number, Value};

use crate::{
    backend::Param,
    config::model::{NamedParam, ParamType},
};

/// Longest number in digits; PostgreSQL's own is beyond all use.
const LONGEST_NUMERIC: usize = 1000;

/// A value as a caller gave it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Given<'a> {
    /// In JSON.
    Param(&'a Param),
    /// In a query string.
    Text(&'a str),
}

/// The value as it goes to the database.
///
/// # Errors
/// What it should have been.
pub(super) fn value(param: &NamedParam, given: Given<'_>) -> Result<Param, String> {
    if matches!(given, Given::Param(Param::Null)) {
        return if param.nullable { Ok(Param::Null) } else { Err("must not be null".to_owned()) };
    }
    let value = match given {
        Given::Text(text) => from_text(&param.kind, text),
        Given::Param(given) => from_json(&param.kind, given),
    };
    let value = value.ok_or_else(|| format!("must be {}", wanted(&param.kind)))?;
    let most = param.max_length.unwrap_or(usize::MAX);
    match (&value, &param.kind) {
        (Param::Text(text), _) if text.contains('\0') => Err("holds a NUL character".to_owned()),
        (Param::Array(json), ParamType::Array(_)) if most < usize::MAX && elements(json) > most => {
            Err(format!("has more than {most} elements"))
        }
        (Param::Text(text), _) if text.len() > most && text.chars().count() > most => {
            Err(format!("is longer than {most} characters"))
        }
        _ => Ok(value),
    }
}

fn elements(json: &str) -> usize {
    serde_json::from_str::<Vec<serde::de::IgnoredAny>>(json).map_or(0, |items| items.len())
}

fn wanted(kind: &ParamType) -> String {
    match kind {
        ParamType::Bool => "true or false".into(),
        ParamType::Int(bits) => format!("a whole number of {bits} bits"),
        ParamType::Float(bits) => format!("a number of {bits} bits, \"NaN\", \"Infinity\" or \"-Infinity\""),
        ParamType::Numeric => "a decimal number".into(),
        ParamType::Text => "text".into(),
        ParamType::Uuid => "a UUID".into(),
        ParamType::Date => "a date such as 2026-01-31".into(),
        ParamType::Timestamp => "a time such as 2026-01-31T12:00:00, without a zone".into(),
        ParamType::TimestampTz => "a time with a zone, such as 2026-01-31T12:00:00Z".into(),
        ParamType::Json(_) => "JSON".into(),
        ParamType::Array(element) => format!("a list, each {}, or null", wanted(element)),
        ParamType::Other(name) => format!("{name}, as text"),
    }
}

// === from a query string ===

fn from_text(kind: &ParamType, text: &str) -> Option<Param> {
    match kind {
        ParamType::Json(_) => json_text(text),
        ParamType::Array(_) => from_json(kind, &serde_json::from_str(text).ok()?),
        ParamType::Bool => match text {
            "true" => Some(Param::Bool(true)),
            "false" => Some(Param::Bool(false)),
            _ => None,
        },
        _ => scalar(kind, text),
    }
}

/// JSON as it stands, if it is some.
fn json_text(text: &str) -> Option<Param> {
    // A tree would take many times the room, and is not needed.
    serde_json::from_str::<serde::de::IgnoredAny>(text).ok()?;
    Some(Param::Text(text.into()))
}

// === from JSON ===

fn from_json(kind: &ParamType, given: &Param) -> Option<Param> {
    match (kind, given) {
        (ParamType::Json(_), given) => Some(Param::Text(written(given).into())),
        (ParamType::Array(element), Param::Array(json)) => list(element, json),
        (ParamType::Array(_), _) | (_, Param::Null) => None,
        (ParamType::Bool, Param::Bool(_)) => Some(given.clone()),
        (ParamType::Bool, Param::Text(text)) => from_text(kind, text),
        (ParamType::Int(_) | ParamType::Float(_) | ParamType::Numeric, Param::Number(number)) => {
            scalar(kind, &number.to_string())
        }
        (ParamType::Other(_), Param::Bool(_) | Param::Number(_) | Param::Array(_) | Param::Object(_)) => {
            Some(given.clone())
        }
        (_, Param::Text(text)) => scalar(kind, text),
        _ => None,
    }
}

/// A parameter as JSON.
fn written(given: &Param) -> String {
    match given {
        Param::Null => "null".to_owned(),
        Param::Bool(truth) => truth.to_string(),
        Param::Number(number) => number.to_string(),
        Param::Text(text) => Value::from(&**text).to_string(),
        Param::Array(json) | Param::Object(json) => json.to_string(),
    }
}

/// Each element in its one form; what is JSON in PostgreSQL is text in the list.
fn list(element: &ParamType, json: &str) -> Option<Param> {
    let items: Vec<Param> = serde_json::from_str(json).ok()?;
    let mut out = String::with_capacity(json.len());
    out.push('[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        match item {
            Param::Null => out.push_str("null"),
            item => {
                let item = from_json(element, item)?;
                if matches!(&item, Param::Text(text) if text.contains('\0')) {
                    return None;
                }
                out.push_str(&written(&item));
            }
        }
    }
    out.push(']');
    Some(Param::Array(out.into()))
}

// === texts of single values ===

fn scalar(kind: &ParamType, text: &str) -> Option<Param> {
    let as_it_is = || Some(Param::Text(text.into()));
    match kind {
        ParamType::Int(bits) => int(*bits, text).map(|number| Param::Number(number.into())),
        ParamType::Float(bits) => float(*bits, text),
        ParamType::Numeric => is_numeric(text).then(as_it_is)?,
        ParamType::Uuid => uuid(text).map(|text| Param::Text(text.into())),
        ParamType::Date => (is_date(text) || is_infinite(text)).then(as_it_is)?,
        ParamType::Timestamp => (is_infinite(text) || timestamp(text) == Some("")).then(as_it_is)?,
        ParamType::TimestampTz => (is_infinite(text) || timestamp(text).is_some_and(is_zone)).then(as_it_is)?,
        ParamType::Text | ParamType::Other(_) => as_it_is(),
        ParamType::Bool | ParamType::Json(_) | ParamType::Array(_) => None,
    }
}

fn int(bits: u32, text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let number: i64 = plain.then(|| text.parse().ok())??;
    let most = i64::MAX >> (64 - bits);
    (-most - 1..=most).contains(&number).then_some(number)
}

fn float(bits: u32, text: &str) -> Option<Param> {
    if matches!(text, "NaN" | "Infinity" | "-Infinity") {
        return Some(Param::Text(text.into()));
    }
    let number: f64 = is_decimal(text).then(|| text.parse().ok())??;
    let fits = number.is_finite() && (bits == 64 || (number as f32).is_finite());
    fits.then(|| Number::from_f64(number).map(Param::Number))?
}

fn is_numeric(text: &str) -> bool {
    matches!(text, "NaN" | "Infinity" | "-Infinity") || (text.len() <= LONGEST_NUMERIC && is_decimal(text))
}

/// Digits with a point somewhere, and an exponent perhaps.
fn is_decimal(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (text, None),
    };
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    digits(whole)
        && digits(part)
        && !(whole.is_empty() && part.is_empty())
        && exponent.is_none_or(|exponent| !exponent.is_empty() && exponent.len() <= 4 && digits(exponent))
}

/// In groups of 8, 4, 4, 4 and 12 digits, or without the dashes; in lower case.
fn uuid(text: &str) -> Option<String> {
    let dashes: Vec<usize> = text.match_indices('-').map(|(at, _)| at).collect();
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    let placed = dashes.is_empty() || dashes == [8, 13, 18, 23];
    let whole = placed && digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let digits = digits.to_ascii_lowercase();
    whole.then(|| {
        format!("{}-{}-{}-{}-{}", &digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..])
    })
}

fn is_infinite(text: &str) -> bool {
    matches!(text, "infinity" | "-infinity")
}

/// A day of the Gregorian calendar, in ISO 8601.
fn is_date(text: &str) -> bool {
    let Some((year, rest)) = text.split_once('-') else { return false };
    let Some((month, day)) = rest.split_once('-') else { return false };
    let year = number(year, 4..=6).filter(|year| *year > 0);
    let (Some(year), Some(month), Some(day)) = (year, number(month, 2..=2), number(day, 2..=2)) else {
        return false;
    };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return false,
    };
    (1..=days).contains(&day)
}

/// What stands behind date and time of day; none if these do not stand in front.
fn timestamp(text: &str) -> Option<&str> {
    let at = text.find(['T', 't', ' '])?;
    let (date, time) = (&text[..at], &text[at + 1..]);
    let end = time.find(|c: char| !c.is_ascii_digit() && c != ':' && c != '.').unwrap_or(time.len());
    let (time, zone) = time.split_at(end);
    let (clock, fraction) = time.split_once('.').map_or((time, None), |(clock, fraction)| (clock, Some(fraction)));
    let mut parts = clock.split(':').map(|part| number(part, 2..=2));
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next().unwrap_or(Some(0))?);
    let sound = parts.next().is_none()
        && hour < 24
        && minute < 60
        && second < 60
        && fraction.is_none_or(|fraction| number(fraction, 1..=9).is_some());
    (sound && is_date(date)).then_some(zone)
}

/// `Z`, `+02`, `+0200` or `+02:00`.
fn is_zone(text: &str) -> bool {
    let Some(offset) = text.strip_prefix(['+', '-']) else { return matches!(text, "Z" | "z") };
    let (hours, minutes) = match offset.len() {
        2 => (offset, "00"),
        4 if offset.is_ascii() => offset.split_at(2),
        _ => offset.split_once(':').unwrap_or_default(),
    };
    number(hours, 2..=2).is_some_and(|hours| hours < 16) && number(minutes, 2..=2).is_some_and(|minutes| minutes < 60)
}

/// So many digits.
fn number(text: &str, length: std::ops::RangeInclusive<usize>) -> Option<u32> {
    let digits = length.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn param(kind: &str) -> NamedParam {
        NamedParam { name: "p".into(), kind: kind.into(), default: None, nullable: false, max_length: None }
    }

    fn of_json(kind: &str, given: &Value) -> Result<Param, String> {
        value(&param(kind), Given::Param(&given.clone().into()))
    }

    fn of_text(kind: &str, given: &str) -> Result<Param, String> {
        value(&param(kind), Given::Text(given))
    }

    #[test]
    fn what_fits_a_type_comes_out_in_one_form() {
        for (kind, forms, expected) in [
            ("int8", vec![json!(7), json!("7"), json!("007")], json!(7)),
            ("int2", vec![json!(-32768), json!("-32768")], json!(-32768)),
            ("bool", vec![json!(true), json!("true")], json!(true)),
            ("float8", vec![json!(1.5), json!("1.5"), json!("15e-1"), json!("+1.50")], json!(1.5)),
            ("float8", vec![json!("NaN")], json!("NaN")),
            ("numeric", vec![json!("1.50")], json!("1.50")),
            ("text", vec![json!("O'Brien; drop table t --")], json!("O'Brien; drop table t --")),
            (
                "uuid",
                vec![json!("0F8FAD5B-D9CB-469F-A165-70867728950E"), json!("0f8fad5bd9cb469fa16570867728950e")],
                json!("0f8fad5b-d9cb-469f-a165-70867728950e"),
            ),
            ("date", vec![json!("2024-02-29")], json!("2024-02-29")),
            ("timestamptz", vec![json!("2026-01-31T12:00:00.123456+02:00")], json!("2026-01-31T12:00:00.123456+02:00")),
            ("jsonb", vec![json!({"a": [1]})], json!("{\"a\":[1]}")),
            ("jsonb", vec![json!("x")], json!("\"x\"")),
            ("int4[]", vec![json!([1, "2", null])], json!([1, 2, null])),
            ("int4[][]", vec![json!([[1], [2]])], json!([[1], [2]])),
            ("json[]", vec![json!([{"a": 1}, "x", null])], json!(["{\"a\":1}", "\"x\"", null])),
            ("mood", vec![json!("happy")], json!("happy")),
        ] {
            for form in forms {
                assert_eq!(of_json(kind, &form), Ok(expected.clone().into()), "{kind} {form}");
                // As a query string has it: JSON for what has parts, the bare text for the rest.
                let text = match (&form, kind) {
                    (Value::String(text), kind) if !kind.starts_with("json") => text.clone(),
                    (form, _) => form.to_string(),
                };
                assert_eq!(of_text(kind, &text), Ok(expected.clone().into()), "{kind} {text}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_says_what_would() {
        for (kind, given) in [
            ("int2", json!(32768)),
            ("int4", json!(-2_147_483_649_i64)),
            ("int8", json!(1.0)),
            ("int8", json!("1 or 1=1")),
            ("int8", json!(" 1")),
            ("int8", json!("9223372036854775808")),
            ("int8", json!("")),
            ("int8", json!(true)),
            ("int8", json!([1])),
            ("bool", json!(1)),
            ("bool", json!("yes")),
            ("float4", json!(1e39)),
            ("float8", json!("1e400")),
            ("float8", json!("inf")),
            ("numeric", json!("1,5")),
            ("numeric", json!(".")),
            ("numeric", json!("0x10")),
            ("text", json!(1)),
            ("text", json!({"a": 1})),
            ("text", json!("a\0b")),
            ("uuid", json!("0f8fad5b-d9cb-469f-a165-70867728950")),
            ("uuid", json!("0f8fad5bd-9cb-469f-a165-70867728950e")),
            ("uuid", json!("éééééééééééééééé")),
            ("date", json!("2023-02-29")),
            ("date", json!("2023-13-01")),
            ("date", json!("0000-01-01")),
            ("date", json!("tomorrow")),
            ("timestamptz", json!("now")),
            ("timestamptz", json!("2026-01-31T12:00:00")),
            ("timestamptz", json!("2026-01-31T24:00:00Z")),
            ("timestamptz", json!("2026-01-31T12:00:00+16")),
            ("timestamptz", json!("2026-01-31T12:00:00+é1")),
            ("timestamp", json!("2026-01-31T12:00:00Z")),
            ("int4[]", json!([1, "x"])),
            ("int4[]", json!("{1}")),
            ("text[]", json!(["a\0b"])),
            ("int4", json!(null)),
        ] {
            assert!(of_json(kind, &given).is_err(), "{kind} {given}");
        }
        assert!(of_text("jsonb", "{").is_err() && of_text("int4[]", "{1}").is_err());
        assert_eq!(of_text("int2", "x"), Err("must be a whole number of 16 bits".into()));
    }

    #[test]
    fn null_and_lengths_are_what_the_parameter_says() {
        let nullable = NamedParam { nullable: true, ..param("int8") };
        assert_eq!(value(&nullable, Given::Param(&Param::Null)), Ok(Param::Null));
        let short = NamedParam { max_length: Some(2), ..param("text") };
        assert!(value(&short, Given::Text("éé")).is_ok(), "characters count, not bytes");
        assert_eq!(value(&short, Given::Text("abc")), Err("is longer than 2 characters".into()));
        let few = NamedParam { max_length: Some(2), ..param("int4[]") };
        assert!(value(&few, Given::Text("[1,2]")).is_ok());
        assert_eq!(value(&few, Given::Text("[1,2,3]")), Err("has more than 2 elements".into()));
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_passes_passes_again(
            kind in prop::sample::select(vec!["bool", "int2", "int8", "float4", "float8", "numeric", "uuid", "date",
                "timestamp", "timestamptz", "jsonb", "int4[]", "text[]", "mood"]),
            text in "[-0-9T:. zZ+eE,\\[\\]{}\"a-f/]{0,40}|\\PC{0,20}",
        ) {
            if let (Ok(once), true) = (of_text(kind, &text), kind != "jsonb") {
                prop_assert_eq!(value(&param(kind), Given::Param(&once)), Ok(once));
            }
        }

        #[test]
        fn every_whole_number_fits_exactly_its_widths(number in any::<i64>()) {
            for (kind, fits) in [("int2", i16::try_from(number).is_ok()), ("int4", i32::try_from(number).is_ok()), ("int8", true)] {
                prop_assert_eq!(of_text(kind, &number.to_string()).is_ok(), fits);
            }
        }
    }
}
