//! Pools beside corepool, measured the same way: what the benches of this package share.
//!
//! `benches/README.md` says what each bench proves and how to read it.
#![allow(missing_docs, missing_debug_implementations)] // benches, used by nobody else

#[path = "../../checkout/case.rs"]
pub mod case;
pub mod checkout;
#[path = "../../checkout/crew.rs"]
pub mod crew;
#[path = "../../checkout/floors.rs"]
pub mod floors;
#[path = "../../checkout/groups.rs"]
pub mod groups;
pub mod idle;
pub mod memory;
#[path = "../../checkout/origin.rs"]
pub mod origin;
pub mod report;
#[path = "../../checkout/shards.rs"]
pub mod shards;
