//! What an operator may set.

policy_settings::settings! {
    /// Configuration of the policy.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Settings {
        /// Statements queueing in the database below which it grows, per decade of the limit.
        alpha: whole from 1 to 1000, default 3, "statements queueing in the database below which it grows";
        /// Statements queueing in the database above which it shrinks, per decade of the limit.
        beta: whole from 1 to 1000, default 6,
            "statements queueing in the database above which it shrinks; more than alpha";
        /// Seconds between measurements of the database at half the limit; 0: none.
        probe_s: whole from 0 to 86_400, default 300,
            "seconds between measurements of the database at half load; 0: none";
        /// Round trips that a measurement needs.
        min_samples: whole from 1 to 100_000, default 50, "round trips that a measurement needs";
        /// Connections to begin with, when nothing is known.
        start: whole from 1 to 10_000, default 10, "connections to begin with, when nothing is known";
        /// Idle connections to keep ready.
        min_idle: whole from 0 to 1000, default 1, "idle connections to keep ready";
    }
    alpha < beta;
}

#[cfg(test)]
mod tests {
    use policy_settings::Configuration as _;

    use super::Settings;

    #[test]
    fn a_band_turned_inside_out_is_refused() {
        let refusal = Settings::parse(r#"{"alpha":6}"#);
        assert_eq!(refusal, Err("`alpha` must be less than `beta`".to_owned()));
    }

    #[test]
    fn the_schema_says_what_is_read() {
        policy_rig::schema::agrees::<Settings>("{}");
    }
}
