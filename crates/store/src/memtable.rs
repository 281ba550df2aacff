//! Rows in memory, until a flush has written them.
//!
//! One thread inserts, any thread reads beside it. The engine has a memtable of its own, but only
//! behind a lock that it holds while it syncs its manifest; this one is never behind a lock.
//!
//! ```text
//!  level 1  ●───────────────────────►┌ low ┬────────────────────────►
//!  level 0  ●──►┌ low ┬──►┌ low ┬──►├─────┤──►┌ low ┬──►
//!               │leaf │   │leaf │   │leaf │   │leaf │
//! ```
//! A skip list of leaves. A leaf holds up to [`LEAF_ROWS`] rows from its `low` on, up to the `low`
//! of the next, in the order in which they came: an insert finds the leaf and adds to its end, and
//! only who reads in order has to sort. So few steps of a search leave the processor's cache, where
//! a list of single rows would leave it at nearly every one.
//!
//! A full leaf is replaced by two that have half of its rows each. Nothing of it changes any more;
//! who is on it goes on to what followed it then. So a reader meets every row that was inserted
//! before it began, and each once.

use crate::arena::Arena;
use crate::row::{Row, RowKey};
use lsm_tree::Slice;
use std::array::from_fn;
use std::cmp::Ordering as Order;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// What a row costs in memory beside its key and value, about: itself, its place in a leaf, and its
/// share of leaves that were replaced.
const ROW_OVERHEAD_BYTES: u64 = 112;
/// Rows of a leaf. More make fewer leaves to search, and more to look through in one.
const LEAF_ROWS: usize = 128;
/// Levels of the list: each has a quarter of the leaves of the one below.
const LEVELS: usize = 9;
/// No leaf, or no row.
const NONE: u32 = u32::MAX;

/// Rows in memory.
pub(crate) struct Memtable {
    rows: Arena<OnceLock<Entry>, 3>,
    heads: Arena<Head, 0>,
    leaves: Arena<Leaf, 0>,
    /// The first leaf of each level.
    first: [AtomicU32; LEVELS],
    rows_made: AtomicU32,
    leaves_made: AtomicU32,
    /// Changed by the thread that inserts and no other, as the two before: a plain store is enough,
    /// and much cheaper than an addition that others could meet.
    bytes: AtomicU64,
}

/// A row version.
struct Entry {
    key: Slice,
    value: Slice,
    /// The commit's offset, shifted left by one; the lowest bit: deleted.
    version: u64,
}

impl Entry {
    fn offset(&self) -> u64 {
        self.version >> 1
    }

    fn row(&self) -> Row {
        let deleted = self.version & 1 == 1;
        let key = RowKey { key: self.key.clone(), offset: self.offset(), deleted };
        Row { key, value: self.value.clone() }
    }

    /// Its place beside the version of `key` at `offset`: newer versions come first.
    fn cmp(&self, key: &[u8], offset: u64) -> Order {
        (*self.key).cmp(key).then_with(|| offset.cmp(&self.offset()))
    }
}

/// Where a leaf begins, and what follows it: all that a search looks at, in one line of the cache.
/// All but `length` and `next` stays as it was made.
#[repr(align(64))]
struct Head {
    /// The first sixteen bytes of the key of `low`: most of a search looks at nothing else.
    low_start: [AtomicU64; 2],
    /// The row where it begins, none for the very first leaf.
    low: AtomicU32,
    /// Bytes that all keys of it begin with, shifted left by eight; levels that it is on.
    shape: AtomicU32,
    length: AtomicU32,
    next: [AtomicU32; LEVELS],
}

/// The rows of a leaf, in the order in which they came.
struct Leaf {
    /// Of each row, the eight bytes of its key behind those that all have in common.
    starts: [AtomicU64; LEAF_ROWS],
    rows: [AtomicU32; LEAF_ROWS],
}

impl Default for Head {
    fn default() -> Head {
        Head {
            low_start: Default::default(),
            low: AtomicU32::new(NONE),
            shape: AtomicU32::default(),
            length: AtomicU32::default(),
            next: from_fn(|_| AtomicU32::new(NONE)),
        }
    }
}

impl Default for Leaf {
    fn default() -> Leaf {
        let starts = from_fn(|_| AtomicU64::default());
        Leaf { starts, rows: from_fn(|_| AtomicU32::default()) }
    }
}

