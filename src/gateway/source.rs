//! Where a query's database comes from: the route's pool, or the one of its pools that the request names.

use std::{collections::BTreeMap, sync::Arc};

use http::{HeaderValue, Method};

use super::{pools::PoolEntry, template::Template};
use crate::{
    access::Identity,
    backend::{BackendError, Database},
    config::model::{NamedBy, Per},
    edge::Request,
    query::Wanted,
};

/// The pools that a query route leads to.
pub(super) struct Source {
    /// Without `endpoints`.
    pub(super) pool: Place,
    /// By the label that a request's connection string has in its host. Some: no other label will do.
    pub(super) endpoints: BTreeMap<String, Place>,
    /// The length of the route's own path, without a slash at its end.
    pub(super) below: usize,
    /// Where a request's head names its database.
    pub(super) named_by: Option<NamedBy>,
    /// Whether a pool is one for each role.
    pub(super) of_roles: bool,
}

/// A pool, or one that stands for many.
pub(super) struct Place {
    name: Box<str>,
    /// What the server calls its database; none where that is each request's to say, or has no name.
    database: Option<String>,
    pools: Pools,
}

enum Pools {
    One(Database),
    /// One for each database.
    Database(Arc<Template>),
    /// One for each role.
    Role(Arc<Template>),
}

impl Source {
    /// What a request's head says of the database that it is for, and who asks. Of a field that comes twice nothing, as others may have read
    /// the other.
    pub(super) fn wanted(&self, request: &Request, identity: Option<&Identity>) -> Wanted {
        let database = self.named(request).map(str::to_owned);
        Wanted { endpoint: None, database, role: self.role_of(identity) }
    }

    /// The login role of who asks, if that matters.
    pub(super) fn role_of(&self, identity: Option<&Identity>) -> Option<Arc<str>> {
        identity.filter(|_| self.of_roles).map(|identity| identity.role().clone())
    }

    /// The field of a request's head that its answer depends on, as it names the database.
    pub(super) fn named_in(&self) -> Option<HeaderValue> {
        match self.named_by.as_ref()? {
            NamedBy::Path => None,
            NamedBy::Header(name) => HeaderValue::from_str(name).ok(),
        }
    }

    fn named<'r>(&self, request: &'r Request) -> Option<&'r str> {
        match self.named_by.as_ref()? {
            NamedBy::Path => {
                let rest = request.uri().path().get(self.below..)?.strip_prefix('/')?;
                // Behind it, where there is no body, stands the name of a query.
                let bodiless = request.method() != Method::POST;
                Some(rest.rsplit_once('/').filter(|_| bodiless).map_or(rest, |(name, _)| name))
            }
            NamedBy::Header(name) => {
                let mut values = request.headers().get_all(name.as_str()).iter();
                values.next().filter(|_| values.next().is_none())?.to_str().ok()
            }
        }
    }

    /// The database that is wanted. A pool is made for it if there is none: only for a request that is sound otherwise.
    ///
    /// # Errors
    /// There is none of that name, or the caller may not use it.
    pub(super) fn find(&self, wanted: &Wanted, identity: Option<&Identity>) -> Result<Database, BackendError> {
        let place = match &wanted.endpoint {
            Some(endpoint) if !self.endpoints.is_empty() => {
                self.endpoints.get(endpoint.as_str()).ok_or(BackendError::NoSuchEndpoint)?
            }
            _ => &self.pool,
        };
        if identity.is_some_and(|identity| !identity.grant.may_ask(&place.name)) {
            return Err(BackendError::Forbidden);
        }
        place.find(wanted)
    }
}

impl Place {
    pub(super) fn one(name: &str, pool: &PoolEntry) -> Self {
        let (database, pools) = (pool.identity.database(), Pools::One(pool.database.clone()));
        Self { name: name.into(), database: database.map(str::to_owned), pools }
    }

    pub(super) fn many(name: &str, per: Per, template: Arc<Template>) -> Self {
        let name = name.into();
        match per {
            Per::Database => Self { name, database: None, pools: Pools::Database(template) },
            Per::Role => {
                let database = template.identity.database().map(str::to_owned);
                Self { name, database, pools: Pools::Role(template) }
            }
        }
    }

    pub(super) fn is_of_roles(&self) -> bool {
        matches!(self.pools, Pools::Role(_))
    }

    fn find(&self, wanted: &Wanted) -> Result<Database, BackendError> {
        if let (Some(own), Some(wanted)) = (&self.database, &wanted.database)
            && own != wanted
        {
            return Err(BackendError::NoSuchDatabase);
        }
        match &self.pools {
            Pools::One(database) => Ok(database.clone()),
            Pools::Database(template) => {
                let name = wanted.database.as_deref().ok_or(BackendError::NoSuchDatabase)?;
                Ok(template.database(name)?)
            }
            Pools::Role(template) => Ok(template.database(wanted.role.as_deref().ok_or(BackendError::NoRole)?)?),
        }
    }
}
