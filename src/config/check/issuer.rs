//! `[issuer.NAME]`.

use std::{collections::BTreeMap, time::Duration};

use super::{Check, syntax};
use crate::config::{key, model::Issuer};

/// A token that has been over for longer is over by any clock.
const MOST_LEEWAY: Duration = Duration::from_mins(5);
/// An issuer is not to be asked more often than this without need, and its keys not to be kept for longer than that.
const REFRESH: (Duration, Duration) = (Duration::from_secs(10), Duration::from_hours(24));

impl Check<'_> {
    pub(super) fn issuers(&mut self) {
        let config = self.config;
        let mut names: BTreeMap<&str, &str> = BTreeMap::new();
        for (name, issuer) in &config.issuer {
            let at = key::join("issuer", name);
            self.issuer(&at, issuer);
            if let Some(other) = names.insert(&issuer.issuer, name) {
                self.wrong(
                    format!("{at}.issuer"),
                    format!("it is that of `issuer.{other}` already: it can be told by one"),
                );
            }
        }
    }

    fn issuer(&mut self, at: &str, issuer: &Issuer) {
        if issuer.is_remote() {
            self.parsed(syntax::web_url(&issuer.jwks), format!("{at}.jwks"));
        } else {
            self.unless(!issuer.jwks.is_empty(), format!("{at}.jwks"), "must be a URL, or a file's path");
        }
        self.unless(!issuer.issuer.is_empty(), format!("{at}.issuer"), "must be the `iss` of its tokens");
        let named = !issuer.audience.is_empty() && issuer.audience.iter().all(|audience| !audience.is_empty());
        let message = "name whom its tokens must be for: without, one made for another service would do here";
        self.unless(named, format!("{at}.audience"), message);
        self.unless(
            !issuer.algorithms.is_empty(),
            format!("{at}.algorithms"),
            "the list is empty: nothing could be verified",
        );
        self.unless(issuer.leeway.0 <= MOST_LEEWAY, format!("{at}.leeway"), "must be at most 5m");
        let holds = (REFRESH.0..=REFRESH.1).contains(&issuer.refresh.0);
        self.unless(holds, format!("{at}.refresh"), "must be from 10s to 1d");
    }
}
