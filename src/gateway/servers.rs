//! Database servers, each known by its hosts as the configuration writes them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;

use crate::pool::{ServerBudget, ServerTerms};

/// What the operator says of each server, by its hosts.
pub(super) type Terms = BTreeMap<String, ServerTerms>;

/// The servers that some pool is on.
#[derive(Default)]
pub struct Servers(Mutex<BTreeMap<String, Weak<ServerBudget>>>);

impl Servers {
    /// The server of that name: the one that other pools are on already, whose terms stay, or a new one.
    pub(super) fn on(&self, name: &str, terms: &Terms) -> Arc<ServerBudget> {
        let mut servers = self.0.lock();
        servers.retain(|_, server| server.strong_count() > 0);
        servers.get(name).and_then(Weak::upgrade).unwrap_or_else(|| {
            let none = ServerTerms { connections: None, share: 1.0 };
            let server = ServerBudget::new(terms.get(name).copied().unwrap_or(none));
            servers.insert(name.to_owned(), Arc::downgrade(&server));
            server
        })
    }

    /// From now on these terms hold.
    pub(super) fn take_up(&self, terms: &Terms) {
        let servers = self.0.lock().clone();
        for (name, terms) in terms {
            if let Some(server) = servers.get(name).and_then(Weak::upgrade) {
                server.set_terms(*terms);
            }
        }
    }
}

/// Where several pools on one server say something, the least holds: of numbers, else of shares.
pub(super) fn terms<'a>(said: impl Iterator<Item = (&'a str, ServerTerms)>) -> Terms {
    said.fold(Terms::new(), |mut all, (name, said)| {
        all.entry(name.to_owned()).and_modify(|terms| *terms = terms.and(said)).or_insert(said);
        all
    })
}
