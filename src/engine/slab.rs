//! A shard's fixed table of slots.

use crossbeam_utils::CachePadded;

use super::{ring::Ring, slot::Slot, state::Generation};

/// Which slot of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotIndex(u32);

impl SlotIndex {
    /// How many bits an index has in a [`Hint`].
    pub const BITS: u32 = 24;
    /// The most slots a shard can have.
    pub const MAX: usize = 1 << Self::BITS;

    /// The index as a number.
    pub const fn get(self) -> usize {
        self.0 as usize
    }

    /// An index from a number below [`Self::MAX`].
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))] // the drivers with a watch use it
    pub const fn new(index: u32) -> Self {
        debug_assert!((index as usize) < Self::MAX, "a slot index has 24 bits");
        Self(index)
    }
}

/// What a lane's queue holds: a slot and the idle period meant. Only a hint: the slot's word is
/// the truth, and a hint whose period has passed is skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hint(u64);

impl Hint {
    /// The slot and the period in one word.
    pub const fn new(index: SlotIndex, period: Generation) -> Self {
        Self((index.0 as u64) << Generation::BITS | period.bits())
    }

    /// As a lane's queue holds it.
    #[inline]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// From such a word.
    #[inline]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Which slot.
    pub const fn index(self) -> SlotIndex {
        SlotIndex((self.0 >> Generation::BITS) as u32)
    }

    /// Which idle period of it.
    pub const fn period(self) -> Generation {
        Generation::from_bits(self.0)
    }
}

/// The slots of one shard and a ring of the vacant ones.
#[derive(Debug)]
pub struct Slab<T> {
    slots: Box<[CachePadded<Slot<T>>]>,
    vacant: Ring<SlotIndex>,
}

impl<T> Slab<T> {
    /// `capacity` vacant slots.
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.clamp(1, SlotIndex::MAX);
        let vacant = Ring::new(capacity);
        for index in 0..capacity as u32 {
            let pushed = vacant.push(SlotIndex(index));
            debug_assert!(pushed.is_ok(), "the ring has a place for every slot");
        }
        let slots = (0..capacity).map(|_| CachePadded::new(Slot::new())).collect();
        Self { slots, vacant }
    }

    /// How many slots there are.
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// The slot at an index that this slab gave out.
    #[inline]
    pub fn slot(&self, index: SlotIndex) -> &Slot<T> {
        &self.slots[index.get()]
    }

    /// Every slot with its index.
    pub fn iter(&self) -> impl Iterator<Item = (SlotIndex, &Slot<T>)> {
        (0u32..).map(SlotIndex).zip(self.slots.iter().map(|slot| &**slot))
    }

    /// Takes a vacant slot for a dial; `None` when the table is full.
    pub fn reserve(&self) -> Option<(SlotIndex, Generation)> {
        let index = self.vacant.pop()?;
        let ticket = self.slot(index).reserve();
        debug_assert!(ticket.is_some(), "an index in the vacant ring names a vacant slot");
        Some((index, ticket?))
    }

    /// Puts the index of a slot that has just turned vacant back.
    pub fn release(&self, index: SlotIndex) {
        let pushed = self.vacant.push(index);
        debug_assert!(pushed.is_ok(), "an index is in the vacant ring at most once");
    }
}
