//! One fuzzer for all functions of `sluicegate::fuzz`: which one, says the variable `FUZZ`.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use sluicegate::fuzz;

/// The function that is fuzzed, by the name of its corpus.
static TARGET: LazyLock<fuzz::Check> = LazyLock::new(|| {
    let name = std::env::var("FUZZ").unwrap_or_default();
    let known = fuzz::TARGETS.iter().find(|(known, _)| *known == name);
    known.unwrap_or_else(|| panic!("FUZZ is none of {:?}", fuzz::TARGETS.map(|(known, _)| known))).1
});

fuzz_target!(|bytes: &[u8]| TARGET(bytes));
