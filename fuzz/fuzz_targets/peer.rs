//! Any bytes as what one node says to another.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| naust_wire::fuzzing::peer(bytes));
