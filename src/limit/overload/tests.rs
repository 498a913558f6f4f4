//! The decision against histories, and in a closed loop with a gateway that is a few lines of arithmetic.

use proptest::prelude::*;

use super::*;

const SAMPLE: Duration = Duration::from_millis(500);

/// An overload with its clock, two samples a second.
struct Run {
    overload: Overload,
    settings: model::Overload,
    now: Instant,
    last: Decision,
}

impl Run {
    fn new() -> Self {
        let last = Decision { shares: Shares::default(), cause: None, turn: None };
        Self { overload: Overload::default(), settings: model::Overload::default(), now: Instant::now(), last }
    }

    fn sample(&mut self, memory: f64, cpu: f64) -> Decision {
        self.now += SAMPLE;
        let pressure = Pressure { memory: Some(memory), cpu: Some(cpu) };
        self.last = self.overload.look(self.now, pressure, &self.settings);
        self.last
    }

    fn memory_for(&mut self, seconds: u32, memory: f64) -> Vec<Decision> {
        (0..2 * seconds).map(|_| self.sample(memory, 0.0)).collect()
    }

    fn cpu_for(&mut self, seconds: u32, cpu: f64) -> Vec<Decision> {
        (0..2 * seconds).map(|_| self.sample(0.3, cpu)).collect()
    }
}

fn shares(low: f64, normal: f64, high: f64) -> Shares {
    Shares { low, normal, high }
}

#[test]
fn nothing_is_refused_below_the_threshold() {
    let mut run = Run::new();
    assert!(run.memory_for(600, 0.849).iter().all(|decision| decision.shares == Shares::default()));
    assert!(run.cpu_for(600, 0.799).iter().all(|decision| decision.cause.is_none() && decision.turn.is_none()));
}

#[test]
fn a_burst_of_some_seconds_refuses_nothing() {
    let mut run = Run::new();
    for _ in 0..20 {
        let burst = run.cpu_for(5, 1.0);
        assert!(burst.iter().all(|decision| decision.cause.is_none()), "{burst:?}");
        run.cpu_for(5, 0.2);
    }
    let lasting = run.cpu_for(10, 1.0);
    assert_eq!(lasting.last().unwrap().cause, Some(Resource::Cpu));
}

#[test]
fn memory_at_the_very_top_refuses_at_once_in_the_order_of_priorities() {
    let mut run = Run::new();
    run.sample(0.2, 0.0);
    let seen: Vec<_> = (0..3).map(|_| run.sample(1.0, 0.0).shares).collect();
    assert_eq!(seen, [shares(1.0, 0.0, 0.0), shares(1.0, 1.0, 0.0), shares(1.0, 1.0, 1.0)]);
}

#[test]
fn each_priority_has_a_threshold_of_its_own() {
    for (memory, refused) in [
        (0.86, shares(1.0, 0.0, 0.0)),
        (0.92, shares(1.0, 0.0, 0.0)),
        (0.93, shares(1.0, 1.0, 0.0)),
        (0.96, shares(1.0, 1.0, 0.0)),
        (0.98, shares(1.0, 1.0, 1.0)),
    ] {
        let mut run = Run::new();
        assert_eq!(run.memory_for(120, memory).last().unwrap().shares, refused, "{memory}");
    }
}

#[test]
fn little_excess_refuses_slowly_and_much_fast() {
    let until = |memory: f64| {
        let mut run = Run::new();
        (0..1_000).find(|_| run.sample(memory, 0.0).shares.low >= 1.0).unwrap() / 2
    };
    let (little, some, much) = (until(0.86), until(0.9), until(0.97));
    assert!(little >= 5 && little > 2 * some && some >= 1 && much <= 1, "{little} {some} {much} seconds");
}

#[test]
fn it_ends_below_the_threshold_less_a_margin_and_says_so_once() {
    let mut run = Run::new();
    let begun = run.memory_for(10, 0.9);
    let turns = |decisions: &[Decision]| decisions.iter().filter_map(|decision| decision.turn).collect::<Vec<_>>();
    assert_eq!(turns(&begun), [Turn::Begun { cause: Resource::Memory, value: 0.9, threshold: 0.85 }]);
    let within = run.memory_for(600, 0.81);
    assert!(
        within.iter().all(|decision| decision.shares.low >= 1.0 && decision.turn.is_none()),
        "between the two it stays"
    );
    let ended = run.memory_for(120, 0.5);
    let [Turn::Ended { after }] = turns(&ended)[..] else { panic!("{:?}", turns(&ended)) };
    assert!(after > Duration::from_secs(610) && after < Duration::from_secs(640), "{after:?}");
    assert!(ended.windows(2).all(|pair| pair[1].shares.low <= pair[0].shares.low), "it never goes up again");
    assert!(ended[0].shares.low > 0.9, "it does not let in all at once: {:?}", ended[0]);
}

