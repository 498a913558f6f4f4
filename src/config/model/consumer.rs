//! Consumers: who calls, and what they may do at most.

use std::{collections::BTreeMap, fmt};

use ipnet::IpNet;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{
        self,
        value::{MapAccessDeserializer, SeqAccessDeserializer},
    },
};

use crate::config::value::{Moment, Rate, Size, Span, maybe_networks, maybe_word, word};

/// `[consumer.NAME]`. Live: a credential that is taken out is refused on its next request. What is not said bounds nothing.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Consumer {
    /// SHA-256 of each API key, 64 hex digits, as printed by `sluicegate key new`.
    pub key_sha256: Option<Vec<String>>,
    /// Tokens that stand for this consumer.
    pub jwt: Option<Tokens>,
    /// Names of client certificates that stand for this consumer, any of them: `dns:NAME`, `uri:URI` or `email:ADDRESS` among the
    /// alternative names, or `sha256:DIGITS` of the whole certificate.
    pub certificate: Option<Vec<String>>,
    /// The listener that these come by; one by another listener is not this consumer's. Default: any that asks for certificates, as
    /// long as all of them ask by the same file of CAs.
    pub certificate_listener: Option<String>,
    /// What is kept of a key for tunnels with `tunnel_auth = "scram"`, as printed by `sluicegate key new --scram`. The consumer's name is then
    /// the user's.
    pub scram: Option<String>,
    /// Login role on pools with `per = "role"`; default: the consumer's name.
    pub role: Option<String>,
    /// `any` (default) or `named`: whether the consumer may send SQL of its own.
    #[serde(deserialize_with = "word")]
    pub queries: Queries,
    /// Every query runs in a read-only transaction. Default false.
    pub read_only: bool,
    /// Pools that may be asked; default: those of the routes that let the consumer in.
    pub pools: Option<Vec<String>>,
    /// Methods that may be used; default: those of the routes.
    pub methods: Option<Vec<String>>,
    /// Networks that the client's address must be in; default: any.
    #[serde(deserialize_with = "maybe_networks")]
    pub networks: Option<Vec<IpNet>>,
    /// From when on the consumer is refused (RFC 3339, in UTC).
    pub expires: Option<Moment>,
    /// Requests admitted in the long run.
    pub rate: Option<Rate>,
    /// Requests admitted at once after a pause; default: the rate's count.
    pub burst: Option<u32>,
    /// Requests at a time, each until its answer has been sent; a tunnel counts as long as it is open.
    pub max_concurrent: Option<u32>,
    /// Most rows in one answer, where that is less than the route's `query.max_rows`.
    pub max_rows: Option<u64>,
    /// Most bytes in one answer of a query, where that is less than the route's `query.max_response`.
    pub max_response: Option<Size>,
    /// Overall deadline of a query, where that is less than the route's `deadline`.
    pub deadline: Option<Span>,
    /// How WebSocket tunnels hold a connection, where that is less than what the route lets: `session`, `transaction` or `off`.
    #[serde(deserialize_with = "maybe_word")]
    pub tunnel: Option<TunnelMode>,
}

/// `consumer.NAME.jwt`: which tokens stand for a consumer.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    /// The `[issuer.NAME]` that has signed them.
    pub issuer: String,
    /// What they must claim. Default: nothing, so that every token of the issuer will do.
    #[serde(default)]
    pub claims: Option<BTreeMap<String, Claim>>,
}

/// What a claim must be.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Claim {
    /// This text, or a list that holds it; of `scope`, one of its words.
    Text(String),
    /// This number.
    Number(i64),
    /// This truth.
    Flag(bool),
    /// Any of these.
    AnyOf(Vec<Claim>),
    /// An object, whose members must be so.
    Within(BTreeMap<String, Claim>),
}

/// Whose SQL a consumer may run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Queries {
    /// Any.
    #[default]
    Any,
    /// Named queries of the configuration, or texts that are on its list.
    Named,
}

/// For how long a tunnel holds a connection to the database. In this order, each lets less than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TunnelMode {
    /// As long as it is open.
    Session,
    /// For a transaction.
    Transaction,
    /// There is none.
    Off,
}

// Written out, not `untagged`: that forgets where in the table the mistake was, and what it was.
impl<'de> Deserialize<'de> for Claim {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        /// Any of its forms.
        struct Form;

        impl<'de> de::Visitor<'de> for Form {
            type Value = Claim;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text, a whole number, `true` or `false`, a list of them, or a table")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Claim, E> {
                Ok(Claim::Text(text.to_owned()))
            }

            fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Claim, E> {
                Ok(Claim::Flag(flag))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Claim, E> {
                Ok(Claim::Number(number))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Claim, E> {
                let number = i64::try_from(number);
                number.map(Claim::Number).map_err(|_| E::invalid_value(de::Unexpected::Other("a larger one"), &self))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, list: A) -> Result<Claim, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(Claim::AnyOf)
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Claim, A::Error> {
                BTreeMap::deserialize(MapAccessDeserializer::new(map)).map(Claim::Within)
            }
        }

        from.deserialize_any(Form)
    }
}
