//! The idle cap of a group: exact over all shards, without a counter that all of them write.

use crossbeam_utils::CachePadded;

use crate::sync::{AtomicU32, AtomicU64, Ordering, Setting, guess};

/// A lane's account: how many connections rest in it, and how many may.
#[derive(Debug)]
pub struct Account(AtomicU64);

/// What has an account in it.
pub trait HasAccount {
    /// Its account.
    fn account(&self) -> &Account;
}

/// An account that stands alone.
impl HasAccount for CachePadded<Account> {
    #[inline]
    fn account(&self) -> &Account {
        self
    }
}

/// The word of an account as a plain value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Balance {
    idle: u32,
    quota: u32,
}

impl Balance {
    const ONE_IDLE: u64 = 1;

    const fn pack(self) -> u64 {
        self.idle as u64 | (self.quota as u64) << 32
    }

    const fn unpack(bits: u64) -> Self {
        Self { idle: bits as u32, quota: (bits >> 32) as u32 }
    }
}

impl Account {
    /// Nothing rests, and nothing may.
    pub fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Room for one more idle connection within the lane's quota. Without it ask
    /// [`Credits::take_slow`].
    #[inline]
    #[must_use]
    pub fn take(&self) -> bool {
        self.update(|bits| {
            let balance = Balance::unpack(bits);
            (balance.idle < balance.quota).then(|| bits + Balance::ONE_IDLE)
        })
    }

    /// A connection of this lane rests no more.
    #[inline]
    pub fn put(&self) {
        // Relaxed: a count; the connection itself travels by the slot's word.
        let before = self.0.fetch_sub(Balance::ONE_IDLE, Ordering::Relaxed);
        debug_assert!(Balance::unpack(before).idle > 0, "INV-2: an idle credit came back twice");
    }

    /// How many rest in the lane.
    #[inline]
    fn idle(&self) -> u32 {
        // Relaxed: a snapshot.
        Balance::unpack(self.0.load(Ordering::Relaxed)).idle
    }

    #[inline]
    fn update(&self, change: impl Fn(u64) -> Option<u64>) -> bool {
        let mut bits = guess(&self.0);
        while let Some(next) = change(bits) {
            // Relaxed: a count; the connection itself travels by the slot's word.
            match self.0.compare_exchange_weak(bits, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(found) => bits = found,
            }
        }
        false
    }
}

/// The group's cap, dealt out to its lanes as quotas.
///
/// The sum of all quotas and of what is not dealt out never exceeds the cap, and a lane never
/// lets more connections rest than its quota, so idle ≤ cap holds at every moment (INV-2). A lane
/// that runs short takes from the undealt part, then from siblings with room. In the steady state
/// each lane writes its own word alone.
///
/// The cap may change at run time. When it sinks, the difference becomes a debt that is paid with
/// credits as they come free ([`Self::collect`]); until it is paid no more connections rest than did.
#[derive(Debug)]
pub struct Credits<A = CachePadded<Account>> {
    lanes: Box<[A]>,
    undealt: AtomicU32,
    debt: AtomicU32,
    cap: Setting,
    /// Credits dealt in one go.
    batch: Setting,
}

impl Credits {
    /// With accounts of their own, nothing dealt out.
    pub fn alone(lanes: usize, cap: u32) -> Self {
        Self::new((0..lanes).map(|_| CachePadded::new(Account::new())).collect(), cap)
    }
}

impl<A: HasAccount> Credits<A> {
    /// With the accounts of these lanes, nothing dealt out.
    pub fn new(lanes: Box<[A]>, cap: u32) -> Self {
        Self {
            batch: Setting::new(batch(lanes.len(), cap)),
            lanes,
            undealt: AtomicU32::new(cap),
            debt: AtomicU32::new(0),
            cap: Setting::new(cap),
        }
    }

    /// Changes the cap; one caller at a time. A debt may be left, see [`Self::collect`].
    pub fn resize(&self, cap: u32) {
        let before = self.cap.get();
        self.cap.set(cap);
        self.batch.set(batch(self.lanes.len(), cap));
        if cap < before {
            // Relaxed: counts, here and below; nothing is published with them.
            self.debt.fetch_add(before - cap, Ordering::Relaxed);
        } else {
            let mut more = cap - before;
            while more > 0 && self.owe_less() {
                more -= 1;
            }
            self.undealt.fetch_add(more, Ordering::Relaxed);
        }
        self.collect();
    }

    /// Pays what it can of the debt with credits that nobody uses. Returns what is left to pay:
    /// so many connections must leave.
    pub fn collect(&self) -> u32 {
        while self.owe_less() {
            let seized = self.draw(1) > 0 || self.raid(self.lanes.len());
            if !seized {
                self.debt.fetch_add(1, Ordering::Relaxed);
                break;
            }
        }
        self.debt.load(Ordering::Relaxed)
    }

