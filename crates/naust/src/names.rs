//! Looks up the names of other nodes' addresses: on a thread of its own, because that may take
//! many seconds, and nothing else may wait for it.

use crate::peers::Lookup;
use crate::queue::Queue;
use crate::wiring::Wiring;
use crate::worker::Input;
use naust_wire::limits::NODES_MAX;
use std::collections::VecDeque;
use std::net::ToSocketAddrs as _;

/// Names that may wait: each worker asks for each node once at a time.
pub const LOOKUPS_MAX: usize = 256 * NODES_MAX;

/// Works until the queue is closed.
pub fn run(wiring: &Wiring, queue: &Queue<(usize, Lookup)>) {
    let mut lookups = VecDeque::new();
    while queue.wait(None, &mut lookups) {
        for (worker, lookup) in lookups.drain(..) {
            if wiring.life.is_ending() {
                return;
            }
            let found = lookup.address.to_socket_addrs().map(Iterator::collect);
            wiring.tell(worker, Input::Resolved { lookup, found });
        }
    }
}
