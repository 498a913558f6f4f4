//! What an operator may set.

policy_settings::settings! {
    /// Configuration of the policy.
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct Settings {
        // Seconds go up to what fits the host's milliseconds, about 46 days.
        /// Share of what the server granted from which it counts as nearly full.
        near: number from 0.1 to 1, default 0.8,
            "share of what the server granted from which it counts as nearly full";
        /// Seconds unused after which a connection is surplus.
        surplus_s: whole from 1 to 4_000_000, default 60, "seconds unused after which a connection is surplus";
        /// Seconds a connection may live.
        lifetime_s: whole from 1 to 4_000_000, default 1800, "seconds a connection may live";
        /// Share of its lifetime from which a connection is replaced.
        replace_at: number from 0.5 to 1, default 0.95, "share of its lifetime from which a connection is replaced";
        /// Share by which lifetimes are shortened at most, to spread them.
        spread: number from 0 to 0.5, default 0.1, "share by which lifetimes are shortened at most, to spread them";
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
