//! Maps whose keys are numbers that this crate or tokio gives out.

use core::hash::{BuildHasherDefault, Hasher};
use std::collections::HashMap;

/// A map by slot, dial or task. Nobody outside chooses the keys, so none can choose them to collide,
/// and a keyed hash, a fifth of a microsecond a dial over all tables, would buy nothing.
pub(crate) type ByNumber<K, V> = HashMap<K, V, BuildHasherDefault<NumberHasher>>;

/// Fibonacci hashing (Knuth, TAOCP vol. 3, §6.4): neighbours stay apart in the low bits, which
/// choose the bucket, and differ in the high ones, which tell entries of a bucket apart.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NumberHasher(u64);

/// 2^64 over the golden ratio, made odd.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

impl Hasher for NumberHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(byte.into());
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(GOLDEN);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use core::hash::BuildHasher;

    use super::*;

    #[test]
    fn neighbours_have_buckets_and_tags_of_their_own() {
        let hash = |number: u32| BuildHasherDefault::<NumberHasher>::default().hash_one(number);
        let buckets: HashSet<u64> = (0..1024).map(|number| hash(number) % 1024).collect();
        assert_eq!(buckets.len(), 1024);
        let tags: HashSet<u64> = (0..1024).map(|number| hash(number) >> 57).collect();
        assert_eq!(tags.len(), 128);
    }
}
