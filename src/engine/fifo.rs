//! A bounded FIFO in two tiers: a small ring that is there from the start, and a large one that is
//! made when the small one first has no place.
//!
//! A ring walks round all of its places, however few values are in it. So what a FIFO costs in
//! cache lines is set by its places, and where there are many FIFOs with a value or two each, that
//! is most of what they cost. The near ring stands in its owner's own lines ([`super::small_ring`]);
//! the far one is crossbeam's `ArrayQueue`.
//!
//! # Order
//! No value moves from one tier to the other: it stays in the ring that it was pushed to, so none
//! is lost or comes twice. A push goes to the near ring only while the far one is empty, and a pop
//! looks at the near one first, so the near one's values are the older ones. Two calls at once may
//! each find what the other is about to change; then a value may overtake another, and the order
//! mends as soon as the near ring has been emptied, which no push prevents. A value also overtakes
//! where the far ring is full and the near one is not: it has a place there rather than none.
//!
//! # INV-5
//! Who pushes and then looks for callers behind a SeqCst fence (`Engine::rest_in_sight`), and who
//! lines up and then pops behind one (`Engine::take_place`, and the same in `close`, `resume` and
//! `evict`), do not miss each other here either. Take a push whose fence is the first of the two;
//! if it is not, the push sees the caller.
//!
//! * In the near ring, the pop sees the push's claim, because that stands in the word of the head,
//!   and every word up to it whose push has passed its fence before the pop's. If it finds nothing
//!   all the same, it stands before the place of a push that has yet to pass its own: that one sees
//!   the caller, pops in its turn, and finds what stands behind it, or another of its kind. So of
//!   pushes at once the last answers for all.
//! * In the far one: the push has loaded or stored the pointer to it before it stored the value
//!   there, and both before its fence. So the pop reads the pointer that the push knew of or
//!   something later, and the ring that it then looks at has the value. The value cannot slip from
//!   the far ring, where a pop has yet to look, to the near one, where it has looked: the one that
//!   takes it there has the connection, and looks for callers when it comes to rest.

use core::fmt;

use super::{ring::Ring, small_ring::SmallRing};
use crate::sync::Late;

/// A bounded multi-producer multi-consumer FIFO of words that costs little while it holds little:
/// as many as `NEAR`.
#[repr(C)]
pub struct Fifo<const NEAR: usize> {
    /// There only when the near ring is smaller than what was promised and has been full.
    far: Late<Ring<u64>>,
    near: SmallRing<NEAR>,
    /// What was promised.
    capacity: usize,
}

impl<const NEAR: usize> Fifo<NEAR> {
    /// A FIFO with room for at least `capacity`, in order.
    pub fn new(capacity: usize) -> Self {
        Self { far: Late::new(), near: SmallRing::default(), capacity }
    }

    /// Appends; gives the value back when there is no room.
    #[inline(always)] // as for `Engine::take_from`
    pub fn push(&self, value: u64) -> Result<(), u64> {
        let value = match self.far.get() {
            None => match self.near.push(value) {
                Ok(()) => return Ok(()),
                Err(back) => back,
            },
            Some(_) => value,
        };
        self.push_far(value)
    }

    /// Takes the oldest.
    #[inline(always)] // as for `Engine::take_from`
    pub fn pop(&self) -> Option<u64> {
        match self.near.pop() {
            None => self.far.get().and_then(pop_far),
            value => value,
        }
    }

    /// Appends where there is no room: values that do not live any more go until ours fits, live
    /// ones go round to the end of their ring. What finds no place all the same, this value or
    /// another, is given to `expire`.
    pub fn push_over(&self, mut value: u64, is_live: impl Fn(u64) -> bool, expire: impl Fn(u64)) {
        let spare = |value| self.push(value).unwrap_or_else(&expire);
        let near: &dyn Tier = &self.near;
        // The youngest belongs to the far ring's end, where there is one.
        for ring in self.far.get().map(|far| far as &dyn Tier).into_iter().chain([near]) {
            match rotate(ring, value, &is_live, spare) {
                Ok(()) => return,
                Err(back) => value = back,
            }
        }
        // All lived when we passed. Others may have taken some since.
        spare(value);
    }

