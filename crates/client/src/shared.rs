//! One client's state behind its lock, shared by handles, futures and the link.

use bytes::Bytes;
use naust_wire::packet;

/// See the module.
pub(crate) struct Shared {}

impl Shared {
    pub(crate) fn up(&self) {}

    pub(crate) fn take(&self, bytes: &mut Vec<u8>) -> bool {
        bytes.clear();
        false
    }

    pub(crate) fn deliver(&self, _bytes: &Bytes) -> Result<(), packet::Bad> {
        Ok(())
    }

    pub(crate) fn tick(&self, _now_ms: u64) {}

    pub(crate) fn is_busy(&self) -> bool {
        false
    }

    pub(crate) fn down(&self, _why: &str) {}

    pub(crate) fn close(&self) {}

    pub(crate) fn is_gone(&self) -> bool {
        false
    }

    pub(crate) fn take_hint(&self) -> Option<String> {
        None
    }
}
