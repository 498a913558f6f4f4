//! The component's face: what the host asks becomes [`Signals`], what the policy answers goes back packed.
//!
//! [`component!`](crate::component!) writes into a policy's crate what can only be written there: the place for its settings
//! and the entry points. Everything else is here, once.
#![allow(unsafe_code, reason = "generated: the entry points of the component ABI")]

use std::cell::Cell;
use std::thread::LocalKey;

use policy_settings::current;

use crate::{Policy, Signals};

pub use bindings::exports::sluicegate::policy::lifecycle::{Description, Guest as Lifecycle};
pub use bindings::exports::sluicegate::policy::validation::Guest as Validation;
#[doc(hidden)]
pub use policy_settings::lifecycle;

#[doc(hidden)]
pub mod bindings {
    #![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, reason = "generated from wit/")]

    wit_bindgen::generate!({
        path: "../../wit",
        world: "validation-policy",
        pub_export_macro: true,
        export_macro_name: "export_validation_policy",
        default_bindings_module: "policy_validation::component::bindings",
    });
}

/// Makes a component of a [`Policy`]. Its name and version are the crate's.
#[macro_export]
macro_rules! component {
    ($policy:ty) => {
        use $crate::component as face;

        $crate::component::lifecycle!(<$policy as $crate::Policy>, face, 0);

        impl face::Validation for Component {
            fn check(
                trigger: u32,
                age_ms: u32,
                idle_ms: u32,
                uses: u32,
                errors: u32,
                since_validated_ms: u32,
                last_valid_for_ms: u32,
                recent_bad: u32,
                recent_good: u32,
                transaction: u32,
                _dirty: u32,
                peek: u32,
                last_error: u32,
                deadline_left_ms: u32,
                failed_probes: u32,
                epochs_behind: u32,
            ) -> f64 {
                let signals = $crate::Signals {
                    trigger,
                    age_ms,
                    idle_ms,
                    uses,
                    errors,
                    since_validated_ms,
                    last_valid_for_ms,
                    recent_bad,
                    recent_good,
                    transaction,
                    peek,
                    last_error,
                    deadline_left_ms,
                    failed_probes,
                    epochs_behind,
                };
                face::check::<$policy>(&SETTINGS, &signals)
            }
        }

        $crate::component::bindings::export_validation_policy!(Component with_types_in $crate::component::bindings);
    };
}

#[doc(hidden)]
pub fn check<P: Policy>(settings: &'static LocalKey<Cell<P::Settings>>, signals: &Signals) -> f64 {
    P::check(&current(settings), signals).pack()
}
