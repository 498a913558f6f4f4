//! Named queries: SQL that the configuration holds, and callers ask for by name.

use std::{fmt, path::PathBuf};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, value::SeqAccessDeserializer},
};
use serde_json::Value;

use super::defaults::{ten_minutes, zero};
use crate::config::value::{Span, word};

/// `[named.NAME]`: one statement with typed parameters. All keys are live; answers that were kept of another definition are
/// not given out.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    /// The statement, in the database's own placeholder syntax: `$1`, `$2` in PostgreSQL, `?1`, `?2` in SQLite.
    pub sql: String,
    /// Its parameters, in the order of the placeholders. Default none.
    #[serde(default)]
    pub params: Vec<NamedParam>,
    /// `SET LOCAL role` before it. Default none: the pool's own. (PostgreSQL)
    #[serde(default)]
    pub role: Option<String>,
    /// What of the caller's verified claims becomes the setting `request.jwt.claims`: `true`, all; a list, those of these
    /// names; `false` (default): the setting is not made. (PostgreSQL)
    #[serde(default)]
    pub claims: Claims,
    /// What it counts for in the route's limits where it reaches the database. Default 1.
    #[serde(default = "one")]
    pub cost: u32,
    /// How long an answer is given again. Default 0s: never.
    #[serde(default = "zero")]
    pub cache: Span,
    /// When there is no connection to be had: `fail` (default), or the last good answer (`stale`).
    #[serde(default, deserialize_with = "word")]
    pub on_exhausted: OnExhausted,
    /// How old, beyond `cache`, such an answer may be. Default 10m.
    #[serde(default = "ten_minutes")]
    pub max_stale: Span,
    /// Longest run; within the route's deadline. Default: the pool's and the route's. (PostgreSQL: `statement_timeout` as well)
    #[serde(default)]
    pub timeout: Option<Span>,
    /// It writes nothing: it runs in a read-only transaction, may be asked for with GET, and kept. Default false.
    #[serde(default)]
    pub read_only: bool,
}

/// A parameter of a named query.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NamedParam {
    /// Its name to callers.
    pub name: String,
    /// PostgreSQL's name of its type.
    #[serde(rename = "type")]
    pub kind: ParamType,
    /// What it is where a caller leaves it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// It may be null; left out, it is, unless there is a `default`. Default false.
    #[serde(default)]
    pub nullable: bool,
    /// Most characters of a text, or elements of an array. Default no limit but the request's.
    #[serde(default)]
    pub max_length: Option<usize>,
}

/// A parameter's type: those that are checked here, and all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParamType {
    /// `bool`.
    Bool,
    /// `int2`, `int4` or `int8`: bits.
    Int(u32),
    /// `float4` or `float8`: bits.
    Float(u32),
    /// `numeric`.
    Numeric,
    /// `text`, `varchar`.
    Text,
    /// `uuid`.
    Uuid,
    /// `date`.
    Date,
    /// `timestamp`: without a zone.
    Timestamp,
    /// `timestamptz`: with a zone.
    TimestampTz,
    /// `json` or `jsonb`.
    Json(&'static str),
    /// An array.
    Array(Box<ParamType>),
    /// Any other: its text goes to the database as it is.
    Other(String),
}

/// Which claims a named query is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Claims {
    /// None, and the setting is not made.
    #[default]
    No,
    /// All.
    All,
    /// Those of these names.
    Only(Vec<String>),
}

/// What is answered when no connection is to be had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnExhausted {
    /// The error.
    #[default]
    Fail,
    /// The last good answer.
    Stale,
}

/// Which named queries a route serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Serves {
    /// None.
    #[default]
    None,
    /// All that there are.
    All,
    /// Those of these names.
    Only(Vec<String>),
}

/// Texts of raw SQL that a route lets through.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Allow {
    /// `learn`: all pass, and what is new is recorded; `enforce`: what the file does not hold is refused.
    #[serde(deserialize_with = "word")]
    pub mode: AllowMode,
    /// The file, one JSON object a line. Watched.
    pub file: PathBuf,
}

/// What an allow-list is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AllowMode {
    /// To be filled.
    Learn,
    /// To be held to.
    Enforce,
}

