//! The suite that every implementation of the tables passes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::directory;
use naust_machine::contract::{Fixture, all};
use naust_store::{Cache, LsmTables, StoreOptions};

struct InDirectory {
    directory: tempfile::TempDir,
    options: StoreOptions,
}

impl Fixture for InDirectory {
    type T = LsmTables;

    fn open(&mut self) -> LsmTables {
        LsmTables::open(self.directory.path(), self.options.clone()).unwrap()
    }
}

#[test]
fn the_tables_keep_the_contract() {
    let tiny = common::options();
    let usual = StoreOptions::new(Cache::new(8 << 20, 8));
    for options in [tiny, usual] {
        all(|| InDirectory { directory: directory(), options: options.clone() });
    }
}
