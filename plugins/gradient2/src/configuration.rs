//! What an operator may set.

policy_settings::settings! {
    /// Configuration of the policy.
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct Settings {
        /// How many times their long average round trips may take before it shrinks.
        tolerance: number from 1 to 10, default 1.5, "how many times their long average round trips may take";
        /// Statements that may queue in the database: what it grows by, before smoothing.
        queue: number from 0.1 to 100, default 4, "statements that may queue in the database: what it grows by";
        /// Share of a new limit that is taken over each time.
        smoothing: number from 0.01 to 1, default 0.2, "share of a new limit that is taken over";
        /// Measurements that the long average goes over.
        long_windows: whole from 10 to 100_000, default 600, "measurements that the long average goes over";
        /// Weight of rising round trips in the long average while the pool is in use; 1: as Netflix has it.
        loaded_weight: number from 0 to 1, default 0.01,
            "weight of rising round trips under load in the long average; 1: Netflix's rule";
        /// Round trips that a measurement needs.
        min_samples: whole from 1 to 100_000, default 10, "round trips that a measurement needs";
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
