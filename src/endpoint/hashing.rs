//! How the registry hashes endpoints.

use core::hash::{BuildHasher, Hasher};
use std::hash::{DefaultHasher, RandomState};

/// Random seeds, or, for tests, seeds that are given, or one hash for everything: then endpoints
/// must be told apart by comparison alone.
#[derive(Clone, Debug)]
pub(crate) enum Hashing {
    Random(RandomState),
    #[cfg(any(test, feature = "sim"))]
    Seeded(u64),
    #[cfg(any(test, feature = "sim"))]
    Same,
}

pub(crate) enum EndpointHasher {
    Random(DefaultHasher),
    #[cfg(any(test, feature = "sim"))]
    Same,
}

impl Default for Hashing {
    fn default() -> Self {
        Self::Random(RandomState::new())
    }
}

impl BuildHasher for Hashing {
    type Hasher = EndpointHasher;

    fn build_hasher(&self) -> EndpointHasher {
        match self {
            Self::Random(state) => EndpointHasher::Random(state.build_hasher()),
            #[cfg(any(test, feature = "sim"))]
            Self::Seeded(seed) => {
                let mut hasher = DefaultHasher::new();
                hasher.write_u64(*seed);
                EndpointHasher::Random(hasher)
            }
            #[cfg(any(test, feature = "sim"))]
            Self::Same => EndpointHasher::Same,
        }
    }
}

impl Hasher for EndpointHasher {
    fn write(&mut self, bytes: &[u8]) {
        match self {
            Self::Random(hasher) => hasher.write(bytes),
            #[cfg(any(test, feature = "sim"))]
            Self::Same => {}
        }
    }

    fn finish(&self) -> u64 {
        match self {
            Self::Random(hasher) => hasher.finish(),
            #[cfg(any(test, feature = "sim"))]
            Self::Same => 0,
        }
    }
}
