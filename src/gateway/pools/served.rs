//! Whose statements a pool has run. One consumer may have left in a session what another must not meet, and it cannot always be
//! seen: a session that serves two is reset in between.

use std::collections::{BTreeMap, BTreeSet};

use super::Ready;
use crate::{
    config::model::{self, Access, Config, Per, Reset},
    gateway::replicas,
};

/// The key of those who share a pool whatever their role is.
pub(in crate::gateway) const EVERYBODY: &str = "";

/// Consumers, by the role that they have where a pool is one for each; those that no key names are one. A consumer whose callers
/// show tokens is as many as there are persons.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::gateway) struct Served(BTreeMap<String, BTreeSet<String>>);

impl Served {
    /// Those who may reach `pool` by some route.
    pub(super) fn by(config: &Config, pool: &str) -> Self {
        let routes = config.route.iter().filter(|route| {
            route.query.as_ref().is_some_and(|query| query.pools().any(|name| replicas::leads_to(config, name, pool)))
        });
        let names = routes.flat_map(|route| match &route.access {
            Some(Access::Consumers(names)) => names.clone(),
            Some(Access::Open(_)) | None => vec![String::new()],
        });
        let by_role = config.pool.get(pool).is_some_and(|pool| pool.per == Some(Per::Role));
        let mut served = Self::default();
        for name in names {
            let role = if by_role { config.role_of(&name) } else { EVERYBODY };
            let of_role = served.0.entry(role.to_owned()).or_default();
            if config.consumer.get(&name).is_some_and(|consumer| consumer.jwt.is_some()) {
                of_role.insert(format!("{name} (by token)"));
            }
            of_role.insert(name);
        }
        served
    }

    /// Adds those of before: a session may outlive the configuration that it began under.
    pub(super) fn extend(&mut self, before: &Self) {
        for (role, names) in &before.0 {
            self.0.entry(role.clone()).or_default().extend(names.iter().cloned());
        }
    }

    /// Has every session reset behind its caller, if there is more than one of `role`.
    pub(in crate::gateway) fn keep_apart(&self, role: &str, effective: &mut model::Pool, ready: &Ready) {
        if self.0.get(role).is_none_or(|names| names.len() < 2) {
            return;
        }
        effective.reset = Reset::Always;
        if let Ready::Postgres(backend) = ready {
            backend.reset_always();
        }
    }
}
