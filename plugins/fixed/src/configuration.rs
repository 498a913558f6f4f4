//! What an operator may set.

policy_settings::settings! {
    /// Configuration of the policy.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Settings {
        /// Connections to aim at; 0: the pool's maximum.
        target: whole from 0 to 100_000, default 0, "connections to aim at; 0: the pool's maximum";
        /// Idle connections to keep ready, within the target.
        min_idle: whole from 0 to 100_000, default 0, "idle connections to keep ready";
        /// Connections above the target for callers who have waited long.
        reserve: whole from 0 to 100_000, default 0, "connections above the target for callers who have waited long";
        /// How long the first in the queue waits before the reserve is opened, in milliseconds.
        reserve_after_ms: whole from 0 to 600_000, default 5000,
            "how long the first in the queue waits before the reserve is opened";
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
