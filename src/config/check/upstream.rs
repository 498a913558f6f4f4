//! `[upstream.NAME]` and `[limit.NAME]`.

use std::collections::BTreeSet;

use http::HeaderName;

use super::{Check, syntax};
use crate::config::{
    key,
    model::{LimitKey, Upstream},
};

impl Check<'_> {
    pub(super) fn upstreams(&mut self) {
        let config = self.config;
        for (name, upstream) in &config.upstream {
            let at = key::join("upstream", name);
            self.endpoints(&at, upstream);
            self.number(format!("{at}.max_connections"), upstream.max_connections, 1, u32::MAX.into());
            self.positive(
                &at,
                &[
                    ("queue_timeout", upstream.queue_timeout),
                    ("connect_timeout", upstream.connect_timeout),
                    ("send_timeout", upstream.send_timeout),
                    ("read_timeout", upstream.read_timeout),
                    ("idle_timeout", upstream.idle_timeout),
                    ("upgrade_idle_timeout", upstream.upgrade_idle_timeout),
                ],
            );
            if let Some(name) = &upstream.tls.server_name {
                self.parsed(syntax::host_pattern(name), format!("{at}.tls.server_name"));
            }
        }
    }

    fn endpoints(&mut self, at: &str, upstream: &Upstream) {
        self.unless(!upstream.endpoints.is_empty(), format!("{at}.endpoints"), "name at least one endpoint");
        let mut seen = BTreeSet::new();
        for (index, endpoint) in upstream.endpoints.iter().enumerate() {
            let key = format!("{at}.endpoints[{index}]");
            match syntax::endpoint(endpoint) {
                Err(message) => self.wrong(key, message),
                Ok(()) => self.unless(seen.insert(endpoint), key, format!("`{endpoint}` is there already")),
            }
        }
    }

    pub(super) fn limits(&mut self) {
        let config = self.config;
        for (name, limit) in &config.limit {
            let at = key::join("limit", name);
            if let LimitKey::Header(header) = &limit.key {
                let valid = HeaderName::from_bytes(header.as_bytes()).is_ok();
                self.unless(valid, format!("{at}.key"), format!("`{header}` is not a header's name"));
            }
            if let Some(burst) = limit.burst {
                self.number(format!("{at}.burst"), burst, 1, u32::MAX.into());
            }
            let countable = limit.rate.per.as_nanos() >= u128::from(limit.rate.count);
            self.unless(countable, format!("{at}.rate"), "more than one in a nanosecond");
            self.number(format!("{at}.max_keys"), limit.max_keys, 1, 1 << 24);
        }
    }
}
