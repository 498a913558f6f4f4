//! What holds for every input, and how a whole pool fares under a load.

use policy_rig::sizing::any::{carry, day, signals};
use policy_rig::sizing::laws;
use policy_sizing::{Decision, Policy as _, Signals};
use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};
use utilisation::{Reason, Settings, Utilisation};

fn settings() -> impl Strategy<Value = Settings> {
    (0.05..=1.0_f64, 0.0..0.9_f64, 1..50_u32, 1..20_u32, 0..500_u32, 0..20_000_u32, 0..20_u32).prop_map(
        |(grow_above, share, step, calm_ticks, wait_ms, smoothing_ms, min_idle)| Settings {
            grow_above,
            shrink_below: grow_above * share,
            step,
            calm_ticks,
            wait_ms,
            smoothing_ms,
            min_idle,
        },
    )
}

/// Nothing presses, and little is in use.
fn calm_signals() -> impl Strategy<Value = Signals> {
    (0..10_u32, 1..100_u32, 1..100_u32, 0..20_u32, 0..20_u32, 0.0..20.0_f64).prop_map(
        |(min_size, max_size, target, in_use, in_use_peak, in_use_mean)| Signals {
            interval_ms: 1000,
            min_size,
            max_size,
            target,
            size: target,
            in_use,
            in_use_peak,
            in_use_mean,
            ..Signals::default()
        },
    )
}

/// Where the host would keep the present target.
fn bounded(signals: &Signals) -> u32 {
    let most = if signals.server_cap == 0 { signals.max_size } else { signals.max_size.min(signals.server_cap) };
    signals.target.max(signals.min_size).max(1).min(most)
}

proptest! {
    #[test]
    fn the_laws_hold(settings in settings(), day in day(), carry in carry(), follows in any::<bool>()) {
        laws::hold::<Utilisation>(&settings, &day, carry, follows)?;
    }

    #[test]
    fn a_decision_moves_by_a_step_at_most(settings in settings(), signals in signals(), carry in carry()) {
        let decision = Utilisation::decide(&settings, &signals, &carry);
        prop_assert!(decision.target.abs_diff(bounded(&signals)) <= settings.step);
    }

    #[test]
    fn it_never_grows_against_a_wall(settings in settings(), signals in signals(), carry in carry(), wall in 0..4_u32) {
        let signals = match wall {
            0 => Signals { create_failures: signals.create_failures.max(1), ..signals },
            1 => Signals { server_full: signals.server_full.max(1), ..signals },
            2 => Signals { breaker: signals.breaker.max(1), ..signals },
            _ => Signals { trigger: 3, ..signals },
        };
        let decision = Utilisation::decide(&settings, &signals, &carry);
        prop_assert_eq!(decision.target, bounded(&signals));
        prop_assert_eq!(decision.reason, Reason::Failing);
    }

    #[test]
    fn it_never_shrinks_below_what_is_needed(settings in settings(), signals in calm_signals(), demand in 0.0..20.0_f64) {
        let decision = Utilisation::decide(&settings, &signals, &[demand, f64::from(settings.calm_ticks)]);
        let present = bounded(&signals);
        prop_assert!(decision.target <= present || decision.reason == Reason::Busy);
        if decision.target < present {
            prop_assert_eq!(decision.reason, Reason::Calm);
            prop_assert!(decision.target >= signals.in_use && decision.target >= signals.in_use_peak);
            prop_assert!(signals.in_use_mean < settings.grow_above * f64::from(decision.target), "it would grow again");
        }
        let waited = Utilisation::decide(&settings, &Signals { waiters: 1, ..signals }, &[demand, f64::from(settings.calm_ticks)]);
        prop_assert!(waited.target >= present, "never while anyone waits");
    }

    #[test]
    fn at_constant_load_it_comes_to_rest(settings in settings(), load in 0.0..80.0_f64, start in 1..100_u32, max_size in 1..100_u32) {
        let mut pool = Simulation::new(settings, start, max_size);
        // Every connection by steps of one, each after the most calm ticks, and the smoothing's memory.
        pool.run(100 * 20 + 400, |_| load);
        let resting = pool.target;
        let moves = pool.turns;
        pool.run(200, |_| load);
        prop_assert_eq!(pool.target, resting, "still moving");
        prop_assert_eq!(pool.turns, moves);
        prop_assert!(pool.turns <= 1, "turned {} times", pool.turns);
        let enough = resting == max_size || load <= f64::from(resting) * settings.grow_above + 1e-6;
        prop_assert!(enough, "{resting} connections for a load of {load}");
    }

    #[test]
    fn a_noisy_load_does_not_make_it_flap(level in 1.0..40.0_f64, noise in proptest::collection::vec(-0.25..0.25_f64, 400)) {
        let mut pool = Simulation::new(Settings::DEFAULT, 1, 100);
        pool.run(100, |_| level);
        let before = pool.turns;
        pool.run(400, |tick| level * (1.0 + noise[tick]));
        prop_assert!(pool.turns - before <= 2, "turned {} times", pool.turns - before);
    }
}

/// A pool that does as it is told within a tick, under a load given as the connections it would use.
struct Simulation {
    settings: Settings,
    target: u32,
    max_size: u32,
    carry: Vec<f64>,
    /// Changes of direction.
    turns: u32,
    grew: Option<bool>,
}

impl Simulation {
    fn new(settings: Settings, start: u32, max_size: u32) -> Self {
        Self { settings, target: start.min(max_size), max_size, carry: Vec::new(), turns: 0, grew: None }
    }

    fn run(&mut self, ticks: usize, load: impl Fn(usize) -> f64) {
        for tick in 0..ticks {
            let load = load(tick).max(0.0);
            let used = load.min(f64::from(self.target));
            let waiters = (load - used).ceil() as u32;
            let signals = Signals {
                interval_ms: 1000,
                max_size: self.max_size,
                target: self.target,
                size: self.target,
                in_use: used as u32,
                in_use_mean: used,
                in_use_peak: used.ceil() as u32,
                waiters,
                oldest_wait_ms: if waiters > 0 { 1000 } else { 0 },
                ..Signals::default()
            };
            let decision = Utilisation::decide(&self.settings, &signals, &self.carry);
            self.follow(&decision);
        }
    }

    fn follow(&mut self, decision: &Decision<Reason>) {
        if decision.target != self.target {
            let grows = decision.target > self.target;
            self.turns += u32::from(self.grew.is_some_and(|grew| grew != grows));
            self.grew = Some(grows);
        }
        self.target = decision.target;
        self.carry.clone_from(&decision.carry);
    }
}
