//! Any bytes as a frame of a log.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| naust_wire::fuzzing::frame(bytes));
