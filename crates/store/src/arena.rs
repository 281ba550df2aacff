//! Places that are handed out one by one and never move: one thread makes them, any thread reads
//! those it was told of.
//!
//! They lie in chunks that are made when their first place is needed. Eight chunks double the
//! arena, so at most an eighth of it is unused and little is made at once.

use std::array::from_fn;
use std::sync::OnceLock;

/// Chunks of one length.
const CHUNKS: usize = 8;
/// Doublings. Places are numbered in 32 bits, and no arena comes near it.
const GROUPS: usize = 26;

type Chunk<T> = OnceLock<Box<[T]>>;

/// An arena of `T`. Its first chunks have 2^`GRAIN` places.
pub(crate) struct Arena<T, const GRAIN: u32> {
    groups: [OnceLock<Box<[Chunk<T>; CHUNKS]>>; GROUPS],
}

impl<T, const GRAIN: u32> Default for Arena<T, GRAIN> {
    fn default() -> Arena<T, GRAIN> {
        Arena { groups: from_fn(|_| OnceLock::new()) }
    }
}

/// Where a place lies: group, chunk, place in the chunk; and how many places that chunk has.
fn locate(place: u32, grain: u32) -> (usize, usize, usize, usize) {
    let number = u64::from(place) + ((CHUNKS as u64) << grain);
    let group = number.ilog2() - CHUNKS.ilog2() - grain;
    let bits = grain + group;
    let chunk = (number >> bits) as usize % CHUNKS;
    (group as usize, chunk, number as usize & ((1 << bits) - 1), 1 << bits)
}

impl<T: Default, const GRAIN: u32> Arena<T, GRAIN> {
    /// A place that was made.
    pub fn get(&self, place: u32) -> &T {
        let (group, chunk, at, _) = locate(place, GRAIN);
        let chunks = self.groups[group].get().expect("a place that was made has a chunk");
        &chunks[chunk].get().expect("a place that was made has a chunk")[at]
    }

    /// Makes a place. Places are made in order, from 0 on, each at most once.
    pub fn make(&self, place: u32) -> &T {
        let (group, chunk, at, length) = locate(place, GRAIN);
        let chunks = self.groups[group].get_or_init(|| Box::new(from_fn(|_| OnceLock::new())));
        let chunk =
            chunks[chunk].get_or_init(|| (0..length).map(|_| T::default()).collect::<Box<[T]>>());
        &chunk[at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn every_place_is_one_of_its_own_and_few_are_made_ahead() {
        let (small, large) = (Arena::<AtomicU32, 0>::default(), Arena::<AtomicU32, 3>::default());
        for place in 0..10_000 {
            small.make(place).store(place + 1, Ordering::Relaxed);
            large.make(place).store(place + 1, Ordering::Relaxed);
        }
        for place in 0..10_000 {
            assert_eq!(small.get(place).load(Ordering::Relaxed), place + 1);
            assert_eq!(large.get(place).load(Ordering::Relaxed), place + 1);
        }
        for grain in [0, 3] {
            for place in [0u32, 7, 8, 63, 64, 10_000, 1 << 20, (1 << 28) - 1] {
                let (.., length) = locate(place, grain);
                assert!(length as u64 <= u64::from(place) / 8 + (1 << grain), "{place}: {length}");
            }
        }
    }
}
