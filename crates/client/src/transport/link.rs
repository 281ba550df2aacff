//! The seam between a client and whatever moves its bytes. No runtime is needed on the far side.
//!
//! ```text
//! futures of the program                       a worker of the embedded node, or a socket
//! ----------------------                       ------------------------------------------
//! encode into one buffer ─► Notify::notify ──► Link::take     whole packets, swapped out
//!                         (empty → non-empty)
//! woken, read their reply ◄─ slots, wakers ◄── Link::deliver  whole reply packets
//! deadlines, pauses       ◄─────────────────── Link::tick     about every 20 to 100 ms
//! ```
//! A link's life: [`Link::up`] (the client greets first: its `Hello` is in the buffer), then any of
//! `take`, `deliver` and `tick`, from any thread, then [`Link::down`]; after that it may come up
//! again. While it is down nothing is sent, and requests wait until their deadlines, so a link that
//! never ticks never times out.
//!
//! An embedding shell needs this much:
//!
//! ```text
//! let (client, link) = Client::over(Arc::new(worker_waker), Options::default());
//! link.up();
//! each turn:          if link.take(&mut bytes) { handle(Event::Packets { from, bytes: &bytes }) }
//! Effect::Send:       link.deliver(bytes)
//! each tick:          link.tick(now_ms)
//! at the end:         link.down("the node was closed");  link.close();
//! if link.is_gone():  the program dropped every Client; the connection can be forgotten
//! ```

use crate::shared::Shared;
use bytes::Bytes;
use naust_wire::packet;
use std::sync::Arc;

/// Wakes the far side: there is something to [`Link::take`], or [`Link::is_gone`] has become true.
///
/// It is called on the threads of the program, once when the buffer turns from empty to non-empty
/// and not again before the far side has taken. It must not block and not call back into the
/// client.
pub trait Notify: Send + Sync + 'static {
    /// Wakes the far side.
    fn notify(&self);
}

impl<F: Fn() + Send + Sync + 'static> Notify for F {
    fn notify(&self) {
        self();
    }
}

/// The far end of one client: takes its packets, delivers its replies. Cheap to clone; every method
/// takes one short lock.
#[derive(Clone)]
pub struct Link {
    pub(crate) shared: Arc<Shared>,
}

impl Link {
    /// The connection stands. The first packet that comes out is the client's `Hello`; then
    /// requests that waited, or whose replies were lost with the last connection and may be sent
    /// again.
    pub fn up(&self) {
        self.shared.up();
    }

    /// Replaces the contents of `bytes` with everything that is to be sent: whole packets, in their
    /// order. The capacity of `bytes` becomes the next buffer. Says whether there was anything; if
    /// not, `bytes` is empty.
    #[must_use = "what was taken must be sent, or the link told that it is down"]
    pub fn take(&self, bytes: &mut Vec<u8>) -> bool {
        self.shared.take(bytes)
    }

    /// Hands over whole reply packets and wakes the futures that wait for them. What nobody waits
    /// for is dropped. Replies are decoded by the futures, on their own threads.
    ///
    /// # Errors
    /// [`packet::Bad`] when `bytes` are not whole reply packets: the replies before the bad place
    /// were delivered; the connection is of no more use.
    pub fn deliver(&self, bytes: impl Into<Bytes>) -> Result<(), packet::Bad> {
        self.shared.deliver(&bytes.into())
    }

    /// Time passed: `now_ms` is any clock in milliseconds that never goes back. Ends what is past
    /// its deadline and sends again what paused. Idle ticks cost one uncontended lock.
    pub fn tick(&self, now_ms: u64) {
        self.shared.tick(now_ms);
    }

    /// Whether anything waits, so that ticks matter. A link that is not busy need not tick.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.shared.is_busy()
    }

    /// Whether the server has answered the greeting of the last connection kindly. A link whose
    /// server does not should pause before it comes up again.
    #[must_use]
    pub fn is_welcome(&self) -> bool {
        self.shared.is_welcome()
    }

    /// The connection is lost: what was not sent is kept; what was sent and may be repeated is sent
    /// again when the link is [up](Link::up); the rest ends with `Interrupted`. `why` is for
    /// people.
    pub fn down(&self, why: &str) {
        self.shared.down(why);
    }

    /// There will be no connection any more: everything under way ends now, and so does every later
    /// request.
    pub fn close(&self) {
        self.shared.close();
    }

    /// Whether the program has dropped every handle of the client.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.shared.is_gone()
    }

    /// The address of another node that the server named as the better one to talk to, once.
    #[must_use]
    pub fn take_hint(&self) -> Option<String> {
        self.shared.take_hint()
    }
}
