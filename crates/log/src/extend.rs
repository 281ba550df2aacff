//! The job of a background thread: zero-filled space ahead of the log's end.
//!
//! On common file systems the sync of a write into space that was zero-filled before changes no
//! metadata and takes two thirds of the time. `fallocate` alone does not do it.

use crate::Fault;
use crate::layout::Layout;
use crate::shared::Shared;
use crate::write::{Failure, full_or, zero};
use naust_wire::Offset;
use naust_wire::planted::{self, Bug};
use std::sync::Arc;

/// Bytes between two syncs: a write of the same file that syncs meanwhile waits for no more of
/// them.
const SLICE_BYTES: u64 = 256 * 1024;

/// Zero-fills the space behind the end of the log. Not urgent. To be run once; what comes out goes
/// to [`Log::extended`](crate::Log::extended).
#[must_use = "an extension must be run and its outcome be told to the log"]
pub struct Extend {
    pub(crate) shared: Arc<Shared>,
    pub(crate) from: Offset,
    pub(crate) to: Offset,
}

/// What an [`Extend`] came to.
#[must_use = "the log must be told"]
#[derive(Debug)]
pub struct Extended {
    pub(crate) to: Offset,
    pub(crate) outcome: Result<(), Failure>,
}

impl Extended {
    /// There was no space. The log goes on until what was filled before is used up.
    #[must_use]
    pub fn disk_full(&self) -> bool {
        matches!(self.outcome, Err(Failure::Full))
    }
}

impl Extend {
    /// Bytes that it zero-fills.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.to.0 - self.from.0
    }

    /// Does it. Blocking.
    pub fn run(self) -> Extended {
        let mut to = self.from;
        let outcome = self.attempt(&mut to);
        Extended { to, outcome }
    }

    fn attempt(&self, to: &mut Offset) -> Result<(), Failure> {
        let base = self.shared.layout.base(self.from);
        let name = Layout::name(base);
        let (file, unnamed) = self.shared.file_to_write(base).map_err(full_or)?;
        while *to < self.to {
            let next = Offset((to.0 + SLICE_BYTES).min(self.to.0));
            let zeroed = zero(&*file, to.0 - base.0, next.0 - base.0);
            zeroed.map_err(Fault::at("extend", &name)).map_err(full_or)?;
            // Frames of a write may be in the same file: no sync of it is ever tried again.
            file.sync().map_err(Fault::at("sync", &name))?;
            *to = next;
        }
        if unnamed && !planted::has(Bug::ForgetNames) {
            self.shared.sync_name(base)?;
        }
        Ok(())
    }
}
