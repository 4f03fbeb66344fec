//! A bounded LIFO of words, lock-free: no thread ever waits for another, not even in a queue.
//!
//! A Treiber stack (R. K. Treiber, "Systems Programming: Coping with Parallelism", IBM RJ 5118,
//! 1986) over nodes that are made beforehand. Each node is in one of two lists, the values' or the
//! free ones', or in the hands of one thread that moves it from one to the other.
//!
//! # ABA
//! A pop reads the top node's successor and then swaps it in. Between the two the top may have
//! gone and come back with another successor. So a list's word bears a tag that grows with every
//! change: 32 bits of it beside 32 bits of index. It comes round after 4,294,967,296 changes; a
//! thread would have to stall between two of its instructions for exactly so many (or a multiple,
//! three minutes at ten million checkouts a second), and find the same node on top. The tag keeps
//! its width under the model: a narrower one would come round there, and that is no bug to find.

use core::fmt;

use crate::sync::{AtomicU32, AtomicU64, Ordering, guess, look};

/// A bounded multi-producer multi-consumer LIFO of words.
pub struct Stack {
    values: List,
    free: List,
    nodes: Box<[Node]>,
}

/// Written by the one thread that has taken it off a list. A thread that stalled in a pop may
/// still read `next`; its CAS will fail.
struct Node {
    value: AtomicU64,
    next: AtomicU32,
}

/// The word of a list.
struct List(AtomicU64);

/// The value of a list's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Top {
    /// How often the list has changed.
    tag: u32,
    /// The first node, or [`NONE`].
    index: u32,
}

/// No node.
const NONE: u32 = u32::MAX;

impl Stack {
    /// A stack of at least one place, and at most 2^31.
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.clamp(1, 1 << 31) as u32;
        let next = |index| if index + 1 < capacity { index + 1 } else { NONE };
        let node = |index| Node { value: AtomicU64::new(0), next: AtomicU32::new(next(index)) };
        Self {
            values: List::new(NONE),
            free: List::new(0),
            nodes: (0..capacity).map(node).collect(),
        }
    }

    /// Pushes; gives the value back when there is no free place, or the last one is in the hands
    /// of a pop that is not over.
    #[inline]
    pub fn push(&self, value: u64) -> Result<(), u64> {
        let Some(index) = self.free.take(&self.nodes) else {
            return Err(value);
        };
        // Relaxed: published by the Release in `put`.
        self.node(index).value.store(value, Ordering::Relaxed);
        self.values.put(&self.nodes, index, index);
        Ok(())
    }

    /// Takes the value that was pushed last.
    #[inline]
    pub fn pop(&self) -> Option<u64> {
        // A look that may be out of date, as in the product: `guess` never is.
        #[cfg(loom)]
        if self.is_empty() {
            return None;
        }
        let index = self.values.take(&self.nodes)?;
        // Relaxed: `take` acquired it.
        let value = self.node(index).value.load(Ordering::Relaxed);
        self.free.put(&self.nodes, index, index);
        Some(value)
    }

    /// Pushes in the place of values that are stale, when there is no free one: all of them go,
    /// the others stay in their order.
    ///
    /// For the time that this takes, others find the stack empty: who calls this must afterwards
    /// look after those that did. What they push meanwhile ends up below.
    ///
    /// # Errors
    /// Gives the value back when nothing was stale and no place has come free.
    pub fn push_over(&self, value: u64, mut is_stale: impl FnMut(u64) -> bool) -> Result<(), u64> {
        // All nodes that we take off with one CAS are ours: to unlink, and to link again.
        let mut rest = self.values.take_all();
        let mut place = None;
        let mut kept: Option<(u32, u32)> = None;
        while rest != NONE {
            let index = rest;
            let node = self.node(index);
            // Relaxed, as the store below: nobody else writes these nodes.
            rest = node.next.load(Ordering::Relaxed);
            if is_stale(node.value.load(Ordering::Relaxed)) {
                match place {
                    None => place = Some(index),
                    Some(_) => self.free.put(&self.nodes, index, index),
                }
                continue;
            }
            if let Some((_, last)) = kept {
                self.node(last).next.store(index, Ordering::Relaxed);
            }
            kept = Some((kept.map_or(index, |(first, _)| first), index));
        }
        if let Some((first, last)) = kept {
            self.values.put(&self.nodes, first, last);
        }
        let Some(index) = place else {
            return self.push(value);
        };
        // Relaxed: as in `push`.
        self.node(index).value.store(value, Ordering::Relaxed);
        self.values.put(&self.nodes, index, index);
        Ok(())
    }

    /// Whether nothing is on the stack at this moment.
    #[cfg(any(test, loom, model, fuzzing))]
    pub fn is_empty(&self) -> bool {
        // Relaxed: a look. Callers that need an order put a fence before.
        Top::unpack(self.values.0.load(Ordering::Relaxed)).index == NONE
    }

    /// How many places there are.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.nodes.len()
    }

    #[inline]
    fn node(&self, index: u32) -> &Node {
        &self.nodes[index as usize]
    }
}

impl List {
    fn new(first: u32) -> Self {
        Self(AtomicU64::new(Top { tag: 0, index: first }.pack()))
    }

