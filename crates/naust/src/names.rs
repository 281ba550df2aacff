//! Looks up the names of other nodes' addresses: on a thread of its own, because that may take
//! many seconds, and nothing else may wait for it, the node's end least of all. So the thread holds
//! nothing of the node while it looks.

use crate::peers::Lookup;
use crate::queue::Queue;
use crate::wiring::Wiring;
use crate::worker::Input;
use naust_wire::limits::NODES_MAX;
use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Weak;

/// Names that may wait: each worker asks for each node once at a time.
pub const LOOKUPS_MAX: usize = 256 * NODES_MAX;

/// Works until the queue is closed; `find` asks the system, as [`find`] does.
pub fn run(
    wiring: &Weak<Wiring>,
    queue: &Queue<(usize, Lookup)>,
    find: impl Fn(&str) -> io::Result<Vec<SocketAddr>>,
) {
    let serving = || wiring.upgrade().filter(|wiring| !wiring.life.is_ending());
    let mut lookups = VecDeque::new();
    while queue.wait(None, &mut lookups) {
        for (worker, lookup) in lookups.drain(..) {
            if serving().is_none() {
                return;
            }
            let found = find(&lookup.address);
            let Some(wiring) = serving() else { return };
            wiring.tell(worker, Input::Resolved { lookup, found });
        }
    }
}

/// The addresses of `HOST:PORT`. Takes as long as it takes.
///
/// # Errors
/// Of the system.
pub fn find(address: &str) -> io::Result<Vec<SocketAddr>> {
    address.to_socket_addrs().map(Iterator::collect)
}
