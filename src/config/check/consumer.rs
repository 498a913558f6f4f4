//! `[consumer.NAME]`.

use std::collections::BTreeMap;

use super::{Check, route::method_form, syntax};
use crate::config::{key, model::Consumer};

/// What PostgreSQL keeps of an identifier, in bytes (`NAMEDATALEN`).
const LONGEST_ROLE: usize = 63;

impl Check<'_> {
    pub(super) fn consumers(&mut self) {
        let config = self.config;
        let mut owners: BTreeMap<String, &str> = BTreeMap::new();
        for (name, consumer) in &config.consumer {
            let at = key::join("consumer", name);
            for (index, digest) in consumer.key_sha256.iter().flatten().enumerate() {
                let key = format!("{at}.key_sha256[{index}]");
                if !syntax::sha256(digest) {
                    self.wrong(key, "must be 64 hex digits, as `sluicegate key new` prints them");
                } else if let Some(owner) = owners.insert(digest.to_ascii_lowercase(), name) {
                    self.wrong(key, format!("the key is one of `{owner}` already: it can name one consumer"));
                }
            }
            let message = "nothing says who this is: give `key_sha256`, from `sluicegate key new`";
            self.unless(consumer.key_sha256.is_some(), at.clone(), message);
            self.consumer_scope(&at, consumer);
            self.consumer_bounds(&at, consumer);
        }
    }

    /// Where, how and as whom.
    fn consumer_scope(&mut self, at: &str, consumer: &Consumer) {
        let config = self.config;
        if let Some(role) = &consumer.role {
            let holds = (1..=LONGEST_ROLE).contains(&role.len()) && !role.contains('\0');
            self.unless(holds, format!("{at}.role"), "the name of a role has 1 to 63 bytes");
        }
        let empty = |list: Option<usize>| list == Some(0);
        for (name, list) in [
            ("pools", consumer.pools.as_ref().map(Vec::len)),
            ("methods", consumer.methods.as_ref().map(Vec::len)),
            ("networks", consumer.networks.as_ref().map(Vec::len)),
        ] {
            let message =
                "the list is empty: the consumer could do nothing; leave it out if it is not to bound anything";
            self.unless(!empty(list), format!("{at}.{name}"), message);
        }
        for (index, pool) in consumer.pools.iter().flatten().enumerate() {
            self.refer(format!("{at}.pools[{index}]"), "pool", pool, config.pool.keys());
        }
        for (index, method) in consumer.methods.iter().flatten().enumerate() {
            self.parsed(method_form(method), format!("{at}.methods[{index}]"));
        }
    }

    /// How much.
    fn consumer_bounds(&mut self, at: &str, consumer: &Consumer) {
        if let Some(rate) = &consumer.rate {
            let countable = rate.per.as_nanos() >= u128::from(rate.count);
            self.unless(countable, format!("{at}.rate"), "more than one in a nanosecond");
        } else {
            self.unless(
                consumer.burst.is_none(),
                format!("{at}.burst"),
                "there is no `rate` that it could be the burst of",
            );
        }
        for (name, number) in [("burst", consumer.burst), ("max_concurrent", consumer.max_concurrent)] {
            if let Some(number) = number {
                self.number(format!("{at}.{name}"), number, 1, u32::MAX.into());
            }
        }
        if let Some(rows) = consumer.max_rows {
            self.number(format!("{at}.max_rows"), rows, 1, u64::MAX);
        }
        if let Some(size) = consumer.max_response {
            self.unless(size.0 > 0, format!("{at}.max_response"), "must be more than 0B");
        }
        if let Some(deadline) = consumer.deadline {
            self.positive(at, &[("deadline", deadline)]);
        }
    }
}
