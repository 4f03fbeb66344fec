//! Runs candidates under criterion.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion};

use crate::case::{Candidate, Shape};

/// One benchmark for each candidate and shape: `checkout_return/<candidate>/<threads>x<keys>`.
pub fn run(criterion: &mut Criterion, candidates: &[Candidate]) {
    let mut group = criterion.benchmark_group("checkout_return");
    group
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800));
    for shape in Shape::ALL {
        for candidate in candidates {
            let id = BenchmarkId::new(candidate.name, shape);
            // Set up only if it is wanted: a filter may leave it out.
            let mut case = None;
            group.bench_function(id, |b| {
                let case = case.get_or_insert_with(|| (candidate.prepare)(shape));
                b.iter_custom(|pairs| case.run(pairs));
            });
        }
    }
    group.finish();
}
