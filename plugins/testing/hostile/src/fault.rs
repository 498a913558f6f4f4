//! Which fault shows where.

use policy_settings::{Field, Slot, read};

/// The `now-ms` of the host's trial inputs. A pool's own clock has fractions, and does not strike them.
const TRIAL_NOW_MS: [f64; 2] = [0.0, 60_000.0];

/// The `deadline-left-ms` of the host's trial inputs: a caller's is never so round.
const TRIAL_DEADLINE_LEFT_MS: u32 = 30_000;

/// A hook of the component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// `sizing`.
    Sizing,
    /// `eviction`.
    Eviction,
    /// `validation`.
    Validation,
}

/// A way to misbehave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Does not come back.
    Loop,
    /// Executes `unreachable`.
    Trap,
    /// Grows its memory until it may not.
    Memory,
    /// Answers the largest number everywhere.
    Max,
    /// Answers a target of zero.
    Zero,
    /// Answers what is no number, and too much of it.
    Nan,
    /// Answers 5 and 10 in turn.
    Oscillate,
    /// Answers whatever comes to its mind.
    Random,
    /// Closes every connection.
    CloseAll,
    /// Discards every connection, and purges.
    Discard,
    /// Fails its self-check.
    Refuse,
}

/// Every mode there is, as the configuration names it; the first is to behave.
pub const MODES: &[&str] = &[
    "none",
    "loop",
    "trap",
    "memory",
    "max",
    "zero",
    "nan",
    "oscillate",
    "random",
    "close-all",
    "discard",
    "refuse",
    "sizing.loop",
    "sizing.trap",
    "sizing.memory",
    "sizing.max",
    "sizing.zero",
    "sizing.nan",
    "sizing.oscillate",
    "sizing.random",
    "eviction.loop",
    "eviction.trap",
    "eviction.memory",
    "eviction.nan",
    "eviction.close-all",
    "validation.loop",
    "validation.trap",
    "validation.memory",
    "validation.nan",
    "validation.discard",
];

/// What was configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    hook: Option<Hook>,
    fault: Option<Fault>,
}

impl Plan {
    /// To behave.
    pub const NONE: Self = Self { hook: None, fault: None };

    /// Reads the configuration's JSON text.
    ///
    /// # Errors
    ///
    /// When it names a mode that there is not.
    pub fn parse(json: &str) -> Result<Self, String> {
        let mut mode = 0;
        let slot = Slot::Choice { value: &mut mode, of: MODES };
        read(json, &mut [Field { name: "mode", expects: "one of the faults in its documentation", slot }])?;
        Ok(Self::named(MODES.get(mode).copied().unwrap_or_default()))
    }

    fn named(mode: &str) -> Self {
        let (hook, fault) = match mode.split_once('.') {
            Some(("sizing", fault)) => (Some(Hook::Sizing), fault),
            Some(("eviction", fault)) => (Some(Hook::Eviction), fault),
            Some((_, fault)) => (Some(Hook::Validation), fault),
            None => (None, mode),
        };
        Self { hook, fault: Fault::named(fault) }
    }

    /// The fault that a sizing or eviction call shows.
    pub fn for_pool(self, hook: Hook, now_ms: f64) -> Option<Fault> {
        self.shown(hook).filter(|_| !TRIAL_NOW_MS.contains(&now_ms))
    }

    /// The fault that a validation call shows.
    pub fn for_connection(self, deadline_left_ms: u32) -> Option<Fault> {
        self.shown(Hook::Validation).filter(|_| deadline_left_ms != TRIAL_DEADLINE_LEFT_MS)
    }

    /// Whether the self-check fails.
    pub fn refuses(self) -> bool {
        self.fault == Some(Fault::Refuse)
    }

    fn shown(self, hook: Hook) -> Option<Fault> {
        self.fault.filter(|_| self.hook.is_none_or(|only| only == hook))
    }
}

impl Fault {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "loop" => Self::Loop,
            "trap" => Self::Trap,
            "memory" => Self::Memory,
            "max" => Self::Max,
            "zero" => Self::Zero,
            "nan" => Self::Nan,
            "oscillate" => Self::Oscillate,
            "random" => Self::Random,
            "close-all" => Self::CloseAll,
            "discard" => Self::Discard,
            "refuse" => Self::Refuse,
            _ => return None,
        })
    }
}

/// A number that nobody foresees, and that is the same for the same `seed` (Steele, Lea, Flood 2014: `SplitMix64`).
pub fn whim(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::{Fault, Hook, MODES, Plan, whim};

    #[test]
    fn whims_are_many_and_each_can_be_had_again() {
        let whims: Vec<u64> = (0..1_000_u32).map(|ms| whim((f64::from(ms) + 0.5).to_bits())).collect();
        let targets = |n: u64| whims.iter().filter(|whim| *whim % 16 == n).count();
        assert!((0..16).all(|n| (20..120).contains(&targets(n))), "targets come about equally often");
        assert_eq!(whims[7], whim(7.5_f64.to_bits()));
    }

    #[test]
    fn every_mode_is_a_fault_but_the_first() {
        for mode in MODES {
            let plan = Plan::parse(&format!("{{\"mode\":\"{mode}\"}}")).expect(mode);
            assert_eq!(plan.fault.is_none(), *mode == "none", "{mode}");
        }
        assert_eq!(Plan::parse("null"), Ok(Plan::NONE));
        assert!(Plan::parse(r#"{"mode":"sizing.discard"}"#).is_err());
    }

    #[test]
    fn a_fault_of_one_hook_leaves_the_others_alone() {
        let plan = Plan::named("eviction.trap");
        assert_eq!(plan.for_pool(Hook::Eviction, 1.0), Some(Fault::Trap));
        assert_eq!(plan.for_pool(Hook::Sizing, 1.0), None);
        assert_eq!(plan.for_connection(1), None);
        assert_eq!(Plan::named("trap").for_connection(1), Some(Fault::Trap));
    }

    #[test]
    fn it_behaves_while_it_is_tried() {
        let plan = Plan::named("loop");
        assert_eq!(plan.for_pool(Hook::Sizing, 60_000.0), None);
        assert_eq!(plan.for_pool(Hook::Eviction, 0.0), None);
        assert_eq!(plan.for_connection(30_000), None);
    }
}