impl Named {
    /// Whether answers are kept.
    pub fn keeps(&self) -> bool {
        !self.cache.0.is_zero() || self.on_exhausted == OnExhausted::Stale
    }
}

impl Claims {
    /// Whether there is anything to set.
    pub fn are_set(&self) -> bool {
        *self != Self::No
    }
}

impl Serves {
    /// Whether it is none at all.
    pub fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Whether the query of this name is among them.
    pub fn has(&self, name: &str) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Only(names) => names.iter().any(|known| known == name),
        }
    }
}

// === text forms ===

impl From<&str> for ParamType {
    fn from(text: &str) -> Self {
        let text = text.trim();
        if let Some(element) = text.strip_suffix("[]") {
            return Self::Array(Box::new(element.into()));
        }
        match text.to_ascii_lowercase().as_str() {
            "bool" | "boolean" => Self::Bool,
            "int2" | "smallint" => Self::Int(16),
            "int4" | "int" | "integer" => Self::Int(32),
            "int8" | "bigint" => Self::Int(64),
            "float4" | "real" => Self::Float(32),
            "float8" | "double precision" => Self::Float(64),
            "numeric" | "decimal" => Self::Numeric,
            "text" | "varchar" | "character varying" => Self::Text,
            "uuid" => Self::Uuid,
            "date" => Self::Date,
            "timestamp" | "timestamp without time zone" => Self::Timestamp,
            "timestamptz" | "timestamp with time zone" => Self::TimestampTz,
            "json" => Self::Json("json"),
            "jsonb" => Self::Json("jsonb"),
            _ => Self::Other(text.to_owned()),
        }
    }
}

impl fmt::Display for ParamType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("bool"),
            Self::Int(bits) => write!(f, "int{}", bits / 8),
            Self::Float(bits) => write!(f, "float{}", bits / 8),
            Self::Numeric => f.write_str("numeric"),
            Self::Text => f.write_str("text"),
            Self::Uuid => f.write_str("uuid"),
            Self::Date => f.write_str("date"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::TimestampTz => f.write_str("timestamptz"),
            Self::Json(name) => f.write_str(name),
            Self::Array(element) => write!(f, "{element}[]"),
            Self::Other(name) => f.write_str(name),
        }
    }
}

impl<'de> Deserialize<'de> for ParamType {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(|text| text.as_str().into())
    }
}

impl Serialize for ParamType {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

// Written out, not `untagged`: that forgets where the mistake was, and what it was.
impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        /// Yes, no, or a list.
        struct Form;

        impl<'de> de::Visitor<'de> for Form {
            type Value = Claims;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`true`, `false` or a list of claims")
            }

            fn visit_bool<E>(self, yes: bool) -> Result<Claims, E> {
                Ok(if yes { Claims::All } else { Claims::No })
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, list: A) -> Result<Claims, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(Claims::Only)
            }
        }

        from.deserialize_any(Form)
    }
}

impl Serialize for Claims {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::No => to.serialize_bool(false),
            Self::All => to.serialize_bool(true),
            Self::Only(names) => names.serialize(to),
        }
    }
}

impl<'de> Deserialize<'de> for Serves {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        /// `"*"`, or a list.
        struct Form;

        impl<'de> de::Visitor<'de> for Form {
            type Value = Serves;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`\"*\"` or a list of named queries")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Serves, E> {
                let wrong = || format!("`{text}` is no list; write \"*\" for all, or [\"{text}\"]");
                if text == "*" { Ok(Serves::All) } else { Err(de::Error::custom(wrong())) }
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, list: A) -> Result<Serves, A::Error> {
                let names: Vec<String> = Vec::deserialize(SeqAccessDeserializer::new(list))?;
                Ok(match names.as_slice() {
                    [] => Serves::None,
                    [all] if all == "*" => Serves::All,
                    _ => Serves::Only(names),
                })
            }
        }

        from.deserialize_any(Form)
    }
}

impl Serialize for Serves {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => to.collect_seq(Vec::<String>::new()),
            Self::All => to.serialize_str("*"),
            Self::Only(names) => names.serialize(to),
        }
    }
}

fn one() -> u32 {
    1
}
