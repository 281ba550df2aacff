//! Any bytes as each of the other messages.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| naust_wire::fuzzing::messages(bytes));
