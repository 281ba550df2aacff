//! The client: speaks wire, keeps sessions, sends again what may be sent again.

mod shared;
pub mod transport;

pub use transport::{Link, Notify};
