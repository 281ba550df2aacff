//! Which versions of a row may end.
//!
//! Of each key, everything above the history floor stays, and so does the newest version at or
//! below it, for reads at the floor. Older ones go. That newest version goes too when it is a
//! deletion and nothing older lies beneath it, or when it lies below the tree's retention floor,
//! where reads see nothing anyway.

use crate::row::Row;
use lsm_tree::Slice;
use naust_wire::planted::{self, Bug};

/// The floors at the beginning of a flush or merge.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Floors {
    /// Reads happen at or above this offset.
    pub history: u64,
    /// Rows below this offset count as absent.
    pub retention: u64,
}

/// Decides, version by version in order, what a merge keeps.
pub(crate) struct History {
    floors: Floors,
    last: Option<(Slice, u64)>,
    newest_below_seen: bool,
}

impl History {
    /// Keeps what these floors need.
    pub fn new(floors: Floors) -> History {
        History { floors, last: None, newest_below_seen: false }
    }

    /// Whether this version stays; `older_exists` tells whether the key may have versions beneath
    /// the merge.
    pub fn keeps(&mut self, row: &Row, older_exists: impl FnOnce(&[u8]) -> bool) -> bool {
        let repeated = match &mut self.last {
            Some((key, offset)) if *key == row.key.key => {
                let repeated = *offset == row.key.offset;
                *offset = row.key.offset;
                repeated
            }
            last => {
                *last = Some((row.key.key.clone(), row.key.offset));
                self.newest_below_seen = false;
                false
            }
        };
        if repeated || row.key.offset < self.floors.retention {
            return false;
        }
        if row.key.offset > self.floors.history && !planted::has(Bug::DropWindow) {
            return true;
        }
        let hidden = std::mem::replace(&mut self.newest_below_seen, true);
        !hidden && (!row.key.deleted || older_exists(&row.key.key))
    }
}

#[cfg(test)]
mod tests {
    use super::{Floors, History};
    use crate::row::{Row, RowKey};
    use lsm_tree::Slice;

    /// Versions as `key offset` or `key offset!` for a deletion; what stays, in the same way.
    fn kept(history: u64, retention: u64, older: &str, rows: &str) -> String {
        let mut decide = History::new(Floors { history, retention });
        let stays = |row: &&str| {
            let (key, offset) = row.split_at(1);
            let deleted = offset.ends_with('!');
            let offset = offset.trim_end_matches('!').parse().unwrap();
            let key = RowKey { key: Slice::from(key), offset, deleted };
            let exists = |key: &[u8]| older.as_bytes().contains(&key[0]);
            decide.keeps(&Row { key, value: Slice::empty() }, exists)
        };
        rows.split(' ').filter(stays).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn versions_end_below_the_floors_and_not_above() {
        // Reads at 5 and later: the newest at or below 5 stays, older ones go.
        assert_eq!(kept(5, 0, "", "a9 a7 a5 a4 a1 b4 b3"), "a9 a7 a5 b4");
        // No floor yet: everything stays.
        assert_eq!(kept(0, 0, "", "a9! a7 b4! b3"), "a9! a7 b4! b3");
        // A deletion at or below the floor goes with what it hid, unless older versions lie
        // beneath.
        assert_eq!(kept(5, 0, "", "a9 a4! a1 b4! b3 c7! c6 c2"), "a9 c7! c6 c2");
        assert_eq!(kept(5, 0, "b", "a4! a1 b4! b3"), "b4!");
        // Below the retention floor nothing stays, whatever lies beneath.
        assert_eq!(kept(5, 4, "ab", "a9 a3 b3! c4"), "a9 c4");
        // The same version from two sources stays once.
        assert_eq!(kept(0, 0, "", "a9 a9 a8 a8"), "a9 a8");
    }
}
