//! Any bytes as a row of the shard tree.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| naust_machine::fuzzing::row(bytes));
