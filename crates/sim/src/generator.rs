//! The only source of chance: one seeded generator, and what is drawn from it.
//!
//! The algorithm is xoshiro256++ (Blackman and Vigna, 2019), seeded through SplitMix64, as its
//! authors advise. It is the same on every machine and in every release, because a kept seed must
//! tell the same story for ever.

/// A seeded generator. Not for secrets.
#[derive(Clone, Debug)]
pub struct Generator([u64; 4]);

impl Generator {
    /// A generator whose draws are a pure function of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Generator {
        let mut state = seed;
        Generator(std::array::from_fn(|_| split_mix(&mut state)))
    }

    /// A generator of its own for one part of the world, so that what that part draws moves nothing
    /// elsewhere.
    #[must_use]
    pub fn fork(&mut self) -> Generator {
        Generator::new(self.draw())
    }

    /// Any 64 bits.
    pub fn draw(&mut self) -> u64 {
        let s = &mut self.0;
        let drawn = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let shifted = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= shifted;
        s[3] = s[3].rotate_left(45);
        drawn
    }

    /// A number below `bound`; zero when `bound` is zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.draw()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from `low` to `high`, both included.
    ///
    /// # Panics
    /// If `low` is above `high`: a bug of the caller.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "an empty range");
        low + self.below((high - low).saturating_add(1))
    }

    /// Whether something happens that happens so many times in a million.
    pub fn chance(&mut self, in_a_million: u64) -> bool {
        self.below(1_000_000) < in_a_million
    }

    /// Heads or tails.
    pub fn coin(&mut self) -> bool {
        self.draw() >> 63 == 1
    }

    /// A number from `low` to `high` whose magnitude, rather than whose value, is uniform: mostly
    /// small, now and then large.
    pub fn skewed(&mut self, low: u64, high: u64) -> u64 {
        let span = high.saturating_sub(low).saturating_add(1);
        let bits = u64::from(64 - span.leading_zeros());
        let magnitude = self.between(0, bits);
        let bound = if magnitude >= 64 { u64::MAX } else { 1 << magnitude };
        low + self.below(bound).min(span - 1)
    }

    /// One of several.
    ///
    /// # Panics
    /// If there are none: a bug of the caller.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    /// The index of a weight, drawn in proportion to it; `None` when all are zero.
    pub fn weighted(&mut self, weights: &[u32]) -> Option<usize> {
        let sum = weights.iter().map(|weight| u64::from(*weight)).sum();
        let mut left = self.below(sum);
        weights.iter().position(|weight| {
            let here = left < u64::from(*weight);
            left = left.wrapping_sub(u64::from(*weight));
            here
        })
    }

    /// So many random bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.draw().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}

fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_never_change_between_releases() {
        let mut generator = Generator::new(1);
        let drawn: Vec<u64> = (0..3).map(|_| generator.draw()).collect();
        assert_eq!(
            drawn,
            [14_971_601_782_005_023_387, 13_781_649_495_232_077_965, 1_847_458_086_238_483_744]
        );
    }

    #[test]
    fn every_draw_keeps_its_range() {
        let mut generator = Generator::new(7);
        for _ in 0..10_000 {
            assert!(generator.below(10) < 10);
            assert!((3..=5).contains(&generator.between(3, 5)));
            assert!((1..=100).contains(&generator.skewed(1, 100)));
            assert_ne!(generator.weighted(&[1, 0, 3]), Some(1));
        }
        assert_eq!(generator.weighted(&[0, 0]), None);
        assert_eq!(generator.bytes(13).len(), 13);
    }
}
