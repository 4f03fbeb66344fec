//! A budget for retries: while many attempts fail, none is repeated.

use crate::sync::{Arc, AtomicU64, Ordering, guess};

/// How many retries an upstream can bear: gRPC's retry throttling (gRFC A6, "Throttling Retry
/// Attempts and Hedged RPCs") as a token bucket in one atomic word.
///
/// The bucket starts full. A failed attempt takes one token, a successful one puts back
/// `token_ratio` of a token, and a retry is allowed while the bucket is more than half full. With
/// the default, 100 tokens and a ratio of 0.1, fifty failures in a row stop all retries, and they
/// go on in the long run while less than one attempt in eleven fails.
///
/// Count as failures what the upstream's state is to blame for: a connection that broke, a timeout,
/// a 503. A request that is wrong in itself is a success here; it says nothing about the upstream.
/// Count each attempt, the retries as well. An upstream has one budget; clones share it.
///
/// ```
/// use corepool::RetryBudget;
///
/// let budget = RetryBudget::new(10, 100)?; // 10 tokens, 0.1 of one for a success
/// for _ in 0..5 {
///     assert!(budget.may_retry());
///     budget.on_failure();
/// }
/// assert!(!budget.may_retry(), "half of the tokens are gone");
/// budget.on_success();
/// assert!(budget.may_retry());
/// # Ok::<(), corepool::SettingsError>(())
/// ```
#[derive(Clone, Debug)]
pub struct RetryBudget {
    bucket: Arc<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    /// Thousandths of tokens, at most `full`.
    level: AtomicU64,
    full: u64,
    per_success: u64,
}

/// What a failed attempt costs.
const TOKEN: u64 = 1000;

impl RetryBudget {
    /// A full bucket of `max_tokens`, 1 to 1000, to which a success adds `token_ratio_thousandths`
    /// of a token, 1 to 1000000. The ranges are gRFC A6's, and as much as the bucket can hold.
    ///
    /// # Errors
    /// When a figure is out of its range.
    #[cfg(not(any(loom, model)))]
    pub fn new(
        max_tokens: u32,
        token_ratio_thousandths: u32,
    ) -> Result<Self, crate::SettingsError> {
        use crate::settings::in_range;

        in_range("max_tokens", &max_tokens, 1..=1000)?;
        in_range("token_ratio_thousandths", &token_ratio_thousandths, 1..=1000 * TOKEN)?;
        Ok(Self::of(max_tokens, token_ratio_thousandths))
    }

    /// As `new`, for figures known to be in range.
    #[cfg(any(loom, model))]
    pub fn new(max_tokens: u32, token_ratio_thousandths: u32) -> Self {
        Self::of(max_tokens, token_ratio_thousandths)
    }

    fn of(max_tokens: u32, token_ratio_thousandths: u32) -> Self {
        let full = u64::from(max_tokens) * TOKEN;
        let per_success = u64::from(token_ratio_thousandths);
        Self { bucket: Arc::new(Bucket { level: AtomicU64::new(full), full, per_success }) }
    }

    /// An attempt succeeded.
    #[inline]
    pub fn on_success(&self) {
        let Bucket { full, per_success, .. } = *self.bucket;
        self.update(|level| full.min(level + per_success));
    }

    /// An attempt failed, and the upstream is to blame.
    #[inline]
    pub fn on_failure(&self) {
        self.update(|level| level.saturating_sub(TOKEN));
    }

    /// Whether a failed attempt may be repeated now.
    #[inline]
    pub fn may_retry(&self) -> bool {
        self.level() > self.bucket.full / 2
    }

    /// Thousandths of tokens in the bucket, for a gauge.
    #[inline]
    pub fn level(&self) -> u64 {
        // Relaxed: a number that guards nothing.
        self.bucket.level.load(Ordering::Relaxed)
    }

    /// Changes the level by one CAS: no failure and no success is lost.
    #[inline]
    fn update(&self, change: impl Fn(u64) -> u64) {
        let level = &self.bucket.level;
        let mut found = guess(level);
        loop {
            let next = change(found);
            // A full bucket, the usual state, stays full: nothing is written, and the shards share
            // the line. The reading may be as old as a concurrent failure; then the success counts
            // as the earlier of the two.
            if next == found {
                return;
            }
            // Relaxed: as in `level`.
            match level.compare_exchange_weak(found, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => found = now,
            }
        }
    }
}

/// 100 tokens, 0.1 of one for a success.
impl Default for RetryBudget {
    fn default() -> Self {
        Self::of(100, 100)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn retries_stop_at_half_and_go_on_above() {
        let budget = RetryBudget::new(4, 500).unwrap();
        budget.on_failure();
        assert!(budget.may_retry(), "3 of 4");
        budget.on_failure();
        assert!(!budget.may_retry(), "exactly half is not enough");
        budget.on_success();
        assert!(budget.may_retry(), "2.5 of 4");
    }

    #[test]
    fn an_odd_maximum_has_a_half_too() {
        let budget = RetryBudget::new(1, 1).unwrap();
        assert!(budget.may_retry());
        budget.on_failure();
        assert!((0..500).all(|_| {
            budget.on_success();
            !budget.may_retry()
        }));
        budget.on_success();
        assert!(budget.may_retry(), "501 thousandths");
    }

    #[test]
    fn the_bucket_neither_overflows_nor_underflows() {
        let budget = RetryBudget::new(2, 1_000_000).unwrap();
        budget.on_success();
        assert_eq!(budget.level(), 2_000);
        for _ in 0..5 {
            budget.on_failure();
        }
        assert_eq!(budget.level(), 0);
        budget.on_success();
        assert_eq!(budget.level(), 2_000);
    }

    #[test]
    fn figures_out_of_range_are_refused_by_name() {
        for (tokens, ratio, field) in [
            (0, 100, "max_tokens"),
            (1001, 100, "max_tokens"),
            (10, 0, "token_ratio_thousandths"),
            (10, 1_000_001, "token_ratio_thousandths"),
        ] {
            assert_eq!(RetryBudget::new(tokens, ratio).unwrap_err().field(), field);
        }
    }

    #[test]
    fn clones_share_one_bucket_and_lose_no_attempt() {
        const EACH: u64 = 100;
        let budget = RetryBudget::new(1000, 7).unwrap();
        // Room for every success, so that none meets a full bucket.
        for _ in 0..10 {
            budget.on_failure();
        }
        let before = budget.level();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let budget = budget.clone();
                scope.spawn(move || {
                    for _ in 0..EACH {
                        budget.on_failure();
                        budget.on_success();
                    }
                });
            }
        });
        assert_eq!(budget.level(), before - 4 * EACH * (TOKEN - 7));
    }
}
