//! What an operator may set.

policy_settings::settings! {
    /// Configuration of the policy.
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct Settings {
        /// Connections that it grows by in a second.
        increase: number from 0.01 to 100, default 1, "connections that it grows by in a second";
        /// Share of the target in use, at the peak, above which it grows.
        used_above: number from 0 to 1, default 0.8, "share of the target in use above which it grows";
        /// Share that is left when the database has enough.
        backoff: number from 0.1 to 0.95, default 0.75, "share that is left when the database has enough";
        /// A mean round trip longer than that, in milliseconds, means that the database has enough; 0: none does.
        rtt_above_ms: whole from 0 to 600_000, default 0,
            "round trips longer than that mean that the database has enough; 0: none do";
        /// Round trips that a measurement needs.
        min_samples: whole from 1 to 100_000, default 10, "round trips that a measurement needs";
        /// How many milliseconds a step back has to show its effect before the next.
        cooldown_ms: whole from 0 to 600_000, default 10_000,
            "time for a step back to show its effect before the next";
        /// How many milliseconds it stays away from what was too much.
        retry_ms: whole from 0 to 3_600_000, default 60_000, "how long it stays away from what was too much";
        /// Connections to begin with, when nothing is known.
        start: whole from 1 to 10_000, default 10, "connections to begin with, when nothing is known";
        /// Idle connections to keep ready.
        min_idle: whole from 0 to 1000, default 1, "idle connections to keep ready";
    }
}

#[cfg(test)]
mod tests {
    use super::Settings;

    #[test]
    fn the_schema_says_what_is_read() {
        policy_rig::schema::agrees::<Settings>("{}");
    }
}
