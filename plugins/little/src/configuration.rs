//! What an operator may set.

policy_settings::settings! {
    /// Configuration of the policy.
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct Settings {
        /// Connections beyond the mean in use, in square roots of it.
        margin: number from 0 to 10, default 1.5, "connections beyond the mean in use, in square roots of it";
        /// Over how many milliseconds the load is smoothed while nobody waits long; 0: not at all.
        smoothing_ms: whole from 0 to 600_000, default 5000,
            "time over which the load is smoothed while nobody waits long";
        /// How many milliseconds less must be needed before it shrinks.
        calm_ms: whole from 0 to 3_600_000, default 30_000, "how long less must be needed before it shrinks";
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
