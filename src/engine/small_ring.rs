//! A bounded FIFO of few words, in one piece: no pointer and no padding.
//!
//! A ring whose head and length are one word, and a mark beside each place that tells whether its
//! word is there. A push claims the place behind the last, puts its word there and then sets the
//! mark; a pop claims the first and clears its mark once it has the word. What sets it apart from
//! D. Vyukov's bounded queue, of which crossbeam's `ArrayQueue` is one: the pop that takes the last
//! word goes on to the next lap, so that a ring that never holds more than one uses one place, in
//! the cache line of the head.
//!
//! # ABA
//! Every change makes the word of the head larger, for 2^57 pops: of its 60 bits for the position a
//! pop uses up as many as `N`. So a claim succeeds only if nothing has changed since it looked at
//! the head and the mark.
//!
//! # Nobody waits
//! Who has claimed a place has yet to put its word there, or to take it out. Another that meets such
//! a place does not wait for it, as `ArrayQueue` would, but finds the ring empty or full. So a pop
//! may find nothing while a push that ended before stands behind one that has not. What that means
//! for callers in line is told in [`super::fifo`].

use core::{array, fmt};

use crate::sync::{AtomicBool, AtomicU64, Ordering, look};

/// A bounded multi-producer multi-consumer FIFO of `N` words, a power of two up to 8.
#[repr(C)]
pub struct SmallRing<const N: usize> {
    /// How many words there are in bits 0 to 3, the position of the first above.
    head: AtomicU64,
    /// Whether the word of a place is there.
    marks: [AtomicBool; N],
    words: [AtomicU64; N],
}

impl<const N: usize> SmallRing<N> {
    /// The head's bits that count the words.
    const LEN: u64 = (1 << Self::LEN_BITS) - 1;
    const LEN_BITS: u32 = 4;
    /// These, and the bits above them that name the place of the first word.
    const LAP: u64 = {
        assert!(N.is_power_of_two() && N <= 8);
        ((N as u64) << Self::LEN_BITS) - 1
    };

    /// Appends; gives the word back when there is no place for it, or the next is in the hands of a
    /// pop that is not over.
    #[inline(always)] // as for `Engine::take_from`
    pub fn push(&self, word: u64) -> Result<(), u64> {
        let claim = self.claim(false, |head| {
            let (first, len) = (head >> Self::LEN_BITS, head & Self::LEN);
            // One word more.
            (len < N as u64).then_some((first + len, head + 1))
        });
        let Some(place) = claim else {
            return Err(word);
        };
        // Relaxed: published by the Release below.
        self.words[place].store(word, Ordering::Relaxed);
        // Release: pairs with the Acquire in `claim` of the pop that reads the word.
        self.marks[place].store(true, Ordering::Release);
        Ok(())
    }

    /// Takes the oldest; nothing when the ring is empty, or the oldest is in the hands of a push
    /// that is not over.
    #[inline(always)] // as for `Engine::take_from`
    pub fn pop(&self) -> Option<u64> {
        // A look that may be out of date, as in the product: `look` never is.
        #[cfg(loom)]
        if self.is_empty() {
            return None;
        }
        let place = self.claim(true, |head| {
            let next = match head & Self::LEN {
                0 => return None,
                // The first place of the next lap, and no word.
                1 => (head | Self::LAP) + 1,
                // The next place, and one word less.
                _ => head + Self::LEN,
            };
            Some((head >> Self::LEN_BITS, next))
        })?;
        // Relaxed: ordered by the Acquire in `claim`.
        let word = self.words[place].load(Ordering::Relaxed);
        // Release: pairs with the Acquire in `claim` of the push that puts the next word there.
        self.marks[place].store(false, Ordering::Release);
        Some(word)
    }

    /// Whether nothing is queued at this moment.
    #[cfg(any(test, loom))]
    pub fn is_empty(&self) -> bool {
        // Relaxed: a snapshot.
        self.head.load(Ordering::Relaxed) & Self::LEN == 0
    }