    /// Whether there is nothing in it at this moment.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.near.is_empty() && self.far.get().is_none_or(Ring::is_empty)
    }

    /// How much room was promised.
    #[cfg(test)]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Appends where the near ring is full, or the far one is there.
    #[cold]
    #[inline(never)]
    fn push_far(&self, value: u64) -> Result<(), u64> {
        if self.capacity <= NEAR {
            return Err(value);
        }
        // Nobody waits for another that makes it: of two rings one is dropped, and nobody has
        // pushed to that.
        let far = self.far.get_or_make(|| Ring::new(self.capacity));
        let tiers: [&dyn Tier; 2] = [&self.near, far];
        let [first, second] = if far.is_empty() { tiers } else { [tiers[1], tiers[0]] };
        first.push(value).or_else(|value| second.push(value))
    }
}

#[cold]
#[inline(never)]
fn pop_far(far: &Ring<u64>) -> Option<u64> {
    far.pop()
}

/// Either ring, where it does not matter which.
trait Tier {
    fn push(&self, value: u64) -> Result<(), u64>;
    fn pop(&self) -> Option<u64>;
    fn places(&self) -> usize;
}

impl<const N: usize> Tier for SmallRing<N> {
    fn push(&self, value: u64) -> Result<(), u64> {
        self.push(value)
    }

    fn pop(&self) -> Option<u64> {
        self.pop()
    }

    fn places(&self) -> usize {
        N
    }
}

impl Tier for Ring<u64> {
    fn push(&self, value: u64) -> Result<(), u64> {
        self.push(value)
    }

    fn pop(&self) -> Option<u64> {
        self.pop()
    }

    fn places(&self) -> usize {
        self.capacity()
    }
}

/// Once round a ring, or as far as a value that does not live any more and makes a place for ours.
/// A live one that finds its own place taken is given to `spare`. Gives ours back when all live.
fn rotate(
    ring: &dyn Tier,
    mut value: u64,
    is_live: impl Fn(u64) -> bool,
    spare: impl Fn(u64),
) -> Result<(), u64> {
    for _ in 0..ring.places() {
        if let Some(oldest) = ring.pop()
            && is_live(oldest)
        {
            // Live: keep it, in the place that popping it made, or in another when that is gone.
            match ring.push(oldest) {
                Ok(()) => continue,
                Err(crowded_out) => spare(crowded_out),
            }
        }
        match ring.push(value) {
            Ok(()) => return Ok(()),
            Err(back) => value = back,
        }
    }
    Err(value)
}

