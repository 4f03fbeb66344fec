//! Queues behind one facade: crossbeam's in the product and under shuttle, their loom-aware sibling
//! in the models.
//!
//! crossbeam's queues use `core`'s atomics under every cfg, so inside a model real races pass and
//! false ones appear. `concurrent-queue` has the same bounded ring by the same author and follows
//! loom. Only these two wrappers differ between the builds.
//!
//! Under loom and shuttle each call begins with a [`crate::sync::guess`] of a word of the queue's
//! own. The queue's plain loads before its CASes would hide from loom that two calls race. shuttle
//! does not see into crossbeam's queues: to it a call is one step, and before that others may run.

use core::fmt;

/// A bounded multi-producer multi-consumer FIFO.
pub struct Ring<V> {
    #[cfg(not(loom))]
    queue: crossbeam_queue::ArrayQueue<V>,
    #[cfg(loom)]
    queue: concurrent_queue::ConcurrentQueue<V>,
    #[cfg(any(loom, shuttle))]
    calls: crate::sync::AtomicU64,
}

impl<V> Ring<V> {
    /// A ring of at least one place.
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        Self {
            #[cfg(not(loom))]
            queue: crossbeam_queue::ArrayQueue::new(capacity),
            #[cfg(loom)]
            queue: concurrent_queue::ConcurrentQueue::bounded(capacity),
            #[cfg(any(loom, shuttle))]
            calls: crate::sync::AtomicU64::new(0),
        }
    }

    /// Appends; gives the value back when the ring is full.
    #[inline]
    pub fn push(&self, value: V) -> Result<(), V> {
        #[cfg(any(loom, shuttle))]
        crate::sync::guess(&self.calls);
        #[cfg(not(loom))]
        return self.queue.push(value);
        #[cfg(loom)]
        return self.queue.push(value).map_err(|e| e.into_inner());
    }

    /// Takes the oldest.
    #[inline]
    pub fn pop(&self) -> Option<V> {
        #[cfg(any(loom, shuttle))]
        crate::sync::guess(&self.calls);
        #[cfg(not(loom))]
        return self.queue.pop();
        #[cfg(loom)]
        return self.queue.pop().ok();
    }

    /// Whether nothing is queued at this moment.
    #[inline]
    pub fn is_empty(&self) -> bool {
        #[cfg(any(loom, shuttle))]
        crate::sync::guess(&self.calls);
        self.queue.is_empty()
    }

    /// How many places there are.
    #[inline]
    pub fn capacity(&self) -> usize {
        #[cfg(not(loom))]
        return self.queue.capacity();
        #[cfg(loom)]
        return self.queue.capacity().unwrap_or(usize::MAX);
    }
}

impl<V> fmt::Debug for Ring<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}

/// A multi-producer multi-consumer FIFO without a bound of its own: each user states what bounds
/// it. Costs no memory while empty.
pub struct Inbox<V> {
    #[cfg(not(loom))]
    queue: crossbeam_queue::SegQueue<V>,
    #[cfg(loom)]
    queue: concurrent_queue::ConcurrentQueue<V>,
    #[cfg(any(loom, shuttle))]
    calls: crate::sync::AtomicU64,
}

impl<V> Inbox<V> {
    /// An empty inbox.
    pub fn new() -> Self {
        Self {
            #[cfg(not(loom))]
            queue: crossbeam_queue::SegQueue::new(),
            // Bounded under the model, where every queue is small: the unbounded one allocates
            // blocks of 31, which only adds steps.
            #[cfg(loom)]
            queue: concurrent_queue::ConcurrentQueue::bounded(8),
            #[cfg(any(loom, shuttle))]
            calls: crate::sync::AtomicU64::new(0),
        }
    }

    /// Appends.
    #[inline]
    pub fn push(&self, value: V) {
        #[cfg(any(loom, shuttle))]
        crate::sync::guess(&self.calls);
        #[cfg(not(loom))]
        self.queue.push(value);
        #[cfg(loom)]
        assert!(self.queue.push(value).is_ok(), "a model queues more than 8");
    }

    /// Takes the oldest.
    #[inline]
    pub fn pop(&self) -> Option<V> {
        #[cfg(any(loom, shuttle))]
        crate::sync::guess(&self.calls);
        #[cfg(not(loom))]
        return self.queue.pop();
        #[cfg(loom)]
        return self.queue.pop().ok();
    }

    /// Whether nothing is queued at this moment.
    #[inline]
    pub fn is_empty(&self) -> bool {
        #[cfg(any(loom, shuttle))]
        crate::sync::guess(&self.calls);
        self.queue.is_empty()
    }
}

impl<V> Default for Inbox<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V> fmt::Debug for Inbox<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").field("is_empty", &self.is_empty()).finish_non_exhaustive()
    }
}

/// A place for one value, which one puts there and one takes: a word, and the value in a box.
///
/// In the models a ring of one place stands for it, which loom sees into.
pub struct Letter<V> {
    #[cfg(not(loom))]
    value: crossbeam_utils::atomic::AtomicCell<Option<Box<V>>>,
    #[cfg(loom)]
    value: Ring<V>,
    #[cfg(shuttle)]
    calls: crate::sync::AtomicU64,
}

impl<V> Letter<V> {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            #[cfg(not(loom))]
            value: crossbeam_utils::atomic::AtomicCell::new(None),
            #[cfg(loom)]
            value: Ring::new(1),
            #[cfg(shuttle)]
            calls: crate::sync::AtomicU64::new(0),
        }
    }

    /// Puts a value there; if there was one, one of the two comes back.
    #[inline]
    pub fn put(&self, value: V) -> Result<(), V> {
        #[cfg(shuttle)]
        crate::sync::guess(&self.calls);
        #[cfg(not(loom))]
        return match self.value.swap(Some(Box::new(value))) {
            None => Ok(()),
            Some(before) => Err(*before),
        };
        #[cfg(loom)]
        return self.value.push(value);
    }

    /// Takes what is there.
    #[inline]
    pub fn take(&self) -> Option<V> {
        #[cfg(shuttle)]
        crate::sync::guess(&self.calls);
        #[cfg(not(loom))]
        return self.value.take().map(|value| *value);
        #[cfg(loom)]
        return self.value.pop();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_one_value_in_one_word() {
        let letter = Letter::new();
        assert_eq!((letter.take(), letter.put('a'), letter.put('b')), (None, Ok(()), Err('a')));
        assert_eq!((letter.take(), letter.take()), (Some('b'), None));
        assert!(crossbeam_utils::atomic::AtomicCell::<Option<Box<char>>>::is_lock_free());
        assert_eq!(
            size_of::<Letter<[u64; 9]>>(),
            if cfg!(shuttle) { 16 } else { size_of::<usize>() }
        );
    }

    #[test]
    fn a_ring_is_in_order_and_knows_its_bounds() {
        let ring = Ring::new(2);
        assert!(ring.is_empty());
        assert_eq!((ring.push('a'), ring.push('b'), ring.push('c')), (Ok(()), Ok(()), Err('c')));
        assert!(!ring.is_empty());
        assert_eq!((ring.pop(), ring.pop(), ring.pop()), (Some('a'), Some('b'), None));
        assert!(ring.is_empty());
        assert_eq!((Ring::<char>::new(0).capacity(), ring.capacity()), (1, 2));
    }
}
