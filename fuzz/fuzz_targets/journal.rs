//! Any changes of a journal that a power cut left.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| naust_log::fuzzing::journal(bytes));
