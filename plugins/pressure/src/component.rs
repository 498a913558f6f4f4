//! The component's face.
#![allow(unsafe_code, reason = "`component!` writes the entry points of the component ABI")]

policy_eviction::component!(crate::Pressure);