    /// Takes the first node off.
    #[inline]
    fn take(&self, nodes: &[Node]) -> Option<u32> {
        let mut bits = self.look();
        loop {
            let top = Top::unpack(bits);
            let node = nodes.get(top.index as usize)?;
            // Relaxed: we acquired what the last `put` of this node released. It is out of date
            // only if another thread has taken the node, and then the CAS fails.
            let next = node.next.load(Ordering::Relaxed);
            // Relaxed on success: the word is the one that we looked at, by its tag. Acquire on
            // failure: as in `look`.
            match self.0.compare_exchange_weak(
                bits,
                top.then(next).pack(),
                Ordering::Relaxed,
                Ordering::Acquire,
            ) {
                Ok(_) => return Some(top.index),
                Err(found) => bits = found,
            }
        }
    }

    /// Puts nodes on top that are linked from `first` to `last`.
    #[inline]
    fn put(&self, nodes: &[Node], first: u32, last: u32) {
        let mut bits = guess(&self.0);
        loop {
            let top = Top::unpack(bits);
            // Relaxed: published by the Release below.
            nodes[last as usize].next.store(top.index, Ordering::Relaxed);
            // Release: publishes the nodes to the Acquire of `take` and `take_all`, and all that
            // their owner did before to who takes them, also when other changes come between:
            // every change is an RMW, so they continue the release sequence.
            match self.0.compare_exchange_weak(
                bits,
                top.then(first).pack(),
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(found) => bits = found,
            }
        }
    }

    /// Takes all nodes off and gives the first, or [`NONE`].
    fn take_all(&self) -> u32 {
        let mut bits = guess(&self.0);
        loop {
            let top = Top::unpack(bits);
            if top.index == NONE {
                return NONE;
            }
            // Acquire: sees the nodes that `put` released.
            match self.0.compare_exchange_weak(
                bits,
                top.then(NONE).pack(),
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return top.index,
                Err(found) => bits = found,
            }
        }
    }

    /// [`guess`] for a CAS that depends on what the word points to.
    #[inline]
    fn look(&self) -> u64 {
        // Acquire: sees the `next` that `put` stored before its Release. A successor from before
        // would be swapped in, because the CAS compares this word only.
        look(&self.0)
    }
}

impl Top {
    /// The word as stored: the index in bits 0 to 31, the tag above.
    const fn pack(self) -> u64 {
        self.index as u64 | (self.tag as u64) << 32
    }

    const fn unpack(bits: u64) -> Self {
        Self { tag: (bits >> 32) as u32, index: bits as u32 }
    }

    /// The next value of the word.
    const fn then(self, index: u32) -> Self {
        Self { tag: self.tag.wrapping_add(1), index }
    }
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stack").field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn drained(stack: &Stack) -> Vec<u64> {
        core::iter::from_fn(|| stack.pop()).collect()
    }

    #[test]
    fn the_last_in_is_the_first_out_and_a_full_stack_gives_back() {
        let stack = Stack::new(3);
        assert_eq!((stack.capacity(), stack.is_empty(), stack.pop()), (3, true, None));
        for value in [u64::MAX, 0, 7] {
            stack.push(value).unwrap();
        }
        assert_eq!(stack.push(8), Err(8));
        assert_eq!(stack.pop(), Some(7));
        stack.push(9).unwrap();
        assert!(!stack.is_empty());
        assert_eq!(drained(&stack), [9, 0, u64::MAX]);
        assert!(stack.is_empty());
    }

    #[test]
    fn every_place_comes_back() {
        let stack = Stack::new(4);
        for round in 0..1_000_u64 {
            let depth = round % 5;
            for value in 0..depth {
                stack.push(value).unwrap();
            }
            assert_eq!(drained(&stack).len() as u64, depth);
        }
        assert_eq!((0..9).filter(|value| stack.push(*value).is_ok()).count(), 4);
    }

    #[test]
    fn a_stack_of_no_places_has_one() {
        let stack = Stack::new(0);
        stack.push(1).unwrap();
        assert_eq!(stack.push(2), Err(2));
    }

    #[test]
    fn the_tag_comes_round_and_the_index_stays_clear_of_it() {
        let top = Top { tag: u32::MAX, index: NONE };
        assert_eq!(Top::unpack(top.pack()), top);
        assert_eq!(top.then(5), Top { tag: 0, index: 5 });
    }

    #[test]
    fn stale_values_make_room_and_the_others_keep_their_order() {
        let odd = |value: u64| value % 2 == 1;
        let stack = Stack::new(6);
        for value in [1, 2, 3, 4, 5, 6] {
            stack.push(value).unwrap();
        }
        stack.push_over(8, odd).unwrap();
        // One place of the three went to the 8.
        stack.push(10).unwrap();
        stack.push(12).unwrap();
        assert_eq!(stack.push(14), Err(14));
        assert_eq!(drained(&stack), [12, 10, 8, 6, 4, 2]);
    }

    #[test]
    fn where_nothing_is_stale_nothing_goes() {
        let stack = Stack::new(2);
        stack.push_over(2, |_| true).unwrap();
        stack.push_over(4, |_| false).unwrap();
        assert_eq!(stack.push_over(6, |_| false), Err(6));
        assert_eq!(drained(&stack), [4, 2]);
        stack.push(1).unwrap();
        stack.push(3).unwrap();
        stack.push_over(5, |_| true).unwrap();
        assert_eq!(drained(&stack), [5]);
    }
}
