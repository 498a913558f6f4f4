//! What a client accepts (RFC 9110 section 12.5): shapes of an answer, and codings of its bytes.
//!
//! The highest quality wins; among equals what is named goes before what only a wildcard covers, and then what comes first; of
//! codings, zstd. A quality that cannot be read counts as none given. What is not listed is not acceptable, but for the bytes as they are.

use std::cmp::Reverse;

use http::{HeaderMap, HeaderName, header};

/// A shape of the `json` dialect's answers, in the gateway's own order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// One JSON document.
    Document,
    /// A line for each step.
    Lines,
    /// RFC 4180. Holds one result alone.
    Csv,
}

/// A coding of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// RFC 1952.
    Gzip,
    /// RFC 8878, in a window that RFC 9659 allows.
    Zstd,
}

/// How a body may be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Codings {
    /// What the client likes best, if that is not the bytes as they are.
    pub(super) coding: Option<Coding>,
    /// It does not take the bytes as they are.
    pub(super) required: bool,
}

/// The shapes that a client accepts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shapes([Option<Wish>; 3]);

/// How much something is liked; more is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Wish {
    /// In thousandths, at least 1.
    quality: u16,
    named: bool,
    place: Reverse<usize>,
}

// === shapes ===

impl Shapes {
    /// What `headers` ask for; anything, if nothing can be read.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        const LINES: [&str; 4] =
            ["application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"];
        let ranges = items(headers, header::ACCEPT);
        if ranges.is_empty() {
            let any = Wish { quality: 1000, named: false, place: Reverse(0) };
            return Self([Some(any); 3]);
        }
        let wish = |types: &[&str]| {
            let family = types[0].split_once('/').map_or("", |(family, _)| family);
            best(&ranges, |range| {
                if types.iter().any(|kind| range.eq_ignore_ascii_case(kind)) {
                    return Some(2);
                }
                let of_family = range.split_once('/').filter(|(_, kind)| *kind == "*");
                match of_family.map(|(range, _)| range) {
                    Some("*") => Some(0),
                    Some(range) if range.eq_ignore_ascii_case(family) => Some(1),
                    _ => None,
                }
            })
        };
        Self([wish(&["application/json"]), wish(&LINES), wish(&["text/csv"])])
    }

    /// The one that is liked best of those that can hold what is asked.
    pub(super) fn best(self, batch: bool) -> Option<Shape> {
        let Self([document, lines, csv]) = self;
        let offers = [(Shape::Document, document), (Shape::Lines, lines), (Shape::Csv, csv.filter(|_| !batch))];
        let wished = offers.into_iter().filter_map(|(shape, wish)| Some((shape, wish?)));
        // Among equals `max_by_key` takes the last.
        wished.rev().max_by_key(|(_, wish)| *wish).map(|(shape, _)| shape)
    }
}

// === codings ===

impl Codings {
    /// What `headers` ask for; `None` if there is nothing to be had that they accept. Where the gateway does not compress
    /// (`offered` is false), that is what takes the bytes as they are.
    pub(super) fn of(headers: &HeaderMap, offered: bool) -> Option<Self> {
        let ranges = items(headers, header::ACCEPT_ENCODING);
        let listed = |name: &str| ranges.iter().any(|range| range.name.eq_ignore_ascii_case(name));
        let wish = |names: &[&str]| {
            best(&ranges, |range| match range {
                "*" => Some(0),
                _ => names.iter().any(|name| range.eq_ignore_ascii_case(name)).then_some(1),
            })
        };
        // Not to be told from a refusal by `wish` alone.
        let refused = wish(&["identity"]).is_none() && (listed("identity") || listed("*"));
        // A wildcard is no sign that a client knows the younger one.
        let (gzip, zstd) = (wish(&["gzip", "x-gzip"]), wish(&["zstd"]).filter(|wish| wish.named));
        let offers = [(Coding::Gzip, gzip), (Coding::Zstd, zstd)];
        let liked = offers.into_iter().filter(|_| offered).filter_map(|(coding, wish)| Some((coding, wish?.quality)));
        let liked = liked.max_by_key(|(_, quality)| *quality);
        let plain = wish(&["identity"]).filter(|_| listed("identity")).map_or(0, |wish| wish.quality);
        match liked {
            Some((coding, quality)) if quality >= plain => Some(Self { coding: Some(coding), required: refused }),
            _ if refused => None,
            _ => Some(Self::default()),
        }
    }
}

// === reading ===

/// An element of a list, without its parameters but for its quality.
struct Item<'a> {
    name: &'a str,
    /// In thousandths.
    quality: u16,
}

/// The elements of a field, over all its lines.
fn items(headers: &HeaderMap, name: HeaderName) -> Vec<Item<'_>> {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    let read = |item| {
        let mut parts = str::split(item, ';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let quality = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q="))).and_then(thousandths);
        Item { name, quality: quality.unwrap_or(1000) }
    };
    lines.flat_map(|line| line.split(',')).map(read).filter(|item| !item.name.is_empty()).collect()
}

/// `0`, `1`, `0.5`, `0.333`, `1.000`.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let fraction = fraction.bytes().chain([b'0'; 3]).take(3).fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    match whole {
        "0" => Some(fraction),
        "1" if fraction == 0 => Some(1000),
        _ => None,
    }
}