impl Head {
    fn skip(&self) -> usize {
        self.shape.load(Ordering::Relaxed) as usize >> 8
    }

    fn levels(&self) -> usize {
        self.shape.load(Ordering::Relaxed) as usize & 0xff
    }

    fn next(&self, level: usize) -> u32 {
        self.next[level].load(Ordering::Acquire)
    }
}

/// The eight bytes of a key from `skip` on, so that they compare as the bytes do; zeros behind its
/// end.
fn start(key: &[u8], skip: usize) -> u64 {
    let rest = key.get(skip..).unwrap_or_default();
    if let Some(bytes) = rest.first_chunk() {
        return u64::from_be_bytes(*bytes);
    }
    let mut bytes = [0; 8];
    bytes[..rest.len()].copy_from_slice(rest);
    u64::from_be_bytes(bytes)
}

/// Where a search goes: to the leaf of this version of a key.
struct Wanted<'k> {
    key: &'k [u8],
    offset: u64,
    start: [u64; 2],
}

impl<'k> Wanted<'k> {
    fn new(key: &'k [u8], offset: u64) -> Wanted<'k> {
        Wanted { key, offset, start: [start(key, 0), start(key, 8)] }
    }
}

/// The last leaf of each level that begins at or before what was searched for; `NONE`: the head.
type Path = [u32; LEVELS];

impl Default for Memtable {
    fn default() -> Memtable {
        Memtable {
            rows: Arena::default(),
            heads: Arena::default(),
            leaves: Arena::default(),
            first: from_fn(|_| AtomicU32::new(NONE)),
            rows_made: AtomicU32::new(0),
            leaves_made: AtomicU32::new(0),
            bytes: AtomicU64::new(0),
        }
    }
}

impl Memtable {
    /// Adds a row version; `None`: a deletion. One that is there already is replaced. One thread
    /// does this.
    pub fn insert(&self, key: &[u8], offset: u64, value: Option<&[u8]>) {
        let entry = Entry {
            key: Slice::from(key),
            value: value.map_or_else(Slice::empty, Slice::from),
            version: offset << 1 | u64::from(value.is_none()),
        };
        let row = self.rows_made.load(Ordering::Relaxed);
        self.rows_made.store(row + 1, Ordering::Relaxed);
        let made = self.rows.make(row).set(entry).is_ok();
        assert!(made, "two threads insert into a memtable");
        let path = self.search(&Wanted::new(key, offset));
        match path[0] {
            NONE => self.begin(row),
            leaf => {
                let head = self.head(leaf);
                if head.length.load(Ordering::Relaxed) < LEAF_ROWS as u32 {
                    self.push(leaf, start(key, head.skip()), row);
                } else {
                    self.divide(leaf, row, &path);
                }
            }
        }
        let bytes = (key.len() + value.map_or(0, <[u8]>::len)) as u64 + ROW_OVERHEAD_BYTES;
        self.bytes.store(self.bytes.load(Ordering::Relaxed) + bytes, Ordering::Relaxed);
    }

    /// Bytes of memory, about.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Row versions that were inserted: one that took the place of another counts, too.
    pub fn len(&self) -> u64 {
        u64::from(self.rows_made.load(Ordering::Relaxed))
    }

    /// Holds no row.
    pub fn is_empty(&self) -> bool {
        self.bytes() == 0
    }

    /// The newest version of a key at or below `offset`.
    pub fn get(&self, key: &[u8], offset: u64) -> Option<Row> {
        let mut place = self.search(&Wanted::new(key, offset))[0];
        while place != NONE {
            let head = self.head(place);
            let wanted = start(key, head.skip());
            let mut best: Option<&Entry> = None;
            for (_, row) in self.rows(place).filter(|(start, _)| *start == wanted) {
                let entry = self.entry(row);
                // Of equal ones, the one that came later counts.
                let newer = best.is_none_or(|best| best.offset() <= entry.offset());
                if newer && entry.offset() <= offset && *entry.key == *key {
                    best = Some(entry);
                }
            }
            if let Some(best) = best {
                return Some(best.row());
            }
            // Older versions may lie in the next leaf, if it begins with one.
            place = head.next(0);
            let low = self.low(place)?;
            if *low.key != *key {
                return None;
            }
        }
        None
    }

