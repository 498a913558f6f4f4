//! Policies that are part of the gateway: each hook's default, and what answers when a component cannot. They keep no
//! state, cannot fail, and ask nothing of the machine.

use super::{
    Action, EvictionInput, EvictionOutput, Hook, IdleConnection, PolicyError, PoolView, SizingInput, SizingOutput,
    ValidationInput, Verdict,
};

/// How long [`NativeValidation::BypassWindow`] trusts what worked.
pub const WINDOW_MS: u32 = 500;

/// Native sizing policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NativeSizing {
    /// `fixed`: the maximum, made on demand; the minimum is kept ready.
    Fixed,
}

/// Native eviction policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NativeEviction {
    /// `lifetime`: replaces the outdated and the failing. Age and disuse it leaves to the pool's own limits, `max_lifetime`
    /// and `idle_timeout`, which hold whatever a policy says.
    Lifetime,
}

/// Native validation policies. None asks anything of a connection that is being returned (the pool rolls back and resets
/// by itself), and each discards one whose socket is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NativeValidation {
    /// `always`: a round trip before each use.
    Always,
    /// `bypass-window`: what was used or validated within [`WINDOW_MS`] is trusted; the rest, and what had an error, is
    /// pinged.
    BypassWindow,
    /// `never`: the socket's word is enough.
    Never,
}

impl NativeSizing {
    const NAMES: &[&str] = &["fixed"];

    /// Its name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
        }
    }

    /// The policy of that name.
    ///
    /// # Errors
    /// There is none.
    pub fn named(name: &str) -> Result<Self, PolicyError> {
        match name {
            "fixed" => Ok(Self::Fixed),
            _ => Err(unknown(Hook::Sizing, name, Self::NAMES)),
        }
    }

    /// Decides.
    pub fn decide(self, input: &SizingInput) -> SizingOutput {
        let bounds = &input.pool.bounds;
        match self {
            Self::Fixed => {
                SizingOutput { target: bounds.max_size, min_idle: bounds.min_size, ..SizingOutput::default() }
            }
        }
    }
}

impl NativeEviction {
    const NAMES: &[&str] = &["lifetime"];

    /// Its name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lifetime => "lifetime",
        }
    }

    /// The policy of that name.
    ///
    /// # Errors
    /// There is none.
    pub fn named(name: &str) -> Result<Self, PolicyError> {
        match name {
            "lifetime" => Ok(Self::Lifetime),
            _ => Err(unknown(Hook::Eviction, name, Self::NAMES)),
        }
    }

    /// Reviews.
    pub fn review(self, input: &EvictionInput) -> EvictionOutput {
        match self {
            Self::Lifetime => {
                let verdicts = lifetime(&input.pool, &input.idle);
                EvictionOutput { verdicts, yield_cost: yield_cost(&input.pool), carry: Vec::new() }
            }
        }
    }
}

impl NativeValidation {
    const NAMES: &[&str] = &["always", "bypass-window", "never"];

    /// Its name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::BypassWindow => "bypass-window",
            Self::Never => "never",
        }
    }

    /// The policy of that name.
    ///
    /// # Errors
    /// There is none.
    pub fn named(name: &str) -> Result<Self, PolicyError> {
        match name {
            "always" => Ok(Self::Always),
            "bypass-window" => Ok(Self::BypassWindow),
            "never" => Ok(Self::Never),
            _ => Err(unknown(Hook::Validation, name, Self::NAMES)),
        }
    }

    /// Judges.
    pub fn check(self, input: &ValidationInput) -> Verdict {
        let verdict = |action, valid_for_ms| Verdict { action, purge: false, timeout_ms: 0, valid_for_ms };
        if input.peek == ValidationInput::PEEK_CLOSED {
            return verdict(Action::Discard, 0);
        }
        let returned = input.trigger == ValidationInput::RETURN;
        match self {
            Self::Always if returned => verdict(Action::Pass, 0),
            Self::Always => verdict(Action::Ping, 0),
            Self::BypassWindow if returned => verdict(Action::Pass, WINDOW_MS),
            Self::BypassWindow => {
                let fresh = input.idle_ms.min(input.since_validated_ms) < WINDOW_MS;
                let clean = input.trigger != ValidationInput::ERROR && input.last_error == 0;
                verdict(if fresh && clean { Action::Pass } else { Action::Ping }, WINDOW_MS)
            }
            Self::Never => verdict(Action::Pass, u32::MAX),
        }
    }
}

fn unknown(hook: Hook, name: &str, known: &'static [&'static str]) -> PolicyError {
    PolicyError::UnknownNative { hook, name: name.to_owned(), known }
}

/// Outdated or failing ones go, by replacement where their going would leave the pool below its minimum.
fn lifetime(pool: &PoolView, idle: &[IdleConnection]) -> Vec<u32> {
    let mut verdicts = vec![EvictionOutput::KEEP; idle.len()];
    let mut above = pool.gauges.size.saturating_sub(pool.bounds.min_size);
    // The least recently used are last.
    for (connection, verdict) in idle.iter().zip(&mut verdicts).rev() {
        if connection.epochs_behind == 0 && connection.failed_probes == 0 {
            continue;
        }
        *verdict = if above > 0 { EvictionOutput::CLOSE } else { EvictionOutput::REPLACE };
        above = above.saturating_sub(1);
    }
    verdicts
}

