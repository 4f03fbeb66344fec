//! corepool
#![cfg_attr(loom, allow(dead_code, unreachable_pub))]

mod clock;
mod engine;
mod sync;

/// The engine's inside, for the models and the fuzzer. No part of the public interface.
#[cfg(any(loom, fuzzing))]
#[doc(hidden)]
pub mod model {
    pub use crate::{clock::Tick, engine::*};
}
