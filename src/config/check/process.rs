//! `[server]`, `[log]`, `[admin]`.

use super::{Check, syntax};
use crate::config::{value::Size, words};

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

impl Check<'_> {
    pub(super) fn server(&mut self) {
        let server = &self.config.server;
        if let Some(workers) = server.workers {
            self.number("server.workers".into(), workers, 1, 1024);
        }
        self.number("server.max_connections".into(), server.max_connections, 1, u32::MAX.into());
        if let Some(most) = server.max_connections_per_address {
            self.number("server.max_connections_per_address".into(), most, 1, u32::MAX.into());
        }
        self.positive("server", &[("drain_deadline", server.drain_deadline)]);
        let state_is_named = server.state.as_ref().is_none_or(|path| !path.as_os_str().is_empty());
        self.unless(state_is_named, "server.state", "must not be empty; for the working directory write `.`");
    }

    pub(super) fn log(&mut self) {
        let log = &self.config.log;
        self.unless(!log.access.is_empty(), "log.access", "must not be empty; use `stdout`, `off` or a path");
        // A lone word that is no level is the name of a target, with everything of it logged: `inof` is not meant so.
        let mistyped = log.filter.split(',').map(str::trim).find_map(|word| {
            let lower = word.to_ascii_lowercase();
            if lower.is_empty() || LEVELS.contains(&lower.as_str()) {
                return None;
            }
            let longer_or_shorter = |level: &&str| lower.starts_with(*level) || level.starts_with(&lower);
            let near = LEVELS.into_iter().find(longer_or_shorter).or_else(|| words::nearest(&lower, LEVELS))?;
            Some(format!("`{word}` is not a level; did you mean `{near}`?"))
        });
        if let Some(message) = mistyped {
            self.wrong("log.filter", message);
        } else if let Err(error) = tracing_subscriber::EnvFilter::builder().parse(&log.filter) {
            self.wrong("log.filter", error.to_string());
        }
    }

    pub(super) fn alert(&mut self) {
        let alert = &self.config.alert;
        for (name, share) in [("utilisation", alert.utilisation), ("errors", alert.errors)] {
            let message = format!("is a share, from 0 (never told) to 1, not {share}");
            self.unless((0.0..=1.0).contains(&share), format!("alert.{name}"), message);
        }
    }

    pub(super) fn overload(&mut self) {
        let overload = &self.config.overload;
        for (name, share) in [("memory", overload.memory), ("cpu", overload.cpu)] {
            let message = format!("is a share, from 0 (never) to less than 1, not {share}");
            self.unless((0.0..1.0).contains(&share), format!("overload.{name}"), message);
        }
        if let Some(limit) = overload.memory_limit {
            self.size("overload.memory_limit".into(), limit, Size::mib(1), Size(u64::MAX));
        }
    }

    pub(super) fn admin(&mut self) {
        let config = self.config;
        let Some(admin) = &config.admin else { return };
        for (index, pool) in admin.ready_requires.iter().enumerate() {
            let at = format!("admin.ready_requires[{index}]");
            let one = config.pool.get(pool).is_none_or(|pool| pool.per.is_none());
            self.unless(one, &at, format!("`{pool}` stands for many (`per`): there may be none yet"));
            self.refer(at, "pool", pool, config.pool.keys());
        }
        for (index, host) in admin.hosts.iter().enumerate() {
            self.parsed(syntax::host_pattern(host), format!("admin.hosts[{index}]"));
        }
        let long_enough = self.secrets.get("admin.token").is_none_or(|token| token.len() >= 16);
        self.unless(long_enough, "admin.token", "shorter than 16 characters: too easily guessed");
    }
}
