//! What a ring was asked and what it answered, for the tests of what is not asked.

use core::cell::RefCell;
use std::{collections::BTreeMap, rc::Rc};

use io_uring::squeue;

/// Counts of a ring's entries; clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally(Rc<RefCell<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    /// Entries pushed, by operation.
    pushed: BTreeMap<u8, usize>,
    completed: usize,
}

impl Tally {
    pub(super) fn pushed(&self, entries: &[squeue::Entry]) {
        let counts = &mut *self.0.borrow_mut();
        for entry in entries {
            *counts.pushed.entry(entry.get_opcode() as u8).or_default() += 1;
        }
    }

    pub(super) fn completed(&self) {
        self.0.borrow_mut().completed += 1;
    }

    /// How often an operation was asked for.
    pub(crate) fn of(&self, operation: u8) -> usize {
        self.0.borrow().pushed.get(&operation).copied().unwrap_or(0)
    }

    /// Entries without a completion: under way, or done without a word.
    pub(crate) fn silent(&self) -> usize {
        let counts = self.0.borrow();
        counts.pushed.values().sum::<usize>() - counts.completed
    }
}
