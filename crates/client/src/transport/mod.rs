//! How packets leave a client and replies come in.
//!
//! * [`link`]: the seam: the far end of a client, for whoever moves its bytes: the embedding shell,
//!   a test, a simulator;
//! * `tcp`: the two tasks that move them over a socket.

pub mod link;
pub(crate) mod tcp;

pub use link::{Link, Notify};
