//! Runs of the whole engine that are too long for loom: callers, a driver for each shard and owners,
//! on threads of their own, and what must hold whatever they do.
//!
//! A run ends when every caller has done what it had to: each returns what it was handed, each that
//! waits is served or leaves. Then nothing is under way, and what rests must be sound. Then the
//! groups are closed, and nothing may be left: opened = closed, every permit back, no slot in use.
//!
//! The same bodies run under shuttle, on std's threads, under sanitizers and as the soak.

mod caller;
mod driver;
mod ledger;
mod owner;
mod plan;
mod rt;
mod streams;
mod table;
mod world;

pub use plan::{Deed, Habits, Luck, Plan, Size};
pub use table::{Play, SCENARIOS, Scenario, soak};
pub use world::{Report, run};
