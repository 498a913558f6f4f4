//! Pools over reloads.
