//! What an operator may set.

policy_settings::settings! {
    /// Configuration of the policy.
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct Settings {
        // Seconds go up to what fits the host's milliseconds, about 46 days.
        /// Seconds a connection may lie unused above the pool's minimum.
        idle_s: whole from 1 to 4_000_000, default 180,
            "seconds a connection may lie unused above the pool's minimum";
        /// Seconds a connection may live.
        lifetime_s: whole from 1 to 4_000_000, default 1800, "seconds a connection may live";
        /// Share of its lifetime from which a connection is replaced.
        replace_at: number from 0.5 to 1, default 0.95, "share of its lifetime from which a connection is replaced";
        /// Share by which lifetimes are shortened at most, to spread them.
        spread: number from 0 to 0.5, default 0.1, "share by which lifetimes are shortened at most, to spread them";
        /// Connections replaced at a time.
        replacements: whole from 1 to 256, default 3, "connections replaced at a time";
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
