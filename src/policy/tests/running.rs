//! What happens when a component in service misbehaves.

use std::time::{Duration, Instant};

use serde_json::json;

use super::fixture::{Bench, FLOOD, GROW, Guest, LIE, LOOP, RECURSE, TRAP, reference};
use crate::policy::{
    Action, Census, DecidedBy, EvictionInput, FaultKind, Gauges, Hook, IdleConnection, PolicyError, PoolView,
    SizingInput, ValidationInput,
};

fn sizing(how: u32) -> SizingInput {
    let bounds = crate::policy::Bounds { max_size: 20, ..Default::default() };
    SizingInput { pool: PoolView { breaker: how, bounds, ..Default::default() }, ..Default::default() }
}

fn eviction(how: u32, idle: usize) -> EvictionInput {
    let pool = PoolView { breaker: how, gauges: Gauges { size: 3, ..Default::default() }, ..Default::default() };
    EvictionInput { pool, idle: vec![IdleConnection::default(); idle], ..Default::default() }
}

fn validation(how: u32) -> ValidationInput {
    ValidationInput { uses: how, ..Default::default() }
}

fn fallback(kind: FaultKind) -> DecidedBy {
    DecidedBy::Fallback(kind)
}

/// Pools hand them between threads; workers share a validation policy.
const _: () = {
    const fn send<T: Send>() {}
    const fn sync<T: Sync>() {}
    send::<crate::policy::Sizing>();
    send::<crate::policy::Eviction>();
    send::<crate::policy::Validation>();
    sync::<crate::policy::Validation>();
    sync::<crate::policy::Plugins>();
};

const FIRST: DecidedBy = DecidedBy::Plugin { version: 1 };

#[tokio::test]
async fn each_hook_is_answered_by_the_component() {
    let bench = Bench::serving(&Guest { mark: 7, ..Guest::default() }).await;
    assert_eq!(bench.plugins.census(), Census { versions: 1, stores: 0 }, "the trial left nothing running");
    let verdict = bench.plugins.validation(&reference("never")).unwrap().check(&validation(0));
    assert_eq!((verdict.answer.action, verdict.answer.valid_for_ms, verdict.by), (Action::Ping, 7, FIRST));
    let decision = bench.plugins.sizing(&reference("fixed")).unwrap().decide(&sizing(0));
    assert_eq!((decision.answer.target, decision.by), (7, FIRST));
    let review = bench.plugins.eviction(&reference("lifetime")).unwrap().review(&eviction(0, 3));
    assert_eq!((&*review.answer.verdicts, review.answer.yield_cost, review.by), (&[1, 1, 1][..], 7, FIRST));
}

#[tokio::test]
async fn every_kind_of_misbehaviour_costs_one_call_and_is_told_apart() {
    let bench = Bench::serving(&Guest::default()).await;
    let policy = bench.plugins.validation(&reference("never")).unwrap();
    let faults = [
        (TRAP, FaultKind::Trap),
        (LOOP, FaultKind::Deadline),
        (GROW, FaultKind::Memory),
        (RECURSE, FaultKind::Trap),
        (LIE, FaultKind::Invalid),
    ];
    for (how, kind) in faults {
        let decision = policy.check(&validation(how));
        assert_eq!(decision.by, fallback(kind));
        assert_eq!(decision.answer.action, Action::Pass, "the named fallback answers");
        assert_eq!(bench.plugins.census().stores, 0, "the poisoned store is gone");
        for _ in 0..4 {
            assert_eq!(policy.check(&validation(0)).by, FIRST, "the next call is answered");
        }
    }
    let status = &bench.plugins.status()[0];
    let figures = &status.hooks[&Hook::Validation].figures;
    assert_eq!(figures.calls, 25);
    assert_eq!(figures.faults.values().sum::<u64>(), 5);
    assert_eq!(figures.faults[&FaultKind::Trap], 2);
    assert!(!status.is_degraded());
}

