//! Dials that are tasks of the shard's runtime, for drivers whose connect is a future.

use core::task::{Context, Poll};
use std::{
    collections::{HashMap, VecDeque},
    io,
};

use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

use super::{Event, Socket};
use crate::engine::SlotIndex;

/// The dials under way, each a task.
#[derive(Debug, Default)]
pub(super) struct Dials {
    tasks: JoinSet<io::Result<Socket>>,
    slots: HashMap<Id, SlotIndex>,
    by_slot: HashMap<SlotIndex, AbortHandle>,
}

impl Dials {
    pub(super) fn start(
        &mut self,
        slot: SlotIndex,
        connect: impl Future<Output = io::Result<Socket>> + 'static,
    ) {
        let task = self.tasks.spawn_local(connect);
        self.slots.insert(task.id(), slot);
        self.by_slot.insert(slot, task);
    }

    pub(super) fn give_up(&mut self, slot: SlotIndex) {
        if let Some(task) = self.by_slot.get(&slot) {
            task.abort();
        }
    }

    pub(super) fn collect(&mut self, cx: &mut Context<'_>, events: &mut VecDeque<Event>) {
        while let Poll::Ready(Some(done)) = self.tasks.poll_join_next_with_id(cx) {
            let (id, result) = match done {
                Ok((id, result)) => (id, result),
                Err(error) => (error.id(), Err(failure(&error))),
            };
            if let Some(slot) = self.slots.remove(&id) {
                self.by_slot.remove(&slot);
                events.push_back(Event::Dialed(slot, result));
            }
        }
    }
}

fn failure(error: &JoinError) -> io::Error {
    if error.is_cancelled() {
        return io::ErrorKind::TimedOut.into();
    }
    io::Error::other(error.to_string())
}