    /// Takes one off the debt, if there is any.
    fn owe_less(&self) -> bool {
        self.debt
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |debt| debt.checked_sub(1))
            .is_ok()
    }

    /// Room for one more idle connection in a lane, or `false`: the group is at its cap.
    #[inline]
    #[must_use]
    pub fn take(&self, lane: usize) -> bool {
        self.account(lane).take() || self.take_slow(lane)
    }

    /// A connection of this lane rests no more.
    #[inline]
    pub fn put(&self, lane: usize) {
        self.account(lane).put();
    }

    #[inline]
    fn account(&self, lane: usize) -> &Account {
        self.lanes[lane].account()
    }

    /// How many rest in a lane.
    pub fn idle(&self, lane: usize) -> u32 {
        self.account(lane).idle()
    }

    /// How many rest in all lanes.
    pub fn total_idle(&self) -> u32 {
        self.lanes.iter().map(|lane| lane.account().idle()).sum()
    }

    /// Whether as many rest as may: a snapshot.
    pub fn is_full(&self) -> bool {
        self.total_idle() >= self.cap.get()
    }

    /// Room for one more idle connection in a lane that has used up its quota, or `false`: the group
    /// is at its cap.
    #[cold]
    #[inline(never)]
    #[must_use]
    pub fn take_slow(&self, lane: usize) -> bool {
        let got = match self.draw(self.batch.get()) {
            0 => u32::from(self.raid(lane)),
            drawn => drawn,
        };
        if got == 0 {
            return false;
        }
        // The connection rests on the first of them; a batch spares the next returns the trip.
        self.account(lane).update(|bits| {
            let balance = Balance::unpack(bits);
            Some(Balance { idle: balance.idle + 1, quota: balance.quota + got }.pack())
        })
    }

    /// A batch of what is not dealt out.
    fn draw(&self, batch: u32) -> u32 {
        // Relaxed: counts; nothing is published with them.
        self.undealt
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                (left > 0).then(|| left - left.min(batch))
            })
            .map_or(0, |left| left.min(batch))
    }

    /// Takes one unused credit from another lane than this one; from any, when there is no such.
    fn raid(&self, lane: usize) -> bool {
        let lanes = self.lanes.len();
        (1..=lanes).map(|step| (lane + step) % lanes).filter(|other| *other != lane).any(
            |sibling| {
                self.account(sibling).update(|bits| {
                    let balance = Balance::unpack(bits);
                    (balance.idle < balance.quota)
                        .then(|| Balance { quota: balance.quota - 1, ..balance }.pack())
                })
            },
        )
    }
}

/// An eighth of a lane's fair share: few trips, and little stranded elsewhere.
fn batch(lanes: usize, cap: u32) -> u32 {
    (cap / (8 * lanes as u32)).max(1)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_an_eighth_of_a_lanes_share_and_one_at_least() {
        assert_eq!(
            [(1, 80), (4, 64), (4, 31), (64, 0)].map(|(lanes, cap)| batch(lanes, cap)),
            [10, 2, 1, 1]
        );
    }

    #[test]
    fn a_cap_that_sinks_is_paid_with_free_credits_first() {
        let credits = Credits::alone(2, 10);
        assert!((0..4).all(|_| credits.take(0)));
        credits.resize(6);
        assert_eq!(credits.collect(), 0, "six of ten were free");
        assert_eq!((0..9).filter(|_| credits.take(1)).count(), 2);
        assert_eq!(credits.total_idle(), 6);
    }

    #[test]
    fn a_cap_below_what_rests_is_paid_as_connections_leave() {
        let credits = Credits::alone(2, 8);
        while credits.take(0) {}
        credits.resize(5);
        assert_eq!(credits.collect(), 3);
        credits.put(0);
        credits.put(0);
        assert_eq!(credits.collect(), 1);
        credits.put(0);
        assert_eq!((credits.collect(), credits.total_idle()), (0, 5));
        assert!(!credits.take(0) && !credits.take(1), "the cap is five");
    }

    #[test]
    fn a_cap_that_rises_again_cancels_its_debt() {
        let credits = Credits::alone(1, 4);
        while credits.take(0) {}
        credits.resize(1);
        credits.resize(4);
        assert_eq!(credits.collect(), 0);
        assert!(!credits.take(0), "four rest and four may");
        credits.resize(6);
        assert!(credits.take(0) && credits.take(0) && !credits.take(0));
    }

    #[test]
    fn a_cap_that_rises_by_less_than_its_debt_leaves_the_rest_of_it() {
        let credits = Credits::alone(1, 4);
        while credits.take(0) {}
        credits.resize(1);
        credits.resize(2);
        assert_eq!(credits.collect(), 2, "four rest and two may");
    }

    #[test]
    fn one_lane_may_use_the_whole_cap_and_no_more() {
        let credits = Credits::alone(4, 10);
        assert!(!credits.is_full());
        assert_eq!((0..20).filter(|_| credits.take(2)).count(), 10);
        assert!(credits.is_full());
        credits.resize(9);
        assert!(credits.is_full());
        credits.resize(10);
        assert_eq!(credits.total_idle(), 10);
    }

    #[test]
    fn a_short_lane_takes_unused_room_from_a_sibling() {
        let credits = Credits::alone(2, 4);
        while credits.take(0) {}
        assert!(!credits.take(1), "the group is at its cap");
        credits.put(0);
        assert!(credits.take(1), "lane 0 has one credit to spare");
        assert!(!credits.take(0));
        assert_eq!((credits.idle(0), credits.idle(1)), (3, 1));
    }

    #[test]
    fn a_cap_of_zero_lets_nothing_rest() {
        assert!(!Credits::alone(2, 0).take(0));
    }
}
