//! Proves what a hit costs in corepool, in its peers, and in bare containers.
//!
//! `cargo bench --bench checkout` in `benches/peers`, `-- --quick` for a look, `-- deadpool/2x1`
//! for one. What a time is: [`corepool_peers::case::Case::run`].

use corepool_peers::{checkout, groups, origin};
use criterion::Criterion;

fn main() {
    origin::serve_if_origin();
    let mut criterion = Criterion::default().configure_from_args();
    groups::run(&mut criterion, &checkout::candidates());
    criterion.final_summary();
}
