//! Kinds of event with a counter each: written once, so that a kind cannot lack its counter, nor its name.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

/// Makes an enum of kinds and a struct with one public count for each.
macro_rules! tally {
    (
        $(#[$enum_doc:meta])* enum $Kind:ident;
        $(#[$struct_doc:meta])* struct $Counts:ident;
        $($(#[$doc:meta])* $kind:ident => $field:ident, $text:literal;)*
    ) => {
        $(#[$enum_doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $Kind {
            $($(#[$doc])* $kind,)*
        }

        $(#[$struct_doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $Counts {
            $($(#[$doc])* pub $field: u64,)*
        }

        impl $Kind {
            /// The name in logs and figures.
            pub(crate) fn as_str(self) -> &'static str {
                match self { $(Self::$kind => $text,)* }
            }
        }

        impl $Counts {
            /// Each kind's name and count.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                self.kinds().map(|(kind, count)| (kind.as_str(), count))
            }

            /// All kinds together.
            pub fn total(&self) -> u64 {
                self.kinds().map(|(_, count)| count).sum()
            }

            fn kinds(&self) -> impl Iterator<Item = ($Kind, u64)> + use<> {
                [$(($Kind::$kind, self.$field),)*].into_iter()
            }

            pub(crate) fn count(&mut self, kind: $Kind) {
                match kind { $($Kind::$kind => self.$field += 1,)* }
            }
        }
    };
}

tally! {
    /// Why a connection is closed.
    enum Cause;
    /// Connections closed since the pool began, by cause.
    #[derive(Serialize)]
    struct Closes;
    /// Unused for longer than the idle timeout, above the minimum.
    Idle => idle, "idle";
    /// Grown older than its lifetime, or used as often as it may be.
    Lifetime => lifetime, "lifetime";
    /// Found closed or broken: by a look at its socket, a probe, or its user.
    Broken => broken, "broken";
    /// The target fell.
    Surplus => surplus, "surplus";
    /// The eviction policy said so.
    Policy => policy, "policy";
    /// The validation policy said so.
    Discarded => discarded, "discarded";
    /// Others idle beside it were found broken.
    Purged => purged, "purged";
    /// Opened under credentials or settings that have changed.
    Outdated => outdated, "outdated";
    /// Could not be made clean after its use in time.
    Unclean => unclean, "unclean";
    /// Its caller left while it was being probed, or gave it up.
    Abandoned => abandoned, "abandoned";
    /// The pool is being drained.
    Retired => retired, "retired";
    /// An operator said so.
    Operator => operator, "operator";
    /// Given up for a sister pool on the same server.
    Yielded => yielded, "yielded";
    /// Held by one request for longer than `held_limit`.
    Held => held, "held";
}

tally! {
    /// How an answer of a policy was not followed to the letter.
    enum Clamp;
    /// Answers of policies that were not followed to the letter, since the pool began.
    struct Clamps;
    /// The target was outside the bounds.
    Bounds => bounds, "bounds";
    /// Growth while connections cannot be made.
    Growth => growth, "growth";
    /// Shrinking by more than a tenth while callers wait.
    Waiters => waiters, "waiters";
    /// A change larger than `max_step`.
    Step => step, "step";
    /// A change sooner than `dwell` after the last.
    Dwell => dwell, "dwell";
    /// A change of direction too many: the target is frozen for a minute.
    Frozen => frozen, "frozen";
    /// More idle connections, reserve, parallel creates, or another tick than the bounds allow.
    Extras => extras, "extras";
    /// Closes beyond what a sweep may do, or below the minimum.
    Closing => closing, "closing";
    /// A discard of a connection beyond what a second may bring, or of one just made.
    Discarding => discarding, "discarding";
    /// A purge of the idle connections too soon after the last, or without cause.
    Purging => purging, "purging";
}

impl Clamp {
    /// Whose answer is clamped so.
    fn hook(self) -> &'static str {
        match self {
            Self::Bounds | Self::Growth | Self::Waiters | Self::Step | Self::Dwell | Self::Frozen | Self::Extras => {
                "sizing"
            }
            Self::Closing => "eviction",
            Self::Discarding | Self::Purging => "validation",
        }
    }
}

impl Clamps {
    /// Each hook, cause and count.
    pub fn by_hook(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> + use<> {
        self.kinds().map(|(clamp, count)| (clamp.hook(), clamp.as_str(), count))
    }
}

/// By hook, then by cause.
impl Serialize for Clamps {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut hooks: BTreeMap<&str, BTreeMap<&str, u64>> = BTreeMap::new();
        for (hook, cause, count) in self.by_hook() {
            hooks.entry(hook).or_default().insert(cause, count);
        }
        hooks.serialize(to)
    }
}