    /// All versions of all rows with keys from `from` (inclusive) to `to` (exclusive), in order.
    pub fn up<'m>(&'m self, from: &[u8], to: Option<&'m [u8]>) -> Up<'m> {
        let leaf = self.search(&Wanted::new(from, u64::MAX))[0];
        let mut up = Up { memtable: self, leaf, to, rows: Vec::new(), is_whole: false };
        if leaf != NONE {
            self.sort(leaf, &mut up.rows);
            up.rows.retain(|(_, row)| *self.entry(*row).key >= *from);
            up.rows.reverse();
        }
        up
    }

    /// All rows in order, for a flush: they are far apart in memory, so many are reached for at a
    /// time.
    pub fn all(&self) -> Up<'_> {
        let mut all = self.up(b"", None);
        all.is_whole = true;
        all.reach();
        all
    }

    /// The same, against the order.
    pub fn down<'m>(&'m self, from: &'m [u8], to: Option<&[u8]>) -> Down<'m> {
        let leaf = match to {
            Some(to) => self.search(&Wanted::new(to, u64::MAX))[0],
            None => self.last(),
        };
        let mut down = Down { memtable: self, leaf, from, rows: Vec::new() };
        if leaf != NONE {
            self.sort(leaf, &mut down.rows);
            down.rows.retain(|(_, row)| to.is_none_or(|to| *self.entry(*row).key < *to));
        }
        down
    }

    fn head(&self, leaf: u32) -> &Head {
        self.heads.get(leaf)
    }