#[test]
fn a_threshold_of_nothing_turns_its_resource_off_at_once() {
    let mut run = Run::new();
    run.memory_for(10, 0.99);
    assert_eq!(run.last.cause, Some(Resource::Memory));
    run.settings.memory = 0.0;
    assert_eq!(run.sample(1.0, 0.0).shares, Shares::default());
    run.settings = model::Overload { cpu: 0.0, ..model::Overload::default() };
    assert!(run.cpu_for(120, 1.0).iter().all(|decision| decision.cause.is_none()));
}

#[test]
fn a_threshold_that_is_raised_is_obeyed_from_the_next_sample_on() {
    let mut run = Run::new();
    run.memory_for(30, 0.9);
    run.settings.memory = 0.98;
    let ended = run.memory_for(60, 0.9);
    assert!(ended.iter().all(|decision| decision.shares.low < 1.0) && run.last.cause.is_none());
}

#[test]
fn what_is_short_most_is_the_cause() {
    let mut run = Run::new();
    run.cpu_for(30, 1.0);
    assert_eq!(run.last.cause, Some(Resource::Cpu));
    run.memory_for(5, 1.0);
    assert_eq!(run.last.cause, Some(Resource::Memory));
}

#[test]
fn a_source_that_falls_silent_holds_nobody_off_for_ever() {
    let mut run = Run::new();
    run.memory_for(10, 0.99);
    for _ in 0..200 {
        run.now += SAMPLE;
        run.last = run.overload.look(run.now, Pressure::default(), &run.settings);
    }
    assert_eq!(run.last.cause, None);
}

#[test]
fn the_share_that_is_refused_is_the_share_that_was_decided() {
    let admission = Admission::default();
    assert_eq!(admission.refuses(Priority::Low, 1), None);
    let decision = Decision { shares: shares(1.0, 0.3, 0.0), cause: Some(Resource::Cpu), turn: None };
    admission.set(&decision);
    // Numbers go up for all routes together: one route may have every second of them, or every hundredth.
    for stride in [1, 2, 3, 7, 64, 100, 1_000] {
        let refused = |priority| (0..10_000).filter(|n| admission.refuses(priority, n * stride).is_some()).count();
        let [low, normal, high] = [Priority::Low, Priority::Normal, Priority::High].map(refused);
        assert!(
            low == 10_000 && high == 0 && (2_900..3_100).contains(&normal),
            "stride {stride}: {low} {normal} {high}"
        );
    }
    assert_eq!(admission.refuses(Priority::Low, 9), Some(Resource::Cpu));
    admission.set(&Decision { cause: Some(Resource::Memory), ..decision });
    assert_eq!(admission.refuses(Priority::Low, 9), Some(Resource::Memory));
    admission.set(&Decision { cause: None, ..decision });
    assert_eq!(admission.refuses(Priority::Low, 9), None);
}

#[test]
fn a_refused_request_is_told_when_to_come_again() {
    let seconds: std::collections::BTreeSet<_> = (0..100).map(retry_after).collect();
    assert_eq!(seconds, (5..=10).collect(), "and not all at the same time");
}

// === closed loop ===

/// What comes in, by priority, in units of what the gateway can do.
type Offered = [f64; 3];

/// How much of what is offered is let in, with its cost, and what a refusal costs of it.
fn demand(offered: Offered, shares: Shares, refusal: f64) -> f64 {
    let refused = [shares.low, shares.normal, shares.high];
    offered.iter().zip(refused).map(|(load, share)| load * (1.0 - share) + load * share * refusal).sum()
}

/// Runs for two minutes, and returns the last minute: the figure, and the sum of the shares.
fn last_minute(mut sample: impl FnMut(Shares) -> (f64, Shares)) -> Vec<(f64, f64)> {
    let mut now = Shares::default();
    let mut seen = Vec::new();
    for _ in 0..240 {
        let (figure, next) = sample(now);
        now = next;
        seen.push((figure, now.low + now.normal + now.high));
    }
    seen.split_off(120)
}

fn range(of: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    (of.clone().fold(f64::MAX, f64::min), of.fold(0.0, f64::max))
}

/// The processor: what is asked for is done within the sample, up to all there is; every figure is off by a few per cent.
#[test]
fn processor_load_settles_and_does_not_swing() {
    for (offered, refusal, most) in [
        ([0.2, 0.9, 0.1], 0.0, 0.95),
        ([2.0, 0.5, 0.1], 0.02, 0.9),
        ([0.4, 1.2, 0.4], 0.05, 0.98),
        ([5.0, 0.0, 0.0], 0.05, 0.9),
        ([0.0, 5.0, 0.0], 0.05, 0.98),
        ([0.0, 0.0, 3.0], 0.05, 1.0),
        ([0.5, 0.5, 0.1], 0.5, 0.9),
    ] {
        let (mut run, mut noise) = (Run::new(), 0_u64);
        let seen = last_minute(|shares| {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let off = (noise >> 40) as f64 / (1_u64 << 24) as f64 * 0.06 - 0.03;
            let cpu = (demand(offered, shares, refusal) + off).clamp(0.0, 1.0);
            (cpu, run.sample(0.3, cpu).shares)
        });
        let (least, top) = range(seen.iter().map(|(cpu, _)| *cpu));
        let (lowest, highest) = range(seen.iter().map(|(_, level)| *level));
        println!("{offered:?}: {least:.2} to {top:.2}; level {lowest:.2} to {highest:.2}");
        assert!(least > 0.6 && top <= most + 0.06, "{offered:?}: {least:.2} to {top:.2}");
        assert!(highest - lowest < 0.1, "{offered:?} swings from {lowest:.2} to {highest:.2}");
    }
}

