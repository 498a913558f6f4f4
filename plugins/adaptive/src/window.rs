//! How long a connection is trusted.

use policy_validation::Signals;

use crate::Settings;

/// The window that a verdict gives, from `least_ms` to `most_ms`. `pinged`: it counts once the connection has answered.
pub fn window_ms(settings: &Settings, signals: &Signals, pinged: bool) -> u32 {
    let least = settings.least_ms.min(settings.most_ms);
    let given = signals.last_valid_for_ms.max(least);
    let own = match (signals.trigger, signals.last_error) {
        (2, 2) => least,
        (2, _) => given / 2,
        _ if pinged => lengthened(given, settings.growth),
        _ => given,
    };
    own.min(cap(settings, signals)).max(least)
}

fn lengthened(window: u32, growth: f64) -> u32 {
    // One more at least, so that the shortest window grows as well.
    ((f64::from(window) * (1.0 + growth)) as u32).saturating_add(u32::from(growth > 0.0))
}

/// The longest window that failures allow, of the pool's connections and of this one.
fn cap(settings: &Settings, signals: &Signals) -> u32 {
    let most = trusted(settings.most_ms, signals.recent_good, signals.recent_bad, settings.caution);
    trusted(most, signals.uses, signals.errors.saturating_add(signals.failed_probes), settings.caution)
}

/// The part of `window` that is left when each of the `bad` counts as often as `caution` says.
fn trusted(window: u32, good: u32, bad: u32, caution: u32) -> u32 {
    let good = u64::from(good) + 1;
    let against = u64::from(bad) * u64::from(caution);
    // No more than `window`.
    (u64::from(window) * good / (good + against)) as u32
}

#[cfg(test)]
mod tests {
    use policy_validation::Signals;

    use super::window_ms;
    use crate::Settings;

    const WELL: Signals = Signals {
        age_ms: 60_000,
        idle_ms: 2000,
        uses: 10_000,
        since_validated_ms: 5000,
        last_valid_for_ms: 2000,
        deadline_left_ms: 5000,
        ..Signals::EMPTY
    };

    fn window(signals: &Signals) -> u32 {
        window_ms(&Settings::DEFAULT, signals, true)
    }

    #[test]
    fn it_lengthens_by_a_quarter_while_all_is_well() {
        let mut last_valid_for_ms = 0;
        let mut asked = 0;
        while last_valid_for_ms < 10_000 {
            let longer = window(&Signals { last_valid_for_ms, ..WELL });
            assert!(longer > last_valid_for_ms, "{longer}");
            last_valid_for_ms = longer;
            asked += 1;
        }
        assert_eq!((last_valid_for_ms, asked), (10_000, 17), "and ends at the most");
    }

    #[test]
    fn failures_of_the_pool_shorten_it_at_once() {
        let long = Signals { last_valid_for_ms: 10_000, ..WELL };
        let with = |recent_bad, recent_good| window(&Signals { recent_bad, recent_good, ..long });
        assert_eq!(with(0, 50), 10_000);
        assert_eq!(with(1, 49), 5000, "one in fifty");
        assert_eq!(with(1, 4), 909, "one in five");
        assert_eq!(with(1, 0), 250);
        assert_eq!(with(u32::MAX, 0), 250);
        assert_eq!(with(0, u32::MAX), 10_000);
    }

    #[test]
    fn errors_of_the_connection_shorten_its_own() {
        let long = Signals { last_valid_for_ms: 10_000, ..WELL };
        assert_eq!(window(&Signals { uses: 49, errors: 1, ..long }), 5000);
        assert_eq!(window(&Signals { uses: 49, failed_probes: 1, ..long }), 5000);
        assert_eq!(window(&Signals { uses: 0, errors: u32::MAX, failed_probes: 1, ..long }), 250);
        let after = |last_error| window(&Signals { trigger: 2, last_error, ..long });
        assert_eq!([2, 6, 7].map(after), [250, 5000, 5000]);
    }

    #[test]
    fn only_a_ping_lengthens_it() {
        assert_eq!(window_ms(&Settings::DEFAULT, &WELL, true), 2501);
        assert_eq!(window_ms(&Settings::DEFAULT, &WELL, false), 2000);
        assert_eq!(window(&Signals { trigger: 2, last_error: 6, ..WELL }), 1000, "not the one after an error");
    }

    #[test]
    fn without_growth_it_stays() {
        let still = Settings { growth: 0.0, ..Settings::DEFAULT };
        assert_eq!(window_ms(&still, &WELL, true), 2000);
    }

    #[test]
    fn it_knows_nothing_of_what_it_did_not_give() {
        assert_eq!(window(&Signals { last_valid_for_ms: u32::MAX, ..WELL }), 10_000);
        assert_eq!(window_ms(&Settings::DEFAULT, &Signals { last_valid_for_ms: 0, ..WELL }, false), 250);
    }
}
