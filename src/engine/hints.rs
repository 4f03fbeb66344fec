//! A lane's hints, in the order that its group wants.

use super::{fifo::Fifo, slab::Hint, stack::Stack};

/// Which of a shard's idle connections to an endpoint is handed out next.
///
/// It decides which connections grow cold when there are more than the load needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Order {
    /// The one that has rested longest: all are used in turn and none grows old at rest. A pool
    /// that a burst has grown keeps its size for as long as every connection gets its turn
    /// within the idle timeout.
    #[default]
    Fifo,
    /// The one that came back last: as few as the load needs are used, and are warm (caches, and
    /// the peer's congestion window); the others reach the idle timeout and are closed. A pool
    /// that a burst has grown shrinks after it.
    Lifo,
}

/// Hints that stand in the lane itself. Few in op sequences and scenarios, so that they get beyond.
const NEAR: usize = if cfg!(any(test, loom, model, fuzzing)) { 2 } else { 8 };

/// The hints of one lane: bounded, lock-free.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one for each lane; a box would cost a hit a hop")]
pub enum Hints {
    /// The oldest first.
    Fifo(Fifo<NEAR>),
    /// The youngest first.
    Lifo(Stack),
}

impl Hints {
    /// No hints, and room for `capacity`.
    pub fn new(order: Order, capacity: usize) -> Self {
        match order {
            Order::Fifo => Self::Fifo(Fifo::new(capacity)),
            Order::Lifo => Self::Lifo(Stack::new(capacity)),
        }
    }

    /// Adds a hint; gives it back when there is no room.
    #[inline(always)] // as for `Engine::take_from`
    pub fn push(&self, hint: Hint) -> Result<(), Hint> {
        match self {
            Self::Fifo(fifo) => fifo.push(hint.bits()).map_err(Hint::from_bits),
            Self::Lifo(stack) => stack.push(hint.bits()).map_err(Hint::from_bits),
        }
    }

    /// Takes the next hint.
    #[inline(always)] // as for `Engine::take_from`
    pub fn pop(&self) -> Option<Hint> {
        match self {
            Self::Fifo(fifo) => fifo.pop().map(Hint::from_bits),
            Self::Lifo(stack) => stack.pop().map(Hint::from_bits),
        }
    }

    /// Adds a hint where there is no room: stale hints go, at least half of all that there are
    /// (see [`super::Group::with_key`]). What finds no place all the same, this hint or another,
    /// is given to `expire`.
    ///
    /// Bounded, and others may push and pop meanwhile. Live hints are in the hands of this call
    /// for a moment, where a caller that lines up does not see them. So whoever calls this has to
    /// look at the demand word afterwards, as after any return (INV-5).
    pub fn make_room(&self, hint: Hint, is_live: impl Fn(Hint) -> bool, expire: impl Fn(Hint)) {
        match self {
            Self::Fifo(fifo) => {
                fifo.push_over(
                    hint.bits(),
                    |word| is_live(Hint::from_bits(word)),
                    |word| expire(Hint::from_bits(word)),
                );
            }
            Self::Lifo(stack) => sift(stack, hint, is_live, expire),
        }
    }

    /// Whether there is no hint at this moment.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Fifo(fifo) => fifo.is_empty(),
            Self::Lifo(stack) => stack.is_empty(),
        }
    }

    /// How many hints there is room for.
    #[cfg(test)]
    pub fn capacity(&self) -> usize {
        match self {
            Self::Fifo(fifo) => fifo.capacity(),
            Self::Lifo(stack) => stack.capacity(),
        }
    }
}

/// Drops all stale hints from the stack: they pile up at its bottom, where no pop comes.
fn sift(stack: &Stack, hint: Hint, is_live: impl Fn(Hint) -> bool, expire: impl Fn(Hint)) {
    let mut word = hint.bits();
    let mut looks = 0;
    // More than one turn only while another call has the hints, and with them the places, in its
    // hands. It frees places as it goes on, but if it stalls, we do not.
    while looks <= stack.capacity() {
        looks += 1;
        let is_stale = |word| {
            looks += 1;
            !is_live(Hint::from_bits(word))
        };
        match stack.push_over(word, is_stale) {
            Ok(()) => return,
            Err(back) => word = back,
        }
    }
    expire(Hint::from_bits(word));
}

