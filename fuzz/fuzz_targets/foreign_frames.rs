//! Any changes of frames that another replica sends.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| naust_log::fuzzing::foreign_frames(bytes));
