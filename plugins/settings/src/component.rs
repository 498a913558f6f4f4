//! What every component does with its settings, whichever hooks it has.

use std::cell::Cell;
use std::thread::LocalKey;

use crate::Configuration;

/// Writes into a component's crate what can only be written there: the allocator, the place for its settings, and the interface
/// `lifecycle`. `SETTINGS` and `Component` are what the hook's own macro goes on with.
///
/// `$hook` is the trait that `$policy` implements, with its `Settings` (a [`Configuration`]) and `self_check`; `$face` names the
/// module with the hook's bindings. Name and version are the crate's.
#[macro_export]
macro_rules! lifecycle {
    (<$policy:ty as $hook:path>, $face:ident, $carry_version:expr) => {
        /// Small, and an instance has one thread.
        #[global_allocator]
        static ALLOCATOR: $crate::talc::wasm::WasmDynamicTalc = $crate::talc::wasm::new_wasm_dynamic_allocator();

        thread_local! {
            /// What `configure` read. It runs once in each instance, before anything else.
            static SETTINGS: std::cell::Cell<<$policy as $hook>::Settings> =
                const { std::cell::Cell::new(<<$policy as $hook>::Settings as $crate::Configuration>::DEFAULT) };
        }

        struct Component;

        impl $face::Lifecycle for Component {
            fn describe() -> $face::Description {
                $face::Description {
                    name: env!("CARGO_PKG_NAME").into(),
                    version: env!("CARGO_PKG_VERSION").into(),
                    config_schema: <<$policy as $hook>::Settings as $crate::Configuration>::SCHEMA.into(),
                    carry_version: $carry_version,
                }
            }

            fn configure(config: String) -> Result<(), String> {
                $crate::configure(&SETTINGS, &config)
            }

            fn self_check() -> Result<(), String> {
                <$policy as $hook>::self_check()
            }
        }
    };
}

/// Reads the configuration's JSON text into its place. What stood there stays when it is refused.
///
/// # Errors
///
/// What is wrong with it, in words for the operator.
pub fn configure<S: Configuration>(place: &'static LocalKey<Cell<S>>, json: &str) -> Result<(), String> {
    let settings = S::parse(json)?;
    place.try_with(|cell| cell.set(settings)).map_err(|_| String::from("no place for the settings"))
}

/// What was put into the place; the defaults before. Without `LocalKey::get`, whose panic would bring the printing of panics along.
pub fn current<S: Configuration>(place: &'static LocalKey<Cell<S>>) -> S {
    place.try_with(Cell::get).unwrap_or(S::DEFAULT)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::{configure, current};

    crate::settings! {
        /// A key.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        struct Settings {
            /// A number.
            step: whole from 1 to 10, default 5, "a number";
        }
    }

    thread_local! {
        static SETTINGS: Cell<Settings> = const { Cell::new(Settings::DEFAULT) };
    }

    #[test]
    fn what_was_configured_is_current_and_what_is_refused_changes_nothing() {
        assert_eq!(current(&SETTINGS), Settings { step: 5 });
        assert_eq!(configure(&SETTINGS, r#"{"step":7}"#), Ok(()));
        assert_eq!(current(&SETTINGS), Settings { step: 7 });
        let refusal = configure(&SETTINGS, r#"{"step":11}"#);
        assert_eq!(refusal, Err("`step` must be a whole number from 1 to 10".to_owned()));
        assert_eq!(current(&SETTINGS), Settings { step: 7 });
    }
}
