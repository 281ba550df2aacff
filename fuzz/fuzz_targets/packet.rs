//! Any bytes as a connection's packets.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| naust_wire::fuzzing::packet(bytes));