    /// The place of the position that `step` names beside the next head, if its mark is as it
    /// should be.
    #[inline(always)] // as for `Engine::take_from`
    fn claim(&self, marked: bool, step: impl Fn(u64) -> Option<(u64, u64)>) -> Option<usize> {
        let mut head = look(&self.head);
        loop {
            let (position, next) = step(head)?;
            let place = position as usize % N;
            // Acquire: pairs with the Release of who had the place before.
            head = if self.marks[place].load(Ordering::Acquire) == marked {
                // Release, and Acquire in `look` and on failure: who claims the place next does not
                // see a mark from before the one that we have seen.
                match self.head.compare_exchange_weak(
                    head,
                    next,
                    Ordering::Release,
                    Ordering::Acquire,
                ) {
                    Ok(_) => return Some(place),
                    Err(found) => found,
                }
            } else {
                // It is in the hands of another, or has been since we looked at the head.
                match look(&self.head) {
                    found if found == head => return None,
                    found => found,
                }
            };
        }
    }
}

impl<const N: usize> Default for SmallRing<N> {
    /// An empty ring.
    fn default() -> Self {
        Self {
            head: AtomicU64::new(0),
            marks: array::from_fn(|_| AtomicBool::new(false)),
            words: array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl<const N: usize> fmt::Debug for SmallRing<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SmallRing").field("places", &N).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn words_come_out_in_order_on_every_lap() {
        let ring = SmallRing::<4>::default();
        let (mut put, mut taken) = (0, 0);
        // With the first at every place, and every number of words behind it.
        for round in 0..1_000_u64 {
            for _ in 0..(round * 5 + 3) % 6 {
                let room = put - taken < 4;
                assert_eq!(ring.push(put), if room { Ok(()) } else { Err(put) });
                put += u64::from(room);
            }
            for _ in 0..(round * 3 + 1) % 6 {
                let expected = (taken < put).then_some(taken);
                assert_eq!(ring.pop(), expected, "round {round}");
                taken += u64::from(expected.is_some());
            }
            assert_eq!(ring.is_empty(), taken == put);
        }
        assert!(put > 1_000);
    }

    #[test]
    fn a_ring_of_one_place_has_one() {
        let ring = SmallRing::<1>::default();
        for word in 0..9 {
            assert_eq!((ring.pop(), ring.push(word), ring.push(9)), (None, Ok(()), Err(9)));
            assert_eq!(ring.pop(), Some(word));
        }
    }

    #[test]
    fn a_word_alone_always_has_the_first_place() {
        let ring = SmallRing::<4>::default();
        (0..3).for_each(|word| ring.push(word).unwrap());
        (0..3).for_each(|word| assert_eq!(ring.pop(), Some(word)));
        for word in 3..20 {
            ring.push(word).unwrap();
            assert_eq!(ring.words[0].load(Ordering::Relaxed), word);
            assert_eq!(ring.pop(), Some(word));
        }
    }

    #[test]
    fn a_place_that_is_in_the_hands_of_another_is_not_waited_for() {
        let ring = SmallRing::<2>::default();
        ring.push(1).unwrap();
        ring.push(2).unwrap();
        // As a push that has claimed its place and goes no further leaves it.
        ring.marks[0].store(false, Ordering::Relaxed);
        assert_eq!((ring.pop(), ring.push(3)), (None, Err(3)));
        ring.marks[0].store(true, Ordering::Relaxed);
        assert_eq!(ring.pop(), Some(1));
        // And as a pop does.
        ring.marks[0].store(true, Ordering::Relaxed);
        assert_eq!(ring.push(3), Err(3));
        ring.marks[0].store(false, Ordering::Relaxed);
        assert_eq!((ring.push(3), ring.pop(), ring.pop()), (Ok(()), Some(2), Some(3)));
    }
}
