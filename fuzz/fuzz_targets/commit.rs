//! Any bytes as the body of a commit.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| naust_wire::fuzzing::commit(bytes));
