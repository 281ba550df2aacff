//! Lies told on purpose, to see that they are found out: who guards the guards.
//!
//! None of them is drawn by a seed; only tests and `--lie` ask for them.

use crate::generator::Generator;
use naust_wire::reply::Reply;

/// A lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// Disks say that they synced, and did not.
    ForgetSync,
    /// A reply is sent twice.
    RepeatReply,
    /// A reply is never sent.
    DropReply,
    /// A bit of an acknowledged frame rots, although the life keeps within the promises.
    RotQuietly,
    /// A row is told with another value.
    GarbleRow,
    /// A read is answered as of an earlier moment.
    StaleRow,
    /// A commit that was refused is told as committed.
    ClaimCommit,
    /// An acknowledged commit is told to be at another place.
    MisplaceCommit,
    /// A record of a stream is left out.
    SkipRecord,
    /// A bit of raw log is told wrongly.
    GarbleLog,
    /// A linearizable read is answered by whatever replica is asked, as it is.
    WeakenRead,
}

impl Sabotage {
    /// All of them.
    pub const ALL: [Sabotage; 11] = [
        Sabotage::ForgetSync,
        Sabotage::RepeatReply,
        Sabotage::DropReply,
        Sabotage::RotQuietly,
        Sabotage::GarbleRow,
        Sabotage::StaleRow,
        Sabotage::ClaimCommit,
        Sabotage::MisplaceCommit,
        Sabotage::SkipRecord,
        Sabotage::GarbleLog,
        Sabotage::WeakenRead,
    ];

    /// The lie of this name, as `Debug` tells it.
    ///
    /// # Errors
    /// A sentence: there is none.
    pub fn named(name: &str) -> Result<Sabotage, String> {
        let found = Sabotage::ALL.into_iter().find(|lie| format!("{lie:?}") == name);
        found.ok_or_else(|| format!("{name:?} is none of {:?}", Sabotage::ALL))
    }

    /// Nodes of the lives in which it can be told at all.
    #[must_use]
    pub fn nodes(self) -> usize {
        if self == Sabotage::WeakenRead { 3 } else { 1 }
    }

    /// Whether it strikes now.
    pub(crate) fn strikes(self, chance: &mut Generator) -> bool {
        chance.below(20) == 0
    }

    /// Changes a reply on its way to a client.
    pub(crate) fn bend(self, reply: &mut Reply) {
        match (self, reply) {
            (Sabotage::GarbleRow, Reply::Row { row: Some((_, value)), .. }) => value.push(0),
            (Sabotage::GarbleRow, Reply::Rows { entries, .. }) => {
                entries.iter_mut().take(1).for_each(|entry| entry.value.push(0));
            }
            (Sabotage::StaleRow, Reply::Row { at, .. } | Reply::Rows { at, .. }) => at.0 -= 1 << 20,
            (Sabotage::ClaimCommit, reply @ Reply::Refused(_)) => {
                let Reply::Refused(refused) = *reply else { return };
                let offset = refused.at;
                let claimed = naust_wire::reply::Committed { offset, ..Default::default() };
                *reply = Reply::Committed(claimed);
            }
            (Sabotage::MisplaceCommit, Reply::Committed(committed)) => committed.offset.0 += 8,
            (Sabotage::SkipRecord, Reply::Records { records, .. }) if records.len() > 1 => {
                records.remove(0);
            }
            (Sabotage::GarbleLog, Reply::Frames { data, .. }) if data.len() > 56 => data[20] ^= 1,
            _ => {}
        }
    }
}
