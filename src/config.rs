//! The configuration.
pub mod model;
pub mod value;
