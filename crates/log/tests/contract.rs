//! The simulated disk keeps the contract of all disks.

use naust_log::sim::SimDisk;
use std::sync::Arc;

#[test]
fn the_simulated_disk_passes() {
    naust_log::contract::all(&|| Arc::new(SimDisk::new()));
}
