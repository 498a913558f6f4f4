//! `[consumer.NAME]`.

use std::collections::BTreeMap;

use super::{Check, LONGEST_ROLE, route::method_form, syntax};
use crate::config::{
    key,
    model::{Claim, ClientCertificates, Consumer, Tokens},
    value::sha256,
    words,
};

/// SHA-256 of nothing: of a variable that was not set, as `printf '%s' "$KEY" | sha256sum` has it.
const OF_NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

impl Check<'_> {
    pub(super) fn consumers(&mut self) {
        let config = self.config;
        let mut owners: BTreeMap<String, &str> = BTreeMap::new();
        self.tokens();
        self.client_certificates();
        for (name, consumer) in &config.consumer {
            let at = key::join("consumer", name);
            for (index, digest) in consumer.key_sha256.iter().flatten().enumerate() {
                let key = format!("{at}.key_sha256[{index}]");
                if sha256(digest).is_none() {
                    self.wrong(key, "must be 64 hex digits, as `sluicegate key new` prints them");
                } else if digest.eq_ignore_ascii_case(OF_NOTHING) {
                    self.wrong(key, "it is the digest of nothing: the key was empty when it was taken");
                } else if let Some(owner) = owners.insert(digest.to_ascii_lowercase(), name) {
                    self.wrong(key, format!("the key is one of `{owner}` already: it can name one consumer"));
                }
            }
            let asked = [consumer.jwt.is_some(), consumer.certificate.is_some(), consumer.scram.is_some()];
            let known = consumer.key_sha256.is_some() || asked.contains(&true);
            let message = "nothing says who this is: give `key_sha256` (from `sluicegate key new`), `jwt`, `certificate` or \
                           `scram`";
            self.unless(known, at.clone(), message);
            self.consumer_scope(&at, consumer);
            self.consumer_bounds(&at, consumer);
        }
    }

    /// A token must not be able to stand for two by what the configuration says. Where two ask for different claims, one token may
    /// still have both: that is refused when it comes.
    fn tokens(&mut self) {
        let config = self.config;
        let all: Vec<(&String, &Tokens)> =
            config.consumer.iter().filter_map(|(name, consumer)| Some((name, consumer.jwt.as_ref()?))).collect();
        for (index, (name, tokens)) in all.iter().enumerate() {
            let at = format!("{}.jwt", key::join("consumer", name));
            self.refer(format!("{at}.issuer"), "issuer", &tokens.issuer, config.issuer.keys());
            for (claim, wanted) in tokens.claims.iter().flatten() {
                self.parsed(claim_form(wanted), format!("{at}.claims.{claim}"));
            }
            let same_issuer = all[..index].iter().filter(|(_, other)| other.issuer == tokens.issuer);
            if let Some((other, _)) = same_issuer.into_iter().find(|(_, other)| one_holds_the_other(tokens, other)) {
                self.wrong(at, format!("a token that stands for one of this and `{other}` may stand for both: tell them apart by a claim"));
            }
        }
    }

    fn client_certificates(&mut self) {
        let config = self.config;
        let asking =
            config.listener.iter().filter_map(|(name, listener)| Some((name, listener.client_certificates.as_ref()?)));
        let asking: BTreeMap<&String, &ClientCertificates> = asking.collect();
        let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
        for (consumer, settings) in &config.consumer {
            self.certificate_listener(&key::join("consumer", consumer), settings, &asking);
            for (index, name) in settings.certificate.iter().flatten().enumerate() {
                let key = format!("{}.certificate[{index}]", key::join("consumer", consumer));
                self.unless(!asking.is_empty(), &key, "no listener asks for it: set `client_certificates` of one");
                if let Err(message) = certificate_form(name) {
                    self.wrong(key, message);
                } else if let Some(owner) = owners.insert(name, consumer) {
                    self.wrong(key, format!("it is one of `{owner}` already: it can name one consumer"));
                }
            }
        }
    }

    /// A name must not be any authority's to give away: where listeners ask by several, it is said whose word counts.
    fn certificate_listener(&mut self, at: &str, consumer: &Consumer, asking: &BTreeMap<&String, &ClientCertificates>) {
        let Some(listener) = &consumer.certificate_listener else {
            let mut authorities = asking.values().map(|asked| &asked.ca);
            let first = authorities.next();
            let one = authorities.all(|ca| Some(ca) == first);
            let names: Vec<&str> = asking.keys().map(|name| name.as_str()).collect();
            let message = format!(
                "listeners ask for certificates of different CAs, each of which could issue one of this name: \
                 set `certificate_listener` to {}",
                words::list(&names, "or")
            );
            return self.unless(one || consumer.certificate.is_none(), format!("{at}.certificate"), message);
        };
        let key = format!("{at}.certificate_listener");
        self.unless(consumer.certificate.is_some(), &key, "there is no `certificate` that could come by it");
        self.refer(key.clone(), "listener", listener, self.config.listener.keys());
        let silent = self.config.listener.contains_key(listener) && !asking.contains_key(listener);
        self.unless(!silent, key, format!("`{listener}` asks for no certificates: set its `client_certificates`"));
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

/// Whether what satisfies one of them satisfies the other.
fn one_holds_the_other(one: &Tokens, other: &Tokens) -> bool {
    let holds = |more: &Tokens, less: &Tokens| {
        let has = |(name, wanted)| more.claims.as_ref().and_then(|claims| claims.get(name)) == Some(wanted);
        less.claims.iter().flatten().all(has)
    };
    holds(one, other) || holds(other, one)
}

fn claim_form(claim: &Claim) -> Result<(), String> {
    match claim {
        Claim::AnyOf(list) if list.is_empty() => Err("the list is empty: no token could claim it".into()),
        Claim::AnyOf(list) if list.iter().any(|one| matches!(one, Claim::AnyOf(_) | Claim::Within(_))) => {
            Err("a list holds text, whole numbers, `true` and `false`".into())
        }
        Claim::Within(members) => members.values().try_for_each(claim_form),
        _ => Ok(()),
    }
}

/// `dns:NAME`, `uri:URI`, `email:ADDRESS` or `sha256:DIGITS`.
fn certificate_form(name: &str) -> Result<(), String> {
    let holds = match name.split_once(':') {
        Some(("dns", name)) => syntax::host_pattern(name).is_ok() && !name.bytes().any(|b| b.is_ascii_uppercase()),
        Some(("uri", uri)) => uri.contains(':') && uri.bytes().all(|b| b.is_ascii_graphic()),
        Some(("email", address)) => address.contains('@') && address.bytes().all(|b| b.is_ascii_graphic()),
        Some(("sha256", digits)) => sha256(digits).is_some() && !digits.bytes().any(|b| b.is_ascii_uppercase()),
        _ => false,
    };
    let message = "expected `dns:` and a name in lower case, `uri:` and a URI, `email:` and an address, or `sha256:` and 64 hex digits in lower case";
    if holds { Ok(()) } else { Err(message.into()) }
}
