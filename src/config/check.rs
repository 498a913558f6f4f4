//! What a value may be next to others, and in itself where its type does not say: names exist, ranges make sense,
//! nothing collides. Nothing is opened but the files of secrets, and no certificate or component is read: that is for
//! those who use them, and their findings join this report.

mod consumer;
mod issuer;
pub(super) mod listener;
mod named;
mod pool;
mod process;
mod replicas;
mod route;
mod syntax;
mod upstream;

use std::collections::BTreeSet;

use super::{
    env::Environment,
    key,
    model::Config,
    problem::Finding,
    secrets::Revealed,
    value::{Size, Span},
    words,
};

/// Everything wrong with a configuration, with secrets from this process's environment.
pub fn check(config: &Config) -> Vec<Finding> {
    check_with(config, &Revealed::read(config, &Environment::Process), &BTreeSet::new())
}

/// The same with secrets that were read before; `doubtful` are the keys that are not in `config` as they were
/// written, since that could not be decoded: they may be referred to, and no conclusion is drawn from them.
pub(super) fn check_with(config: &Config, secrets: &Revealed, doubtful: &BTreeSet<String>) -> Vec<Finding> {
    let mut check = Check { config, secrets, doubtful, findings: Vec::new() };
    check.secrets();
    check.names();
    check.server();
    check.log();
    check.admin();
    check.alert();
    check.overload();
    check.listeners();
    check.plugins();
    check.pools();
    check.replicas();
    check.upstreams();
    check.limits();
    check.issuers();
    check.consumers();
    check.named();
    check.routes();
    check.findings
}

struct Check<'a> {
    config: &'a Config,
    secrets: &'a Revealed,
    doubtful: &'a BTreeSet<String>,
    findings: Vec<Finding>,
}

/// What PostgreSQL keeps of an identifier, in bytes (`NAMEDATALEN`): it cuts longer ones off, and would take one for another.
const LONGEST_ROLE: usize = 63;

impl Check<'_> {
    fn wrong(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.findings.push(Finding::new(key, message));
    }

    fn unless(&mut self, holds: bool, key: impl Into<String>, message: impl Into<String>) {
        if !holds {
            self.wrong(key, message);
        }
    }

    /// What a parser said, at `key`.
    fn parsed(&mut self, result: Result<(), String>, key: impl Into<String>) {
        if let Err(message) = result {
            self.wrong(key, message);
        }
    }

    /// Durations that must be more than nothing.
    fn positive(&mut self, table: &str, spans: &[(&str, Span)]) {
        for (name, span) in spans {
            self.unless(!span.0.is_zero(), format!("{table}.{name}"), "must be more than 0s");
        }
    }

    /// A size within bounds.
    fn size(&mut self, key: String, size: Size, least: Size, most: Size) {
        self.unless((least..=most).contains(&size), key, format!("`{size}` is not between {least} and {most}"));
    }

    /// A number within bounds.
    fn number(&mut self, key: String, number: impl TryInto<u64>, least: u64, most: u64) {
        let holds = number.try_into().is_ok_and(|number| (least..=most).contains(&number));
        self.unless(holds, key, format!("must be from {least} to {most}"));
    }

    /// A name that `key` refers to: one of `names`, which are the keys of the table `kind`.
    fn refer<'n>(&mut self, key: String, kind: &str, name: &str, names: impl Iterator<Item = &'n String>) {
        let names: Vec<&str> = names.map(String::as_str).collect();
        if names.contains(&name) || self.doubtful.contains(&key::join(kind, name)) {
            return;
        }
        let hint = match words::nearest(name, names.iter().copied()) {
            Some(near) => format!("; did you mean `{near}`?"),
            None if names.is_empty() => format!("; there is no `[{kind}.…]` at all"),
            None => format!("; there is {}", words::list(&names, "and")),
        };
        self.wrong(key, format!("there is no {kind} `{name}`{hint}"));
    }

    /// Secrets can be had.
    fn secrets(&mut self) {
        let secrets = self.secrets;
        for (key, secret) in &secrets.0 {
            if let Err(message) = secret {
                self.wrong(key, message);
            }
        }
    }

    /// Names of tables go into logs, labels of figures, and addresses of the admin API.
    fn names(&mut self) {
        let config = self.config;
        let tables: [(&str, Vec<&String>); 8] = [
            ("listener", config.listener.keys().collect()),
            ("plugin", config.plugin.keys().collect()),
            ("pool", config.pool.keys().collect()),
            ("upstream", config.upstream.keys().collect()),
            ("limit", config.limit.keys().collect()),
            ("issuer", config.issuer.keys().collect()),
            ("consumer", config.consumer.keys().collect()),
            ("named", config.named.keys().collect()),
        ];
        for (table, names) in tables {
            for name in names {
                let holds = key::is_bare(name) && name.len() <= 64;
                let message = "a name has letters, digits, `-` and `_`, and at most 64 of them";
                self.unless(holds, key::join(table, name), message);
            }
        }
    }
}