#[tokio::test]
async fn answers_that_break_the_rules_are_faults() {
    let bench = Bench::serving(&Guest::default()).await;
    let mut policy = bench.plugins.eviction(&reference("lifetime")).unwrap();
    for how in [LIE, FLOOD] {
        let review = policy.review(&eviction(how, 3));
        assert_eq!((review.by, &*review.answer.verdicts), (fallback(FaultKind::Invalid), &[0, 0, 0][..]));
    }
    assert_eq!(policy.review(&eviction(0, 256)).answer.verdicts, [1; 256]);
    let mut policy = bench.plugins.sizing(&reference("fixed")).unwrap();
    for how in [LIE, FLOOD] {
        assert_eq!(policy.decide(&sizing(how)).by, fallback(FaultKind::Invalid), "{how}");
    }
}

#[tokio::test]
async fn a_call_is_stopped_near_its_deadline() {
    let bench = Bench::new();
    bench.place("p", &Guest::default());
    bench.apply(json!({ "deadline": "5ms" })).await.unwrap();
    let policy = bench.plugins.validation(&reference("never")).unwrap();
    let started = Instant::now();
    assert_eq!(policy.check(&validation(LOOP)).by, fallback(FaultKind::Deadline));
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(5), "no earlier than promised: {took:?}");
    assert!(took < Duration::from_millis(250), "the hard limit is 50 ms: {took:?}");
}

#[tokio::test]
async fn a_sizing_fault_is_answered_with_the_last_good_target() {
    let bench = Bench::serving(&Guest { mark: 9, ..Guest::default() }).await;
    let mut policy = bench.plugins.sizing(&reference("fixed")).unwrap();
    let decision = policy.decide(&sizing(TRAP));
    assert_eq!((decision.answer.target, decision.by), (20, fallback(FaultKind::Trap)), "there is none yet: native");
    assert_eq!(policy.decide(&sizing(0)).answer.target, 9);
    let decision = policy.decide(&sizing(TRAP));
    assert_eq!((decision.answer.target, decision.by), (9, fallback(FaultKind::Trap)));
}