impl<const NEAR: usize> fmt::Debug for Fifo<NEAR> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fifo")
            .field("capacity", &self.capacity)
            .field("has_far", &self.far.get().is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use core::cell::{Cell, RefCell};
    use std::collections::VecDeque;

    use super::*;

    fn drained<const N: usize>(fifo: &Fifo<N>) -> Vec<u64> {
        core::iter::from_fn(|| fifo.pop()).collect()
    }

    fn has_far<const N: usize>(fifo: &Fifo<N>) -> bool {
        fifo.far.get().is_some()
    }

    #[test]
    fn values_come_out_in_order_over_both_tiers() {
        let (fifo, mut expected) = (Fifo::<2>::new(7), VecDeque::new());
        let mut next = 0;
        // Every number of values up to what was promised, with the rings at every turn.
        for round in 0..1_000_u64 {
            let pushes = (round * 5 + 3) % 8;
            for _ in 0..pushes {
                if expected.len() < fifo.capacity() {
                    fifo.push(next).unwrap();
                    expected.push_back(next);
                    next += 1;
                }
            }
            for _ in 0..(round * 3 + 1) % 8 {
                assert_eq!(fifo.pop(), expected.pop_front(), "round {round}");
            }
            assert_eq!(fifo.is_empty(), expected.is_empty());
        }
        assert_eq!(drained(&fifo), Vec::from(expected));
    }

    #[test]
    fn there_is_no_far_ring_until_the_near_one_is_full() {
        let fifo = Fifo::<2>::new(7);
        // Any number of values, if there are never more than two at once.
        for value in 0..20 {
            fifo.push(value).unwrap();
            fifo.push(value).unwrap();
            assert_eq!(drained(&fifo), [value, value]);
        }
        assert!(!has_far(&fifo));
        (0..3).for_each(|value| fifo.push(value).unwrap());
        let far = &raw const *fifo.far.get().expect("the third has no place in the near one");
        for _ in 0..20 {
            assert_eq!(drained(&fifo), [0, 1, 2]);
            (0..3).for_each(|value| fifo.push(value).unwrap());
        }
        assert!(core::ptr::eq(far, fifo.far.get().unwrap()), "it is made once");
    }

    #[test]
    fn what_fits_into_the_near_ring_has_no_other() {
        for asked in [0, 1, 3, 4] {
            let fifo = Fifo::<4>::new(asked);
            (0..4).for_each(|value| fifo.push(value).unwrap());
            assert_eq!((fifo.push(9), fifo.push(9)), (Err(9), Err(9)));
            assert_eq!((fifo.capacity(), has_far(&fifo)), (asked, false));
            assert_eq!(drained(&fifo), [0, 1, 2, 3]);
        }
    }

    #[test]
    fn a_value_is_refused_only_where_neither_ring_has_a_place() {
        let fifo = Fifo::<2>::new(5);
        (0..7).for_each(|value| fifo.push(value).unwrap());
        assert_eq!(fifo.push(7), Err(7));
        // The far ring is full still, and its values are the older ones: any place will do.
        assert_eq!((fifo.pop(), fifo.push(7), fifo.push(8)), (Some(0), Ok(()), Err(8)));
        assert_eq!(drained(&fifo), [1, 7, 2, 3, 4, 5, 6]);
        // And again as at first.
        (0..7).for_each(|value| fifo.push(value).unwrap());
        assert_eq!(drained(&fifo), [0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn the_near_ring_is_not_filled_before_the_far_one_is_empty() {
        let fifo = Fifo::<2>::new(5);
        (0..4).for_each(|value| fifo.push(value).unwrap());
        assert_eq!((fifo.pop(), fifo.pop(), fifo.pop()), (Some(0), Some(1), Some(2)));
        fifo.push(4).unwrap();
        assert!(fifo.near.is_empty());
        assert_eq!(drained(&fifo), [3, 4]);
        fifo.push(5).unwrap();
        assert!(!fifo.near.is_empty());
        assert_eq!(drained(&fifo), [5]);
    }

    fn is_even(value: u64) -> bool {
        value.is_multiple_of(2)
    }

    #[test]
    fn values_that_do_not_live_make_room_in_either_ring() {
        for (odd, expected) in [
            // In the far ring, which goes round as far as that; its place is ours.
            (4, vec![0, 2, 6, 8, 10, 12, 14]),
            // In the near one.
            (0, vec![2, 14, 4, 6, 8, 10, 12]),
        ] {
            let fifo = Fifo::<2>::new(5);
            for value in (0..14).step_by(2) {
                fifo.push(if value == odd { value + 1 } else { value }).unwrap();
            }
            fifo.push_over(14, is_even, |value| panic!("expired {value}"));
            let left = drained(&fifo);
            assert!(left.iter().copied().all(is_even), "it is still there: {left:?}");
            assert_eq!(left, expected);
        }
    }

    #[test]
    fn where_all_live_the_newcomer_is_expired_after_a_look_at_each() {
        for (capacity, places) in [(2, 2), (5, 7)] {
            let (fifo, looks) = (Fifo::<2>::new(capacity), Cell::new(0));
            (0..places).for_each(|value| fifo.push(value).unwrap());
            let is_live = |_: u64| {
                looks.set(looks.get() + 1);
                true
            };
            let expired = RefCell::new(Vec::new());
            fifo.push_over(99, is_live, |value| expired.borrow_mut().push(value));
            assert_eq!(expired.into_inner(), [99]);
            assert_eq!(looks.get(), places);
            assert_eq!(drained(&fifo), Vec::from_iter(0..places), "the order is as it was");
        }
    }

    #[test]
    fn none_is_expired_while_there_is_a_place() {
        let (fifo, took) = (Fifo::<2>::new(5), Cell::new(false));
        (0..7).for_each(|value| fifo.push(value).unwrap());
        // Another takes two while one is in our hands, and has the place of that one.
        let is_live = |_: u64| {
            if !took.replace(true) {
                assert_eq!((fifo.pop(), fifo.pop()), (Some(0), Some(1)));
                fifo.push(7).unwrap();
            }
            true
        };
        fifo.push_over(8, is_live, |value| panic!("expired {value}"));
        let mut left = drained(&fifo);
        left.sort_unstable();
        assert_eq!(left, [2, 3, 4, 5, 6, 7, 8]);
    }
}
