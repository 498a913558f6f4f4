//! What the routes of a generation need for named queries and lists of texts.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use super::{generation::Generation, pools::Identity};
use crate::{
    config::{
        Finding,
        model::{Access, AllowMode, BackendKind, Config, NamedBy, Open, Per, Query, Route},
    },
    query::{
        allow::{AllowFile, AllowList},
        named::{Cache, Catalogue, Place},
    },
};

/// The queries and the files of texts of a configuration.
#[derive(Clone, Default)]
pub(super) struct Stock {
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) allowed: BTreeMap<PathBuf, Arc<AllowFile>>,
}

impl Stock {
    /// Reads them; what did not change stays the same.
    pub(super) fn of(config: &Config, before: Option<&Generation>, wrong: &mut Vec<Finding>) -> Self {
        let none = Self::default();
        let before = before.map_or(&none, |before| &before.stock);
        let catalogue = Catalogue::build_after(&config.named, &before.catalogue).unwrap_or_else(|findings| {
            wrong.extend(findings);
            Catalogue::default()
        });
        let mut allowed: BTreeMap<PathBuf, Arc<AllowFile>> = BTreeMap::new();
        for (index, route) in config.route.iter().enumerate() {
            let Some(allow) = route.query.as_ref().and_then(|query| query.allow.as_ref()) else { continue };
            let must_be = allow.mode == AllowMode::Enforce;
            let kept = allowed.get(&allow.file).or_else(|| before.allowed.get(&allow.file)).cloned();
            let kept = kept.filter(|file| file.must_be() == must_be && (!must_be || allow.file.exists()));
            match kept.map_or_else(|| AllowFile::open(&allow.file, must_be), Ok) {
                Ok(file) => _ = allowed.insert(allow.file.clone(), file),
                Err(error) => {
                    let message = format!("{}: {error}", allow.file.display());
                    wrong.push(Finding::new(format!("route[{index}].query.allow.file"), message));
                }
            }
        }
        Self { catalogue: Arc::new(catalogue), allowed }
    }

    /// What a query route needs. `identity`: its pool's.
    pub(super) fn place(
        &self,
        config: &Config,
        route: &Route,
        query: &Query,
        identity: Option<&Identity>,
        cache: &Arc<Cache>,
    ) -> Place {
        let list = query
            .allow
            .as_ref()
            .and_then(|allow| self.allowed.get(&allow.file).map(|file| AllowList::new(file.clone(), allow.mode)));
        let pool = config.pool.get(&query.pool);
        let behind = route.path.as_deref().map(|path| path.trim_end_matches('/').len());
        Place {
            catalogue: self.catalogue.clone(),
            cache: cache.clone(),
            allow: list,
            pool: format!("{} {}", query.pool, identity.map_or("", |identity| &identity.whole)).into(),
            postgres: pool.is_some_and(|pool| pool.backend == BackendKind::Postgres),
            per_caller: pool.is_some_and(|pool| pool.per == Some(Per::Role)),
            path: behind.filter(|_| !query.named.is_none()),
            named_by_path: query.database == Some(NamedBy::Path),
            hosts: !route.host.is_empty(),
            open: matches!(route.access, None | Some(Access::Open(Open::Open))),
        }
    }
}
