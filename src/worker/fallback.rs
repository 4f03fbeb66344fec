//! What becomes of a shard whose ring fails under way.

use std::{io, sync::Arc};

use super::{Stage, Work, Worker};
use crate::{
    Connector, DialError, DialErrorKind,
    backend::{Driver, Event, Reactor},
    engine::SlotIndex,
};

impl<C: Connector> Worker<C> {
    /// The kernel interface failed under way, for instance by a seccomp filter that came late:
    /// the shard goes on with tokio's reactor. Dials under way fail. Open connections have lost
    /// their watch, so those at rest are closed, and those in use when they come back. `false`
    /// when there is no descriptor even for an epoll set: the next tick tries again.
    #[cold]
    pub(super) fn fall_back(&mut self, error: &io::Error) -> bool {
        let shard = self.shard.get();
        let conflicts = Arc::clone(self.inner.port_conflicts(self.shard));
        let slots = self.inner.settings.slots_per_shard;
        let next: io::Result<Box<dyn Driver>> = match self.driver.successor() {
            Some(driver) => Ok(driver),
            None => Reactor::new(slots, conflicts).map(|reactor| Box::new(reactor) as _),
        };
        let driver = match next {
            Ok(driver) => driver,
            Err(second) => {
                tracing::error!(shard, %error, %second, "the ring failed, and no reactor either");
                return false;
            }
        };
        tracing::error!(shard, %error, "the ring failed; the shard goes on with tokio's reactor");
        self.inner.engine.hang_up_all(self.shard, self.now());
        self.driver = driver;
        self.inner.note_driver(
            self.shard,
            self.driver.name(),
            &format!("the ring failed: {error}"),
        );
        self.events.clear();
        self.dials.clear();
        let mut busy: Vec<SlotIndex> = self.work.keys().copied().collect();
        // In the same order in every run of a simulation.
        busy.sort_unstable();
        for slot in busy {
            let error = io::Error::new(error.kind(), error.to_string());
            let cause = |endpoint| DialError::new(endpoint, DialErrorKind::Backend, error.into());
            match self.work.get_mut(&slot) {
                Some(Work::Dialing(dialing)) => match &mut dialing.stage {
                    Stage::Connecting(_) => self.fail(slot, cause),
                    Stage::Watched(_) => self.reject_watched(slot, cause),
                    // Its watch went with the ring.
                    Stage::Preparing(task) => {
                        self.task_slots.remove(&task.id());
                        task.abort();
                        self.reject(slot, None, cause);
                    }
                    Stage::Resolving(_) | Stage::Adopting => {}
                },
                Some(Work::Closing(_) | Work::Rejecting { .. }) => {
                    self.events.push_back(Event::Closed(slot));
                }
                None => {}
            }
        }
        true
    }
}
