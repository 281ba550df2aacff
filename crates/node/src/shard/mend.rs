//! The damaged places of an open replica: only what is committed is mended, which nobody cuts.

use super::Shard;
use crate::mending::Help;
use crate::peers::Peers;
use crate::repair::Supply;
use crate::{Effect, Now};
use naust_log::{MendError, Mended, Trimmed};
use naust_wire::{NodeId, Offset};

impl Shard {
    /// Goes on with what is damaged here.
    pub(super) fn drive_mending(&mut self, now: Now, peers: &mut Peers, effects: &mut Vec<Effect>) {
        if self.mending.is_idle() {
            return;
        }
        let (reader, others) = (self.log.reader(), self.others());
        let help = Help { shard: self.id, reader: &reader, limit: self.handed.1, others: &others };
        self.mending.drive(&help, now, peers, effects);
    }

    /// Another replica sent frames for a damaged place.
    pub(crate) fn found(
        &mut self,
        from: NodeId,
        (at, committed): (Offset, bool),
        frames: &[u8],
        effects: &mut Vec<Effect>,
    ) {
        let (reader, others) = (self.log.reader(), self.others());
        let help = Help { shard: self.id, reader: &reader, limit: self.handed.1, others: &others };
        self.mending.found(&help, from, (at, committed), frames, effects);
    }

    /// Frames were written over a damaged place, or not.
    pub(crate) fn mended(
        &mut self,
        at: Offset,
        outcome: Result<Mended, MendError>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        if outcome.is_ok() {
            self.trimming.try_again();
        }
        self.mending.mended(self.id, at, outcome, now, effects);
    }

    /// What a trim has found, or made whole.
    pub(crate) fn look_at_trimmed(&mut self, trimmed: &Trimmed, effects: &mut Vec<Effect>) {
        if let Some(damage) = trimmed.damage() {
            self.mending.note(self.id, damage, effects);
        }
        if let Some(segment) = trimmed.segment() {
            self.mending.let_go(&segment);
        }
    }

    /// What another replica asks for: as far as it is committed here, if any of it is.
    pub(crate) fn supply(&self, to: NodeId, from: Offset, end: Offset) -> Supply {
        let committed = from < self.handed.1;
        let end = if committed { end.min(self.handed.1) } else { end };
        Supply { reader: self.log.reader(), to, from, end, committed }
    }
}
