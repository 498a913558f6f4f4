//! What a component must pass before it serves: it takes its configuration, finds itself sound, and answers a handful of
//! ordinary questions within its limits. Nothing here is held to an opinion: any valid answer will do.

use std::time::Duration;

use super::{
    Bounds, Description, EvictionInput, FaultKind, Flows, Gauges, Hook, IdleConnection, Latencies, PluginError,
    PoolView, SizingInput, ValidationInput, error::tame, fault::Fault, instance::Instance,
    interface::bindings::exports::sluicegate::policy::lifecycle, version::Version,
};

/// The self-check may take so many times the deadline of a call; it runs once, off the request path.
const SELF_CHECK_FACTOR: u32 = 50;
/// Bytes of a name or a version that are kept.
const NAME: usize = 64;
/// Bytes of a configuration schema; a longer one is refused.
const SCHEMA: usize = 64 << 10;
/// Bytes of a component's own words about what it refuses.
const WORDS: usize = 500;

/// Describes, configures, checks and tries a version. What it says of itself goes into its description.
///
/// # Errors
/// The first thing that it does not pass.
pub(super) fn pass(version: &mut Version) -> Result<(), PluginError> {
    let mut instance = introduce(version)?;
    let configured = instance.configure(version).map_err(|fault| starting(&fault))?;
    configured.map_err(|reason| PluginError::Configuration { reason: tame(&reason, WORDS) })?;
    if let Some(lifecycle) = instance.lifecycle(version).map_err(|fault| starting(&fault))? {
        let deadline = version.limits.deadline * SELF_CHECK_FACTOR;
        let checked = instance.timed(deadline, |store| lifecycle.call_self_check(store));
        let refused = |reason: &str| PluginError::SelfCheck { reason: tame(reason, WORDS) };
        checked.map_err(|fault| blame(&fault, refused))?.map_err(|reason| refused(&reason))?;
    }
    drop(instance);
    for hook in version.exports.hooks() {
        let tried = match hook {
            Hook::Sizing => sizing(version),
            Hook::Eviction => eviction(version),
            Hook::Validation => validation(version),
        };
        tried.map_err(|fault| blame(&fault, |detail| PluginError::Trial { hook, detail: detail.to_owned() }))?;
    }
    version.cool();
    Ok(())
}

/// Starts an instance, checks the types of what it exports, and asks who it is.
///
/// # Errors
/// It cannot be started, exports something else by the right name, or describes itself wrongly.
pub(super) fn introduce(version: &mut Version) -> Result<Instance, PluginError> {
    let mut instance = Instance::bare(version).map_err(|fault| starting(&fault))?;
    version.exports.check_types(&mut instance)?;
    let lifecycle = instance.lifecycle(version).map_err(|fault| starting(&fault))?;
    let Some(lifecycle) = lifecycle else {
        return match version.config.as_str() {
            "null" => Ok(instance),
            _ => Err(PluginError::Configuration { reason: "it takes none, as it exports no lifecycle".to_owned() }),
        };
    };
    let deadline = version.limits.deadline * SELF_CHECK_FACTOR;
    let described = instance.timed(deadline, |store| lifecycle.call_describe(store));
    version.description = Some(describe(described.map_err(|fault| starting(&fault))?)?);
    Ok(instance)
}

fn starting(fault: &Fault) -> PluginError {
    blame(fault, |detail| PluginError::Start { detail: detail.to_owned() })
}

/// Whose fault it was: where there was no room for an instance, not the component's.
fn blame(fault: &Fault, refusal: impl FnOnce(&str) -> PluginError) -> PluginError {
    let detail = fault.to_string();
    if fault.kind == FaultKind::Exhausted { PluginError::host(detail) } else { refusal(&detail) }
}

fn describe(said: lifecycle::Description) -> Result<Description, PluginError> {
    if said.config_schema.len() > SCHEMA {
        let detail = format!("its config-schema has {} bytes, more than {SCHEMA}", said.config_schema.len());
        return Err(PluginError::Start { detail });
    }
    Ok(Description {
        name: tame(&said.name, NAME),
        version: tame(&said.version, NAME),
        config_schema: said.config_schema,
        carry_version: said.carry_version,
    })
}

/// A pool at rest, busy, saturated, with failing creates, and one that was just made; each trigger; carry handed on.
fn sizing(version: &Version) -> Result<(), Fault> {
    let views = [PoolView::default(), resting(), busy(), saturated(), failing()];
    let mut carry = Vec::new();
    for (trigger, pool) in (SizingInput::TICK..).zip(views.into_iter().chain([resting()])) {
        carry = version.decide(&SizingInput { pool, trigger, carry })?.carry;
    }
    Ok(())
}

