//! Seeded chance, split by purpose, so that one consumer cannot shift another's draws.

use std::ops::RangeInclusive;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// A generator for one purpose.
#[derive(Clone, Debug)]
pub struct Chance(ChaCha12Rng);

impl Chance {
    /// The generator of `purpose` under `seed`. Equal arguments, equal draws.
    pub fn new(seed: u64, purpose: u64) -> Self {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        rng.set_stream(purpose);
        Self(rng)
    }

    /// A number in `range`, both ends included. The bias of the remainder is below 2^-32 for ranges under 2^32.
    pub fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        let (low, high) = (*range.start(), *range.end());
        assert!(low <= high, "a range has at least one number");
        match (high - low).checked_add(1) {
            Some(span) => low + self.0.next_u64() % span,
            None => self.0.next_u64(),
        }
    }

    /// An index below `len`, which is not 0.
    pub fn index(&mut self, len: usize) -> usize {
        self.within(0..=len as u64 - 1) as usize
    }

    /// One of `choices`.
    pub fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.index(choices.len())].clone()
    }

    /// True once in `n` draws, never if `n` is 0.
    pub fn one_in(&mut self, n: u64) -> bool {
        n != 0 && self.within(1..=n) == 1
    }

    /// Fills `out`.
    pub fn fill(&mut self, out: &mut [u8]) {
        self.0.fill_bytes(out);
    }

    /// A seed for somebody else.
    pub fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.fill(&mut seed);
        seed
    }
}

#[cfg(test)]
mod tests {
    use super::Chance;

    #[test]
    fn a_draw_stays_within_its_range_and_reaches_both_ends() {
        let mut chance = Chance::new(1, 1);
        let draws: Vec<u64> = (0..1000).map(|_| chance.within(3..=5)).collect();
        assert!(draws.iter().all(|d| (3..=5).contains(d)));
        assert!(draws.contains(&3) && draws.contains(&5));
    }

    #[test]
    fn purposes_and_seeds_differ() {
        let draw = |seed, purpose| Chance::new(seed, purpose).within(0..=u64::MAX);
        assert_eq!(draw(1, 1), draw(1, 1));
        assert_ne!(draw(1, 1), draw(1, 2));
        assert_ne!(draw(1, 1), draw(2, 1));
    }
}