    /// The rows that a leaf has now, each with the start of its key.
    fn rows(&self, leaf: u32) -> impl Iterator<Item = (u64, u32)> + '_ {
        let length = self.head(leaf).length.load(Ordering::Acquire) as usize;
        let leaf = self.leaves.get(leaf);
        let starts = leaf.starts[..length].iter().map(|start| start.load(Ordering::Relaxed));
        starts.zip(leaf.rows[..length].iter().map(|row| row.load(Ordering::Relaxed)))
    }

    /// Adds a row to a leaf that has room.
    fn push(&self, leaf: u32, start: u64, row: u32) {
        let (head, leaf) = (self.head(leaf), self.leaves.get(leaf));
        let length = head.length.load(Ordering::Relaxed);
        leaf.starts[length as usize].store(start, Ordering::Relaxed);
        leaf.rows[length as usize].store(row, Ordering::Relaxed);
        head.length.store(length + 1, Ordering::Release);
    }

    fn entry(&self, row: u32) -> &Entry {
        self.rows.get(row).get().expect("a row is made before it is told of")
    }

    /// Where a leaf begins; none for the first, and behind the last.
    fn low(&self, leaf: u32) -> Option<&Entry> {
        if leaf == NONE { None } else { self.low_of(self.head(leaf)) }
    }

    fn low_of(&self, head: &Head) -> Option<&Entry> {
        let low = head.low.load(Ordering::Relaxed);
        (low != NONE).then(|| self.entry(low))
    }

    /// What follows a leaf on each level; of `NONE`, what comes first.
    fn links(&self, leaf: u32) -> &[AtomicU32; LEVELS] {
        if leaf == NONE { &self.first } else { &self.head(leaf).next }
    }

    fn next(&self, leaf: u32, level: usize) -> u32 {
        self.links(leaf)[level].load(Ordering::Acquire)
    }

    /// The way to the leaf where `wanted` belongs.
    fn search(&self, wanted: &Wanted<'_>) -> Path {
        self.walk(|head| {
            let low = head.low_start.each_ref().map(|start| start.load(Ordering::Relaxed));
            match low.cmp(&wanted.start) {
                Order::Less => true,
                Order::Greater => false,
                Order::Equal => {
                    let low = self.low_of(head);
                    low.is_none_or(|low| low.cmp(wanted.key, wanted.offset).is_le())
                }
            }
        })
    }

    /// The way to the leaf before `leaf`, or before the one that took its place.
    fn before(&self, leaf: u32) -> Path {
        let Some(end) = self.low(leaf) else { return [NONE; LEVELS] };
        let start = [start(&end.key, 0), start(&end.key, 8)];
        self.walk(|head| {
            let low = head.low_start.each_ref().map(|start| start.load(Ordering::Relaxed));
            match low.cmp(&start) {
                Order::Less => true,
                Order::Greater => false,
                Order::Equal => {
                    self.low_of(head).is_none_or(|low| low.cmp(&end.key, end.offset()).is_lt())
                }
            }
        })
    }

    /// The way to the last leaf that `passes` says yes to; it must say yes to the first ones and no
    /// to the rest.
    fn walk(&self, passes: impl Fn(&Head) -> bool) -> Path {
        let mut path = [NONE; LEVELS];
        let (mut at, mut beyond) = (NONE, NONE);
        let mut links = &self.first;
        for level in (0..LEVELS).rev() {
            loop {
                let next = links[level].load(Ordering::Acquire);
                // What was too far on the level above is so here.
                if next == beyond || next == NONE {
                    break;
                }
                let head = self.head(next);
                if !passes(head) {
                    beyond = next;
                    break;
                }
                (at, links) = (next, &head.next);
            }
            path[level] = at;
        }
        path
    }

    fn last(&self) -> u32 {
        let mut at = NONE;
        for level in (0..LEVELS).rev() {
            while let next = self.next(at, level)
                && next != NONE
            {
                at = next;
            }
        }
        at
    }

    /// Replaces `out` by the rows of a leaf, in order; of equal ones the last that came.
    fn sort(&self, leaf: u32, out: &mut Vec<(u64, u32)>) {
        out.clear();
        out.extend(self.rows(leaf));
        self.settle(out);
    }

    fn settle(&self, rows: &mut Vec<(u64, u32)>) {
        rows.sort_unstable_by(|one, other| {
            one.0.cmp(&other.0).then_with(|| {
                let (newer, entry) = (self.entry(other.1), self.entry(one.1));
                entry.cmp(&newer.key, newer.offset()).then_with(|| other.1.cmp(&one.1))
            })
        });
        rows.dedup_by(|later, kept| {
            later.0 == kept.0 && {
                let (one, other) = (self.entry(later.1), self.entry(kept.1));
                one.cmp(&other.key, other.offset()).is_eq()
            }
        });
    }

    /// Makes a leaf with these rows, which are in order and told by their starts behind `skip`
    /// bytes. It begins with `low` and ends where `next` begins; nobody knows it yet.
    fn make_leaf(
        &self,
        (low, next): (u32, u32),
        levels: usize,
        skip: usize,
        rows: &[(u64, u32)],
    ) -> u32 {
        let place = self.leaves_made.load(Ordering::Relaxed);
        self.leaves_made.store(place + 1, Ordering::Relaxed);
        let head = self.heads.make(place);
        self.leaves.make(place);
        if low != NONE {
            let low = self.entry(low);
            head.low_start[0].store(start(&low.key, 0), Ordering::Relaxed);
            head.low_start[1].store(start(&low.key, 8), Ordering::Relaxed);
        }
        // Starts that tell the rows apart stay: others are read from the rows, which are far away.
        let alike = rows[0].0 ^ rows[rows.len() - 1].0 <= u64::from(u32::MAX);
        let skip = if alike { self.common(low, next) } else { skip };
        head.low.store(low, Ordering::Relaxed);
        head.shape.store((skip << 8 | levels) as u32, Ordering::Relaxed);
        for (start_before, row) in rows {
            let start = if alike { start(&self.entry(*row).key, skip) } else { *start_before };
            self.push(place, start, *row);
        }
        place
    }

    /// How many bytes all keys begin with from the row `low` to the leaf `next`.
    fn common(&self, low: u32, next: u32) -> usize {
        let end = self.low(next).filter(|_| low != NONE);
        end.map_or(0, |end| {
            let pairs = self.entry(low).key.iter().zip(end.key.iter());
            pairs.take_while(|(one, other)| one == other).count()
        })
    }

    /// Levels of the next leaf: a quarter of the leaves have one more.
    fn draw_levels(&self) -> usize {
        let number = u64::from(self.leaves_made.load(Ordering::Relaxed));
        let drawn = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        let drawn = drawn.wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32;
        1 + (drawn.trailing_zeros() as usize / 2).min(LEVELS - 1)
    }

    /// The first row.
    fn begin(&self, row: u32) {
        let place = self.make_leaf((NONE, NONE), LEVELS, 0, &[(0, row)]);
        for first in &self.first {
            first.store(place, Ordering::Release);
        }
    }

    /// Adds a row to a full leaf, at the end of `path`.
    fn divide(&self, place: u32, row: u32, path: &Path) {
        let leaf = self.head(place);
        let mut rows = Vec::with_capacity(LEAF_ROWS + 1);
        rows.extend(self.rows(place));
        rows.push((start(&self.entry(row).key, leaf.skip()), row));
        self.settle(&mut rows);
        if rows.len() > LEAF_ROWS && rows.last().is_some_and(|(_, last)| *last == row) {
            // Keys that ascend: what is there stays, and is full.
            self.add(leaf.next(0), path, &rows[LEAF_ROWS..]);
            return;
        }
        let (first, second) = rows.split_at(rows.len().div_ceil(2));
        self.replace(place, path, first, second);
    }

    /// Adds a leaf behind `path`, before `next`.
    fn add(&self, next: u32, path: &Path, rows: &[(u64, u32)]) {
        let levels = self.draw_levels();
        let added = self.make_leaf((rows[0].1, next), levels, 0, rows);
        let links = &self.head(added).next;
        for (level, before) in path.iter().enumerate().take(levels) {
            links[level].store(self.next(*before, level), Ordering::Relaxed);
        }
        for (level, before) in path.iter().enumerate().take(levels) {
            self.links(*before)[level].store(added, Ordering::Release);
        }
    }

    /// Replaces a leaf at the end of `path` by two; by one, if `second` has no rows.
    fn replace(&self, place: u32, path: &Path, first: &[(u64, u32)], second: &[(u64, u32)]) {
        let leaf = self.head(place);
        let (mut end, mut second_levels) = (leaf.next(0), 0);
        if let Some((_, low)) = second.first() {
            second_levels = self.draw_levels();
            end = self.make_leaf((*low, end), second_levels, leaf.skip(), second);
        }
        let low = leaf.low.load(Ordering::Relaxed);
        let first_levels = leaf.levels();
        let made = self.make_leaf((low, end), first_levels, leaf.skip(), first);
        let before = self.before(place);
        let levels = 0..first_levels.max(second_levels);
        for level in levels.clone() {
            // The leaf itself is the path's end where it is on the level.
            let mut next = self.next(path[level], level);
            if level < second_levels {
                self.head(end).next[level].store(next, Ordering::Relaxed);
                next = end;
            }
            self.head(made).next[level].store(next, Ordering::Relaxed);
        }
        for level in levels {
            let (before, added) =
                if level < first_levels { (before[level], made) } else { (path[level], end) };
            self.links(before)[level].store(added, Ordering::Release);
        }
    }
}