/// What the items say of something, by how exactly each fits it: the most exact ones alone count.
fn best(items: &[Item<'_>], fits: impl Fn(&str) -> Option<u8>) -> Option<Wish> {
    let fitting = items.iter().enumerate().filter_map(|(place, item)| Some((fits(item.name)?, place, item.quality)));
    let wished = fitting
        .map(|(exactness, place, quality)| (exactness, Wish { quality, named: exactness > 0, place: Reverse(place) }));
    let (_, wish) = wished.max()?;
    (wish.quality > 0).then_some(wish)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    fn shape(accept: &str, batch: bool) -> Option<Shape> {
        Shapes::of(&headers(header::ACCEPT, accept)).best(batch)
    }

    #[test]
    fn an_answer_has_the_shape_that_is_liked_best() {
        for (accept, expected) in [
            ("*/*", Some(Shape::Document)),
            ("", Some(Shape::Document)),
            ("application/json", Some(Shape::Document)),
            ("application/*", Some(Shape::Document)),
            ("application/x-ndjson", Some(Shape::Lines)),
            ("text/html, application/JSONL;q=0.5", Some(Shape::Lines)),
            ("application/json;q=0, application/*", Some(Shape::Lines)),
            ("application/x-ndjson;q=0", None),
            ("application/x-ndjson;q=0.0, application/json", Some(Shape::Document)),
            ("application/json;q=0.5, application/ndjson;q=0.9, */*;q=0.1", Some(Shape::Lines)),
            ("application/ndjson, application/json", Some(Shape::Lines)),
            ("application/json, application/ndjson", Some(Shape::Document)),
            ("text/csv", Some(Shape::Csv)),
            ("Text/CSV; header=present; q=0.7", Some(Shape::Csv)),
            ("text/*", Some(Shape::Csv)),
            ("text/csv, */*", Some(Shape::Csv)),
            ("*/*, text/csv", Some(Shape::Csv)),
            ("text/csv;q=0.2, */*;q=0.8", Some(Shape::Document)),
            ("text/csv;q=0, text/*", None),
            ("application/json, text/plain, */*", Some(Shape::Document)),
            ("text/html", None),
            ("image/*, text/html;q=0.9", None),
            ("text/csv;q=nonsense", Some(Shape::Csv)),
        ] {
            assert_eq!(shape(accept, false), expected, "{accept}");
        }
        assert_eq!(Shapes::of(&HeaderMap::new()).best(false), Some(Shape::Document));
    }

    #[test]
    fn a_batch_is_not_told_in_csv() {
        assert_eq!(shape("text/csv", true), None);
        assert_eq!(shape("text/csv, */*;q=0.1", true), Some(Shape::Document));
        assert_eq!(shape("text/csv, application/jsonl;q=0.1", true), Some(Shape::Lines));
    }

    fn coding(accept: &str) -> Option<(Option<Coding>, bool)> {
        let found = Codings::of(&headers(header::ACCEPT_ENCODING, accept), true);
        found.map(|found| (found.coding, found.required))
    }

    #[test]
    fn bytes_are_coded_where_a_client_asks_for_it() {
        const GZIP: Option<Coding> = Some(Coding::Gzip);
        const ZSTD: Option<Coding> = Some(Coding::Zstd);
        for (accept, expected) in [
            ("", Some((None, false))),
            ("gzip", Some((GZIP, false))),
            ("X-GZIP", Some((GZIP, false))),
            ("gzip, deflate, br", Some((GZIP, false))),
            ("gzip, deflate, br, zstd", Some((ZSTD, false))),
            ("gzip, zstd;q=0.9", Some((GZIP, false))),
            ("gzip;q=0", Some((None, false))),
            ("br", Some((None, false))),
            ("*", Some((GZIP, false))),
            ("*;q=0", None),
            ("*;q=0, zstd", Some((ZSTD, true))),
            ("gzip;q=0, *;q=0.5", Some((None, false))),
            ("identity", Some((None, false))),
            ("identity, gzip;q=0.5", Some((None, false))),
            ("identity;q=0.5, gzip", Some((GZIP, false))),
            ("identity;q=0", None),
            ("identity;q=0, br", None),
            ("identity;q=0, gzip;q=0.001", Some((GZIP, true))),
        ] {
            assert_eq!(coding(accept), expected, "{accept}");
        }
        assert_eq!(Codings::of(&HeaderMap::new(), true), Some(Codings::default()));
    }

    #[test]
    fn a_route_that_does_not_compress_sends_bytes_as_they_are_or_nothing() {
        let off = |accept| Codings::of(&headers(header::ACCEPT_ENCODING, accept), false);
        assert_eq!(off("gzip, zstd"), Some(Codings::default()));
        assert_eq!(off("gzip, identity;q=0"), None);
    }

    proptest! {
        #[test]
        fn any_field_is_read(text in "[a-z*/;,=. q0-9\"]{0,60}") {
            let _ = shape(&text, true);
            let _ = coding(&text);
        }

        #[test]
        fn qualities_are_read_as_numbers(whole in 0..3_u16, fraction in 0..1000_u16) {
            let expected = (whole * 1000 + fraction <= 1000).then_some(whole * 1000 + fraction);
            prop_assert_eq!(thousandths(&format!("{whole}.{fraction:03}")), expected);
        }
    }
}
