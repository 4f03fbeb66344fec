//! Proves what a hit costs: checkout and return of a live idle connection, everything on, against
//! bare containers. The same against other pools is in `benches/peers`.
//!
//! `cargo bench --bench checkout`. Read ratios, not nanoseconds: machines are shared. What a time
//! is: [`case::Case::run`].
#![allow(missing_debug_implementations, unreachable_pub)] // shared with `benches/peers`

use criterion::Criterion;

#[path = "checkout/case.rs"]
mod case;
#[path = "checkout/crew.rs"]
mod crew;
#[path = "checkout/floors.rs"]
mod floors;
#[path = "checkout/groups.rs"]
mod groups;
#[path = "checkout/origin.rs"]
mod origin;
#[path = "checkout/shards.rs"]
mod shards;

fn main() {
    origin::serve_if_origin();
    let mut criterion = Criterion::default().configure_from_args();
    groups::run(&mut criterion, &shards::CANDIDATES);
    groups::run(&mut criterion, &floors::CANDIDATES);
    criterion.final_summary();
}