/// Memory: what is let in stays for some seconds, so a refusal shows late. The load comes within half a minute.
#[test]
fn memory_settles_below_its_end_and_does_not_swing() {
    for (offered, stays) in [
        ([0.2, 0.8, 0.1], 2.0),
        ([1.5, 0.4, 0.1], 2.0),
        ([0.0, 2.0, 0.0], 5.0),
        ([2.0, 0.0, 0.0], 10.0),
        ([0.5, 1.0, 0.5], 20.0),
        ([0.1, 0.2, 1.5], 2.0),
    ] {
        let (mut run, mut held, mut come, mut ever) = (Run::new(), 0.0, 0.0_f64, 0.0_f64);
        let seen = last_minute(|shares| {
            come = (come + SAMPLE.as_secs_f64() / 30.0).min(1.0);
            held += (come * demand(offered, shares, 0.0) - held) * (SAMPLE.as_secs_f64() / stays);
            let memory = 0.2 + held;
            ever = ever.max(memory);
            (memory, run.sample(memory, 0.0).shares)
        });
        let (least, top) = range(seen.iter().map(|(memory, _)| *memory));
        let (lowest, highest) = range(seen.iter().map(|(_, level)| *level));
        println!("{offered:?} {stays}: {least:.2} to {top:.2}, ever {ever:.3}; level {lowest:.2} to {highest:.2}");
        assert!(ever < 1.0, "{offered:?}: the kernel has killed it at {ever:.3}");
        assert!(least > 0.7 && top < 0.99, "{offered:?}: {least:.2} to {top:.2}");
        assert!(highest - lowest < 0.2, "{offered:?} swings from {lowest:.2} to {highest:.2}");
    }
}

proptest! {
    #[test]
    fn a_higher_priority_is_refused_only_when_all_of_the_lower_is(
        samples in prop::collection::vec((0.0..1.2_f64, 0.0..1.2_f64, 1_u64..3_000), 1..300),
        thresholds in (0.0..1.0_f64, 0.0..1.0_f64),
    ) {
        let (mut overload, mut now) = (Overload::default(), Instant::now());
        let settings = model::Overload { memory: thresholds.0, cpu: thresholds.1, memory_limit: None };
        let admission = Admission::default();
        let mut sheds = false;
        for (number, (memory, cpu, passed)) in samples.into_iter().enumerate() {
            now += Duration::from_millis(passed);
            let decision = overload.look(now, Pressure { memory: Some(memory), cpu: Some(cpu) }, &settings);
            let Shares { low, normal, high } = decision.shares;
            prop_assert!([low, normal, high].iter().all(|share| (0.0..=1.0).contains(share)), "{decision:?}");
            prop_assert!((normal == 0.0 || low >= 1.0) && (high == 0.0 || normal >= 1.0), "{decision:?}");
            prop_assert_eq!(decision.cause.is_some(), low > 0.0);
            match decision.turn {
                Some(Turn::Begun { value, threshold, .. }) => {
                    prop_assert!(!sheds && value >= threshold && threshold > 0.0);
                    sheds = true;
                }
                Some(Turn::Ended { .. }) => {
                    prop_assert!(sheds);
                    sheds = false;
                }
                None => {}
            }
            prop_assert_eq!(sheds, decision.cause.is_some());
            admission.set(&decision);
            let refused = [Priority::Low, Priority::Normal, Priority::High]
                .map(|priority| admission.refuses(priority, number as u64));
            prop_assert!(refused.is_sorted_by(|lower, higher| lower.is_some() || higher.is_none()), "{refused:?}");
            prop_assert!(refused.iter().flatten().all(|cause| Some(*cause) == decision.cause));
        }
    }

    #[test]
    fn below_every_margin_it_always_ends(memory in 0.0..0.6_f64, cpu in 0.0..0.6_f64, before in 0.0..1.0_f64) {
        let mut run = Run::new();
        let _: Vec<_> = (0..100).map(|_| run.sample(before, before)).collect();
        let _: Vec<_> = (0..400).map(|_| run.sample(memory, cpu)).collect();
        prop_assert_eq!(run.last.cause, None);
    }
}