/// Rows of a memtable in order.
pub(crate) struct Up<'m> {
    memtable: &'m Memtable,
    leaf: u32,
    to: Option<&'m [u8]>,
    /// What is left of the leaf, the next one last.
    rows: Vec<(u64, u32)>,
    is_whole: bool,
}

impl Up<'_> {
    /// Reads a little of each row of the leaf. The processor waits for many of them at once, where
    /// it would wait for each in turn.
    fn reach(&self) {
        let rows = || self.rows.iter().map(|(_, row)| self.memtable.entry(*row));
        let versions = rows().fold(0, |seen, entry| seen ^ entry.version);
        let ends = |value: &Slice| Some(value.first()? ^ value.last()?);
        let bytes = rows().fold(0, |seen, entry| seen ^ ends(&entry.value).unwrap_or(0));
        std::hint::black_box((versions, bytes));
    }
}

impl Iterator for Up<'_> {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        while self.leaf != NONE {
            if let Some((_, row)) = self.rows.pop() {
                let entry = self.memtable.entry(row);
                if self.to.is_some_and(|to| *entry.key >= *to) {
                    self.leaf = NONE;
                    return None;
                }
                return Some(entry.row());
            }
            self.leaf = self.memtable.next(self.leaf, 0);
            if self.leaf != NONE {
                self.memtable.sort(self.leaf, &mut self.rows);
                self.rows.reverse();
                if self.is_whole {
                    self.reach();
                }
            }
        }
        None
    }
}

/// Rows of a memtable against their order.
pub(crate) struct Down<'m> {
    memtable: &'m Memtable,
    leaf: u32,
    from: &'m [u8],
    /// What is left of the leaf, in order.
    rows: Vec<(u64, u32)>,
}

impl Iterator for Down<'_> {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        while self.leaf != NONE {
            if let Some((_, row)) = self.rows.pop() {
                let entry = self.memtable.entry(row);
                if *entry.key < *self.from {
                    self.leaf = NONE;
                    return None;
                }
                return Some(entry.row());
            }
            self.leaf = self.memtable.before(self.leaf)[0];
            if self.leaf != NONE {
                self.memtable.sort(self.leaf, &mut self.rows);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
