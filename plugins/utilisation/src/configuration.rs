//! What an operator may set.

policy_settings::settings! {
    /// Configuration of the policy.
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct Settings {
        /// Share of the target in use above which the pool grows.
        grow_above: number from 0.05 to 1, default 0.7, "share of the target in use above which the pool grows";
        /// Share of the target in use below which it shrinks, in time.
        shrink_below: number from 0 to 0.95, default 0.3,
            "share below which it shrinks, in time; less than grow_above";
        /// Connections that one decision adds or takes away.
        step: whole from 1 to 1000, default 5, "connections that one decision adds or takes away";
        /// Quiet ticks in a row before each step down.
        calm_ticks: whole from 1 to 100_000, default 10, "quiet ticks in a row before each step down";
        /// A first waiter this old, in milliseconds, makes the pool grow at once.
        wait_ms: whole from 0 to 60_000, default 50, "a first waiter this old makes the pool grow at once";
        /// Over how many milliseconds demand is smoothed; 0: not at all.
        smoothing_ms: whole from 0 to 600_000, default 2000, "time over which demand is smoothed";
        /// Idle connections to keep ready.
        min_idle: whole from 0 to 1000, default 1, "idle connections to keep ready";
    }
    shrink_below < grow_above;
}

#[cfg(test)]
mod tests {
    use policy_settings::Configuration as _;

    use super::Settings;

    #[test]
    fn the_example_of_the_readme_is_read() {
        let settings = Settings::parse(r#"{"grow_above":0.8,"shrink_below":0.2,"step":3}"#);
        assert_eq!(settings, Ok(Settings { grow_above: 0.8, shrink_below: 0.2, step: 3, ..Settings::DEFAULT }));
    }

    #[test]
    fn a_band_turned_inside_out_is_refused() {
        let refusal = Settings::parse(r#"{"grow_above":0.3,"shrink_below":0.7}"#);
        assert_eq!(refusal, Err("`shrink_below` must be less than `grow_above`".to_owned()));
        let refusal = Settings::parse(r#"{"grow_above":0.3}"#);
        assert_eq!(refusal, Err("`shrink_below` must be less than `grow_above`".to_owned()));
    }

    #[test]
    fn the_schema_says_what_is_read() {
        // A value out of its bounds must not be refused for the band it makes.
        policy_rig::schema::agrees::<Settings>(r#"{"grow_above":1,"shrink_below":0}"#);
    }
}
