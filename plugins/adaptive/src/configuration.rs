//! What an operator may set.

policy_settings::settings! {
    /// Configuration of the policy.
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct Settings {
        /// Milliseconds that a connection is trusted at least after it showed that it lives, and at first.
        least_ms: whole from 1 to 1000, default 250,
            "milliseconds that a connection is trusted at least after it showed that it lives, and at first";
        /// Milliseconds that it is trusted at most.
        most_ms: whole from 1000 to 600_000, default 10_000, "milliseconds that it is trusted at most";
        /// Share by which an answered ping lengthens the window.
        growth: number from 0 to 1, default 0.25, "share by which an answered ping lengthens the window";
        /// How often a broken connection counts against a good one.
        caution: whole from 1 to 10_000, default 50, "how often a broken connection counts against a good one";
        /// Broken connections in ten seconds at which the idle ones are closed, if more were broken than good.
        suspicion: whole from 1 to 1000, default 3,
            "broken connections in ten seconds at which the idle ones are closed, if more were broken than good";
        /// Longest ping, in milliseconds; 0: the pool's own setting.
        timeout_ms: whole from 0 to 65_535, default 0, "longest ping; 0: the pool's own setting";
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
