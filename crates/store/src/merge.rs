//! Several ordered sources of row versions as one.

use crate::row::Row;
use naust_machine::Fault;
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

/// Row versions in order, or against it.
pub(crate) type Source<'a> = Box<dyn Iterator<Item = Result<Row, Fault>> + 'a>;

struct Head {
    row: Row,
    source: usize,
    down: bool,
}

impl Ord for Head {
    fn cmp(&self, other: &Head) -> Ordering {
        // The heap gives its greatest first; among equals the newer source comes first.
        let order = self.row.key.cmp(&other.row.key);
        let order = if self.down { order } else { order.reverse() };
        order.then_with(|| other.source.cmp(&self.source))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Head) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Head) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Head {}

/// Several ordered sources of row versions as one; of equal ones, the earlier source's comes first.
pub(crate) struct Merge<'a> {
    sources: Vec<Source<'a>>,
    heads: BinaryHeap<Head>,
}

impl<'a> Merge<'a> {
    /// Merges sources that are in order.
    pub fn up(sources: Vec<Source<'a>>) -> Result<Merge<'a>, Fault> {
        Merge::new(sources, false)
    }

    /// Merges sources that are against the order.
    pub fn down(sources: Vec<Source<'a>>) -> Result<Merge<'a>, Fault> {
        Merge::new(sources, true)
    }

    fn new(mut sources: Vec<Source<'a>>, down: bool) -> Result<Merge<'a>, Fault> {
        let mut heads = BinaryHeap::with_capacity(sources.len());
        for (source, rows) in sources.iter_mut().enumerate() {
            if let Some(row) = rows.next().transpose()? {
                heads.push(Head { row, source, down });
            }
        }
        Ok(Merge { sources, heads })
    }

    /// The next row version.
    pub fn next(&mut self) -> Result<Option<Row>, Fault> {
        let Some(mut head) = self.heads.peek_mut() else {
            return Ok(None);
        };
        match self.sources[head.source].next().transpose()? {
            Some(row) => Ok(Some(std::mem::replace(&mut head.row, row))),
            None => Ok(Some(PeekMut::pop(head).row)),
        }
    }
}