/// A slot given up hurts while callers wait, and less the more lies idle.
fn yield_cost(pool: &PoolView) -> u32 {
    let gauges = &pool.gauges;
    if gauges.waiters > 0 || gauges.idle == 0 {
        return EvictionOutput::YIELD_COST_MAX;
    }
    let busy = u64::from(gauges.in_use) * u64::from(EvictionOutput::YIELD_COST_MAX) / u64::from(gauges.size.max(1));
    u32::try_from(busy).map_or(EvictionOutput::YIELD_COST_MAX, |busy| busy.min(EvictionOutput::YIELD_COST_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Bounds, Gauges};

    fn pool(size: u32, min_size: u32) -> PoolView {
        PoolView {
            bounds: Bounds { min_size, max_size: 20, ..Default::default() },
            gauges: Gauges { size, idle: size, ..Default::default() },
            ..Default::default()
        }
    }

    fn review(size: u32, min: u32, idle: &[IdleConnection]) -> Vec<u32> {
        let input = EvictionInput { pool: pool(size, min), idle: idle.to_vec(), carry: vec![] };
        NativeEviction::Lifetime.review(&input).verdicts
    }

    #[test]
    fn fixed_aims_at_the_maximum_and_keeps_the_minimum_ready() {
        let input = SizingInput { pool: pool(3, 2), ..Default::default() };
        let answer = NativeSizing::Fixed.decide(&input);
        assert_eq!((answer.target, answer.min_idle, answer.reserve), (20, 2, 0));
    }

    #[test]
    fn worn_connections_go_and_are_replaced_at_the_minimum() {
        let outdated = IdleConnection { epochs_behind: 1, ..Default::default() };
        let failing = IdleConnection { failed_probes: 1, ..Default::default() };
        let good = IdleConnection::default();
        assert_eq!(review(3, 0, &[outdated, failing, good]), [1, 1, 0]);
        assert_eq!(review(3, 3, &[outdated, failing, good]), [3, 3, 0]);
        assert_eq!(review(3, 2, &[outdated, failing, good]), [3, 1, 0]);
    }

    #[test]
    fn age_and_disuse_are_left_to_the_limits_of_the_pool() {
        let old = IdleConnection { age_ms: 86_400_000, idle_ms: 86_400_000, ..Default::default() };
        assert_eq!(review(2, 0, &[old, old]), [0, 0]);
    }

    #[test]
    fn a_slot_is_dear_while_callers_wait() {
        let mut view = pool(10, 0);
        assert_eq!(yield_cost(&view), 0);
        view.gauges.in_use = 5;
        assert_eq!(yield_cost(&view), 500);
        view.gauges.waiters = 1;
        assert_eq!(yield_cost(&view), 1000);
    }

    #[test]
    fn the_window_is_trusted_and_no_longer() {
        let check = |input: ValidationInput| NativeValidation::BypassWindow.check(&input).action;
        let aged = |idle_ms, since_validated_ms| ValidationInput { idle_ms, since_validated_ms, ..Default::default() };
        assert_eq!(check(aged(499, 9_000)), Action::Pass);
        assert_eq!(check(aged(9_000, 499)), Action::Pass);
        assert_eq!(check(aged(500, 500)), Action::Ping);
        assert_eq!(check(ValidationInput { trigger: ValidationInput::ERROR, ..aged(0, 0) }), Action::Ping);
        assert_eq!(check(ValidationInput { last_error: 1, ..aged(0, 0) }), Action::Ping);
        assert_eq!(check(ValidationInput { trigger: ValidationInput::RETURN, ..aged(9_000, 9_000) }), Action::Pass);
        assert_eq!(NativeValidation::BypassWindow.check(&aged(0, 0)).valid_for_ms, 500);
    }

    #[test]
    fn always_pings_never_passes_and_a_closed_socket_is_discarded_by_all() {
        let input = ValidationInput::default();
        assert_eq!(NativeValidation::Always.check(&input).action, Action::Ping);
        assert_eq!(NativeValidation::Never.check(&input).action, Action::Pass);
        let returned = ValidationInput { trigger: ValidationInput::RETURN, ..input };
        let closed = ValidationInput { peek: ValidationInput::PEEK_CLOSED, ..input };
        for policy in NativeValidation::NAMES.iter().map(|name| NativeValidation::named(name).unwrap()) {
            assert_eq!(policy.check(&returned).action, Action::Pass);
            assert_eq!(policy.check(&closed).action, Action::Discard);
        }
    }

    #[test]
    fn an_unknown_name_is_refused_with_those_there_are() {
        let error = NativeValidation::named("sometimes").unwrap_err().to_string();
        assert_eq!(error, "there is no native validation policy `sometimes`; there is always, bypass-window, never");
        assert!(NativeSizing::named("lifetime").is_err());
        assert!(NativeEviction::named("").is_err());
    }
}
