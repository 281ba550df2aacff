//! Files of a log that were tampered with at will.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| naust_log::fuzzing::recovery(bytes));
