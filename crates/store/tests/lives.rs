//! Whole lives of a machine on tables on disk, against the plain model that the machine's own tests
//! use: every answer, every read in the past, crashes between flushes, compaction, replay.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
#[path = "../../machine/tests/support/mod.rs"]
mod support;

use common::directory;
use naust_machine::contract::Fixture;
use naust_store::{LsmTables, StoreOptions};

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

fn fresh() -> InDirectory {
    InDirectory { directory: directory(), options: common::options() }
}

#[test]
fn short_lives_agree_with_the_model() {
    support::life::lives(0..60, 500, fresh);
}

#[test]
fn long_lives_agree_with_the_model() {
    support::life::lives(1000..1014, 5000, fresh);
}
