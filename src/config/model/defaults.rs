//! Defaults that several tables have.

use crate::config::value::Span;

pub(super) fn yes() -> bool {
    true
}

pub(super) fn zero() -> Span {
    Span::secs(0)
}

pub(super) fn one_second() -> Span {
    Span::secs(1)
}

pub(super) fn three_seconds() -> Span {
    Span::secs(3)
}

pub(super) fn five_seconds() -> Span {
    Span::secs(5)
}

pub(super) fn ten_seconds() -> Span {
    Span::secs(10)
}

pub(super) fn half_minute() -> Span {
    Span::secs(30)
}

pub(super) fn minute() -> Span {
    Span::secs(60)
}

pub(super) fn two_minutes() -> Span {
    Span::secs(120)
}

pub(super) fn ten_minutes() -> Span {
    Span::secs(600)
}

pub(super) fn hour() -> Span {
    Span::secs(3600)
}

pub(super) fn permanent() -> u16 {
    308
}
