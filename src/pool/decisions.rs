//! Who decided how often: by hook, by who it was, by policy, by version.
//!
//! Versions come without end where somebody deploys them, and names where somebody renames plugins, so both are bounded. Of each
//! plugin the newest versions are counted apart, older ones together; policies beyond the first few are counted as one. No count
//! ever falls, nor begins anew.

use std::{fmt, sync::Arc};

use serde::{Serialize, Serializer};

use crate::policy::DecidedBy;

/// Versions of a plugin that are counted apart: what serves, what served before, and some to compare.
const MOST_VERSIONS: usize = 4;
/// Policies of a hook that are counted apart. A pool has one at a time; the rest is history.
const MOST_POLICIES: usize = 8;
/// All policies beyond.
const OTHER: &str = "other";

/// How often somebody decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DecisionCount {
    /// `sizing`, `eviction` or `validation`.
    pub hook: &'static str,
    /// Who: [`DecidedBy::name`].
    pub by: &'static str,
    /// The policy that was asked, by its name in the configuration; `other`: it has changed too often to tell.
    pub policy: Arc<str>,
    /// The version of it that decided.
    pub version: PolicyVersion,
    /// How often.
    pub count: u64,
}

/// The version of a policy that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyVersion {
    /// It has none: it is native, or the fallback decided.
    None,
    /// The plugin's generation, as in the log.
    Number(u64),
    /// Those before the newest few.
    Older,
}

/// A pool's decisions.
#[derive(Debug, Default)]
pub(super) struct Decisions(Vec<DecisionCount>);

impl fmt::Display for PolicyVersion {
    /// Nothing, the number, or `older`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::Number(number) => number.fmt(out),
            Self::Older => out.write_str("older"),
        }
    }
}

impl Serialize for PolicyVersion {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => to.serialize_none(),
            Self::Number(number) => to.serialize_u64(*number),
            Self::Older => to.serialize_str("older"),
        }
    }
}

impl Decisions {
    /// All, in no order.
    pub(super) fn list(&self) -> &[DecisionCount] {
        &self.0
    }

    /// Counts one of `policy`. Allocates only when it is the first of its kind.
    pub(super) fn count(&mut self, hook: &'static str, by: DecidedBy, policy: &str) {
        let version = by.version().map_or(PolicyVersion::None, PolicyVersion::Number);
        if let Some(known) = self.find(hook, by.name(), policy, version) {
            known.count += 1;
            return;
        }
        let policy = if self.knows_or_may_know(hook, policy) { policy } else { OTHER };
        self.add(hook, by.name(), policy, version, 1);
        if version != PolicyVersion::None {
            self.fold(hook, by.name(), policy);
        }
    }

    fn find(&mut self, hook: &str, by: &str, policy: &str, version: PolicyVersion) -> Option<&mut DecisionCount> {
        self.0
            .iter_mut()
            .find(|known| known.version == version && known.hook == hook && known.by == by && *known.policy == *policy)
    }

    fn knows_or_may_know(&self, hook: &str, policy: &str) -> bool {
        let mut known: Vec<&str> = Vec::new();
        for count in self.0.iter().filter(|count| count.hook == hook) {
            if *count.policy == *policy {
                return true;
            }
            if !known.contains(&&*count.policy) {
                known.push(&count.policy);
            }
        }
        known.len() < MOST_POLICIES
    }

    fn add(&mut self, hook: &'static str, by: &'static str, policy: &str, version: PolicyVersion, count: u64) {
        match self.find(hook, by, policy, version) {
            Some(known) => known.count += count,
            None => self.0.push(DecisionCount { hook, by, policy: policy.into(), version, count }),
        }
    }

    /// Puts the oldest version of a plugin to the older ones, if there are too many. One that comes back late goes there too.
    fn fold(&mut self, hook: &'static str, by: &'static str, policy: &str) {
        let versions = self.0.iter().enumerate().filter_map(|(at, count)| match count.version {
            PolicyVersion::Number(number) if count.hook == hook && *count.policy == *policy => Some((number, at)),
            _ => None,
        });
        let versions: Vec<(u64, usize)> = versions.collect();
        if let Some((_, at)) = versions.iter().min().filter(|_| versions.len() > MOST_VERSIONS) {
            let oldest = self.0.swap_remove(*at);
            self.add(hook, by, policy, PolicyVersion::Older, oldest.count);
        }
    }
}

#[cfg(test)]
#[cfg(not(feature = "loom"))]
mod tests {
    use super::*;
    use crate::policy::FaultKind;

    const fn version(version: u64) -> DecidedBy {
        DecidedBy::Plugin { version }
    }

    /// `policy version count`, sorted.
    fn told(decisions: &Decisions) -> Vec<String> {
        let tell = |count: &DecisionCount| format!("{} {} {}", count.policy, count.version, count.count);
        let mut told: Vec<_> = decisions.list().iter().map(tell).collect();
        told.sort();
        told
    }

    #[test]
    fn the_newest_versions_are_counted_apart_and_older_ones_together() {
        let mut decisions = Decisions::default();
        for number in 1..=4 {
            decisions.count("sizing", version(number), "little");
            decisions.count("sizing", version(number), "little");
        }
        assert_eq!(told(&decisions), ["little 1 2", "little 2 2", "little 3 2", "little 4 2"]);
        decisions.count("sizing", version(5), "little");
        assert_eq!(told(&decisions), ["little 2 2", "little 3 2", "little 4 2", "little 5 1", "little older 2"]);
        decisions.count("sizing", version(1), "little");
        assert_eq!(told(&decisions)[4], "little older 3", "a call that began on an old version ends late");
        decisions.count("validation", version(1), "little");
        decisions.count("sizing", version(1), "vegas");
        assert_eq!(decisions.list().len(), 7, "other hooks and plugins have versions of their own");
    }

    #[test]
    fn a_fallback_and_a_native_policy_have_no_version() {
        let mut decisions = Decisions::default();
        for _ in 0..3 {
            decisions.count("sizing", DecidedBy::Native, "fixed");
            decisions.count("sizing", DecidedBy::Fallback(FaultKind::Trap), "little");
        }
        assert_eq!(told(&decisions), ["fixed  3", "little  3"]);
        let shown = serde_json::to_value(decisions.list()).unwrap();
        assert_eq!((&shown[1]["by"], &shown[1]["version"]), (&"fallback trap".into(), &serde_json::Value::Null));
    }

    #[test]
    fn neither_versions_nor_names_grow_without_end_and_no_count_falls() {
        let mut decisions = Decisions::default();
        for round in 0..10_000_u64 {
            let before = decisions.0.clone();
            let by = if round % 7 == 0 { DecidedBy::Fallback(FaultKind::Trap) } else { version(round / 50) };
            decisions.count("sizing", by, &format!("plugin-{}", round / 100));
            for now in decisions.list() {
                let same =
                    |was: &&DecisionCount| (was.by, &was.policy, was.version) == (now.by, &now.policy, now.version);
                assert!(before.iter().find(same).is_none_or(|was| was.count <= now.count), "{now:?}");
            }
            let all: u64 = decisions.list().iter().map(|count| count.count).sum();
            assert_eq!(all, round + 1);
        }
        assert!(decisions.list().len() <= (MOST_POLICIES + 1) * (MOST_VERSIONS + 2), "{}", decisions.list().len());
        assert!(told(&decisions).iter().any(|line| line.starts_with("other older ")));
    }
}