/// No connection, a few, and as many as there may be.
fn eviction(version: &Version) -> Result<(), Fault> {
    let mut carry = Vec::new();
    for (pool, many) in [(resting(), 0), (busy(), 3), (resting(), 256)] {
        let idle = (0..many).map(idle).collect();
        carry = version.review(&EvictionInput { pool, idle, carry })?.carry;
    }
    Ok(())
}

/// Each trigger on a young and on an old connection, and the socket closed.
fn validation(version: &Version) -> Result<(), Fault> {
    let young = ValidationInput { deadline_left_ms: 30_000, ..ValidationInput::default() };
    let old = ValidationInput {
        age_ms: 3_600_000,
        idle_ms: 60_000,
        uses: 10_000,
        errors: 1,
        since_validated_ms: 60_000,
        last_valid_for_ms: 500,
        recent_bad: 1,
        recent_good: 100,
        last_error: 1,
        ..young
    };
    for trigger in ValidationInput::CHECKOUT..=ValidationInput::KEEP_ALIVE {
        version.check(&ValidationInput { trigger, ..young })?;
        version.check(&ValidationInput { trigger, ..old })?;
    }
    version.check(&ValidationInput { peek: ValidationInput::PEEK_CLOSED, ..young })?;
    Ok(())
}

fn resting() -> PoolView {
    PoolView {
        now_ms: 60_000.0,
        interval_ms: 1_000,
        bounds: Bounds { min_size: 1, max_size: 20, server_cap: 100, cores: 4 },
        gauges: Gauges { target: 5, size: 5, idle: 5, ..Gauges::default() },
        ..PoolView::default()
    }
}

fn busy() -> PoolView {
    PoolView {
        gauges: Gauges {
            target: 10,
            size: 10,
            idle: 2,
            in_use: 8,
            in_use_mean: 7.5,
            in_use_peak: 9,
            ..Gauges::default()
        },
        flows: Flows { checkouts: 5_000, waited: 20, creates: 2, ..Flows::default() },
        latencies: Latencies {
            samples: 5_000,
            wait_p50_us: 1,
            wait_p99_us: 900,
            hold_mean_us: 1_500,
            hold_p99_us: 9_000,
            rtt_samples: 5_000,
            rtt_min_us: 80,
            rtt_mean_us: 300,
            rtt_p99_us: 2_000,
            create_mean_us: 12_000,
        },
        ..resting()
    }
}

fn saturated() -> PoolView {
    let gauges = Gauges {
        target: 20,
        size: 20,
        in_use: 20,
        waiters: 300,
        oldest_wait_ms: 900,
        in_use_mean: 20.0,
        in_use_peak: 20,
        waiters_peak: 350,
        ..Gauges::default()
    };
    PoolView { gauges, flows: Flows { checkouts: 900, waited: 900, timeouts: 5, ..Flows::default() }, ..busy() }
}

fn failing() -> PoolView {
    let gauges = Gauges { target: 5, creating: 2, waiters: 10, oldest_wait_ms: 4_000, ..Gauges::default() };
    PoolView {
        gauges,
        flows: Flows { create_failures: 4, server_full: 1, ..Flows::default() },
        breaker: 2,
        ..resting()
    }
}

fn idle(nth: u32) -> IdleConnection {
    IdleConnection {
        age_ms: 10_000 * nth,
        idle_ms: 4_000 * nth,
        uses: 100 + nth,
        errors: nth % 2,
        since_validated_ms: 4_000 * nth,
        jitter_permille: nth * 37 % 1_001,
        epochs_behind: u32::from(nth % 50 == 49),
        statements: nth % 7,
        ..IdleConnection::default()
    }
}

/// How long calls of a hook take on average, over ordinary questions: for `plugin check`.
///
/// # Errors
/// One of the calls fails.
pub(super) fn pace(version: &Version, hook: Hook, calls: u32) -> Result<Duration, Fault> {
    let started = std::time::Instant::now();
    let connections: Vec<_> = (0..10).map(idle).collect();
    for _ in 0..calls {
        match hook {
            Hook::Sizing => {
                version.decide(&SizingInput { pool: busy(), ..SizingInput::default() })?;
            }
            Hook::Eviction => {
                version.review(&EvictionInput { pool: busy(), idle: connections.clone(), carry: Vec::new() })?;
            }
            Hook::Validation => {
                version.check(&ValidationInput { age_ms: 1_000, idle_ms: 700, ..ValidationInput::default() })?;
            }
        }
    }
    Ok(started.elapsed() / calls.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_for_which_there_was_no_room_is_not_held_against_the_component() {
        let fault = |kind| Fault { kind, detail: "no slot".to_owned() };
        assert!(starting(&fault(FaultKind::Exhausted)).is_transient());
        assert!(!starting(&fault(FaultKind::Trap)).is_transient());
    }
}