#[cfg(all(test, not(loom)))]
mod tests {
    use core::cell::RefCell;

    use super::*;
    use crate::engine::{slab::SlotIndex, state::Generation};

    const ORDERS: [Order; 2] = [Order::Fifo, Order::Lifo];

    fn hint(index: u32) -> Hint {
        Hint::new(SlotIndex::new(index), Generation::from_bits(u64::from(index) * 3 + 1))
    }

    fn drained(hints: &Hints) -> Vec<usize> {
        core::iter::from_fn(|| hints.pop()).map(|hint| hint.index().get()).collect()
    }

    #[test]
    fn each_order_is_what_it_says() {
        for (order, expected) in ORDERS.into_iter().zip([[0, 1], [1, 0]]) {
            let hints = Hints::new(order, 2);
            assert!(hints.is_empty());
            (0..2).for_each(|index| hints.push(hint(index)).unwrap());
            assert_eq!((hints.push(hint(2)), hints.capacity()), (Err(hint(2)), 2));
            assert_eq!(drained(&hints), expected, "{order:?}");
        }
    }

    /// As many as there is room for: more than was promised where there are two rings.
    fn filled(order: Order, capacity: usize) -> (Hints, u32) {
        let hints = Hints::new(order, capacity);
        let count = (0..).take_while(|index| hints.push(hint(*index)).is_ok()).count();
        assert!(count >= capacity, "{order:?}: room for {count}");
        (hints, count as u32)
    }

    #[test]
    fn stale_hints_make_room_and_live_ones_stay() {
        for order in ORDERS {
            let (hints, count) = filled(order, 6);
            let is_live = |hint: Hint| hint.index().get().is_multiple_of(2);
            let newcomer = count.next_multiple_of(2);
            hints.make_room(hint(newcomer), is_live, |hint| panic!("expired {hint:?}"));
            let mut left: Vec<_> =
                drained(&hints).into_iter().filter(|at| at.is_multiple_of(2)).collect();
            left.sort_unstable();
            let expected: Vec<_> = (0..=newcomer as usize).step_by(2).collect();
            assert_eq!(left, expected, "{order:?}");
        }
    }

    #[test]
    fn where_all_are_live_the_newcomer_is_expired() {
        for order in ORDERS {
            let (hints, count) = filled(order, 3);
            let (expired, looks) = (RefCell::new(Vec::new()), core::cell::Cell::new(0));
            let is_live = |_| {
                looks.set(looks.get() + 1);
                true
            };
            hints.make_room(hint(count), is_live, |hint| expired.borrow_mut().push(hint));
            assert_eq!(expired.into_inner(), [hint(count)], "{order:?}");
            assert!(looks.get() <= count, "{order:?}: {} looks", looks.get());
            let mut left = drained(&hints);
            left.sort_unstable();
            assert_eq!(left, Vec::from_iter(0..count as usize), "{order:?}");
        }
    }

    #[test]
    fn who_finds_all_hints_in_the_hands_of_another_does_not_wait() {
        let hints = Hints::new(Order::Lifo, 2);
        (0..2).for_each(|index| hints.push(hint(index)).unwrap());
        let expired = RefCell::new(Vec::new());
        let is_live = |looked_at: Hint| {
            // The outer call has both hints now, and no place is free.
            if looked_at == hint(1) {
                hints.make_room(hint(3), |_| true, |hint| expired.borrow_mut().push(hint));
            }
            looked_at != hint(1)
        };
        hints.make_room(hint(2), is_live, |hint| panic!("expired {hint:?}"));
        assert_eq!(expired.take(), [hint(3)]);
        assert_eq!(drained(&hints), [2, 0]);
    }
}
