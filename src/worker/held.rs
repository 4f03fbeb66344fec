//! What a worker owes the engine, in a guard that a panic cannot lose.

use core::ops::Deref;
use std::thread;

use crate::{
    Connector,
    inner::{PoolDial, PoolPlace, Wreck},
};

/// A dial or a place in the hands of a worker.
///
/// Wherever it is when a panic unwinds, in a table or on the stack, it is left in its pool's wrecks,
/// and whoever takes the shard over gives it back to the engine. Dropped without a panic it is
/// gone: a dial by then was fulfilled or abandoned, which its ticket remembers.
#[derive(Debug)]
pub(super) struct Held<T: Owed>(Option<T>);

/// What the engine has to get back.
pub(super) trait Owed {
    /// Leaves it in its pool's wrecks.
    fn wreck(self);
}

/// Only its drop and `release`, which consume the guard, take it out.
const FULL: &str = "a guard is full until it is consumed";

impl<T: Owed> Held<T> {
    pub(super) fn new(owed: T) -> Self {
        Self(Some(owed))
    }

    /// Takes it out of the guard.
    pub(super) fn release(mut self) -> T {
        self.0.take().expect(FULL)
    }
}

impl<T: Owed> Deref for Held<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect(FULL)
    }
}

impl<T: Owed> Drop for Held<T> {
    fn drop(&mut self) {
        if thread::panicking()
            && let Some(owed) = self.0.take()
        {
            owed.wreck();
        }
    }
}

impl<C: Connector> Owed for PoolDial<C> {
    fn wreck(self) {
        let (shard, group) = (self.seat().shard(), self.seat().group().clone());
        group.key().inner().wrecks[shard.get()].push(Wreck::Dial(self));
    }
}

impl<C: Connector> Owed for PoolPlace<C> {
    fn wreck(self) {
        let (shard, group) = (self.seat().shard(), self.seat().group().clone());
        group.key().inner().wrecks[shard.get()].push(Wreck::Place(self));
    }
}