#[tokio::test]
async fn three_faults_quarantine_a_hook_until_a_probe_succeeds() {
    let bench = Bench::serving(&Guest { mark: 9, ..Guest::default() }).await;
    let mut policy = bench.plugins.sizing(&reference("fixed")).unwrap();
    policy.decide(&sizing(0));
    let started = Instant::now();
    for _ in 0..3 {
        assert_eq!(policy.decide(&sizing(TRAP)).by, fallback(FaultKind::Trap));
    }
    let resting = policy.decide(&sizing(0));
    assert_eq!(
        (resting.by, resting.answer.target),
        (fallback(FaultKind::Quarantined), 20),
        "native, not the last good"
    );
    let status = &bench.plugins.status()[0];
    assert!(status.hooks[&Hook::Sizing].quarantined && status.is_degraded());
    let checked = bench.plugins.validation(&reference("never")).unwrap().check(&validation(0));
    assert_eq!(checked.by, FIRST, "the other hooks go on");
    let back = loop {
        let decision = policy.decide(&sizing(0));
        if decision.by == FIRST {
            break decision;
        }
        assert!(started.elapsed() < Duration::from_secs(5), "the probe comes after a second");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert_eq!(back.answer.carry, [1.0], "what was carried into the quarantine is not carried out of it");
    assert!(!bench.plugins.status()[0].is_degraded());
}

#[tokio::test]
async fn a_probe_that_fails_moves_no_target() {
    let bench = Bench::serving(&Guest { mark: 9, ..Guest::default() }).await;
    let mut policy = bench.plugins.sizing(&reference("fixed")).unwrap();
    assert_eq!(policy.decide(&sizing(0)).answer.target, 9);
    for _ in 0..3 {
        policy.decide(&sizing(TRAP));
    }
    let started = Instant::now();
    loop {
        let decision = policy.decide(&sizing(TRAP));
        assert_eq!(decision.answer.target, 20, "the fallback decides, by {:?}", decision.by);
        if decision.by == fallback(FaultKind::Trap) {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(5), "the probe comes after a second");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn carry_comes_back_and_a_fault_does_not_lose_it() {
    let bench = Bench::serving(&Guest::default()).await;
    let mut policy = bench.plugins.sizing(&reference("fixed")).unwrap();
    assert_eq!(policy.decide(&sizing(0)).answer.carry, [1.0]);
    assert_eq!(policy.decide(&sizing(0)).answer.carry, [2.0]);
    policy.decide(&sizing(LIE));
    assert_eq!(policy.decide(&sizing(0)).answer.carry, [3.0]);
    let mut another_pool = bench.plugins.sizing(&reference("fixed")).unwrap();
    assert_eq!(another_pool.decide(&sizing(0)).answer.carry, [1.0], "each pool carries its own");
    let mut reviews = bench.plugins.eviction(&reference("lifetime")).unwrap();
    assert_eq!(reviews.review(&eviction(0, 1)).answer.carry, [1.0]);
    let given = EvictionInput { carry: vec![100.0], ..eviction(0, 1) };
    assert_eq!(reviews.review(&given).answer.carry, [2.0], "what the caller puts there is ignored");
}

#[tokio::test]
async fn sizing_has_a_new_instance_each_time_and_validation_a_warm_one() {
    // The answer is how often this instance was asked.
    let count = "(global.set $calls (i32.add (global.get $calls) (i32.const 1)))";
    let counting: &str =
        format!("{count} (if (i32.gt_u (global.get $calls) (i32.const 200)) (then unreachable))").leak();
    let bench = Bench::serving(&Guest { prologue: counting, ..Guest::default() }).await;
    let mut sizes = bench.plugins.sizing(&reference("fixed")).unwrap();
    for _ in 0..300 {
        assert_eq!(sizes.decide(&sizing(0)).by, FIRST);
    }
    let checks = bench.plugins.validation(&reference("never")).unwrap();
    let by: Vec<_> = (0..300).map(|_| checks.check(&validation(0)).by).collect();
    assert_eq!(by.iter().filter(|by| **by == fallback(FaultKind::Trap)).count(), 1);
    assert_eq!(bench.plugins.census().stores, 1);
}

#[tokio::test]
async fn policies_that_do_not_exist_are_refused_by_name() {
    let bench = Bench::serving(&Guest { hooks: &["sizing"], ..Guest::default() }).await;
    let error = bench.plugins.validation(&reference("never")).err().unwrap();
    assert_eq!(error.to_string(), "plugin p has no validation policy; it exports sizing");
    assert!(matches!(bench.plugins.sizing(&reference("lifetime")), Err(PolicyError::UnknownNative { .. })));
    let unknown = serde_json::from_value(json!({ "plugin": "q", "fallback": "fixed" })).unwrap();
    assert_eq!(bench.plugins.sizing(&unknown).err().unwrap().to_string(), "there is no [plugin.q]");
    let native = serde_json::from_value(json!({ "native": "always" })).unwrap();
    let decision = bench.plugins.validation(&native).unwrap().check(&validation(0));
    assert_eq!(decision.by, DecidedBy::Native);
}

#[tokio::test]
async fn memory_within_the_limit_can_be_had() {
    // One page at the start, 4 MiB in all: 63 more can be had, 64 cannot.
    let grow = |pages: u32| -> &'static str {
        format!("(if (i32.eq (memory.grow (i32.const {pages})) (i32.const -1)) (then unreachable))").leak()
    };
    let fits = Guest { hooks: &["sizing"], prologue: grow(63), ..Guest::default() };
    let bench = Bench::serving(&fits).await;
    bench.place("p", &Guest { prologue: grow(64), ..fits });
    bench.watch_until(|bench| bench.last_error().is_some()).await;
    assert!(bench.last_error().unwrap().contains("sizing: memory: "), "{:?}", bench.last_error());
}
