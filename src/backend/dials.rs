//! Dials that are tasks of the shard's runtime, for drivers whose connect is a future.

use core::task::{Context, Poll};
use std::{collections::VecDeque, io};

use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

use super::{DialId, Event, Socket};
use crate::numbers::ByNumber;

/// The dials under way, each a task.
#[derive(Debug, Default)]
pub(super) struct Dials {
    tasks: JoinSet<io::Result<Socket>>,
    names: ByNumber<Id, DialId>,
    handles: ByNumber<DialId, AbortHandle>,
}

impl Dials {
    pub(super) fn start(
        &mut self,
        id: DialId,
        connect: impl Future<Output = io::Result<Socket>> + 'static,
    ) {
        let task = self.tasks.spawn_local(connect);
        self.names.insert(task.id(), id);
        self.handles.insert(id, task);
    }

    pub(super) fn give_up(&mut self, id: DialId) {
        if let Some(task) = self.handles.get(&id) {
            task.abort();
        }
    }

    pub(super) fn collect(&mut self, cx: &mut Context<'_>, events: &mut VecDeque<Event>) {
        while let Poll::Ready(Some(done)) = self.tasks.poll_join_next_with_id(cx) {
            let (task, result) = match done {
                Ok((task, result)) => (task, result),
                Err(error) => (error.id(), Err(failure(&error))),
            };
            if let Some(id) = self.names.remove(&task) {
                self.handles.remove(&id);
                events.push_back(Event::Dialed(id, result));
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
