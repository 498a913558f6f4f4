//! What an operator may set.

policy_settings::settings! {
    /// Configuration of the policy.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Settings {
        /// Milliseconds that a connection is trusted after it showed that it lives; 0: not at all.
        window_ms: whole from 0 to 600_000, default 500,
            "milliseconds that a connection is trusted after it showed that it lives";
        /// Longest ping, in milliseconds; 0: the pool's own setting.
        timeout_ms: whole from 0 to 65_535, default 0, "longest ping; 0: the pool's own setting";
        /// Broken connections in ten seconds at which nothing is trusted any more.
        suspicion: whole from 1 to 1000, default 3,
            "broken connections in ten seconds at which nothing is trusted any more";
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
