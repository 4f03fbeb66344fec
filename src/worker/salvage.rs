//! A worker that panics: what becomes of its shard.
//!
//! The panic ends the worker and nothing else. Its driver is dropped whole, which closes the
//! descriptors that it alone knew (INV-4); what the worker owed the engine goes back; and a new
//! worker with a new driver takes over on the same thread and runtime, so that the proxy's own
//! tasks there go on.
//!
//! The first [`AT_ONCE`] panics of a row are answered by a new worker at once: most bugs take a
//! rare turn of events. More of them mean that it is not so rare, and then the shard is down for a
//! second, which doubles up to [`LONGEST`]: a loop of panics must not eat the core, and callers
//! are told clearly meanwhile. A worker that lasted for [`CALM`] ends the row.

use core::{any::Any, future::poll_fn, task::Poll, time::Duration};
use std::{
    collections::HashSet,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use tokio::{sync::mpsc, task::JoinSet};

use super::{Dialing, Job, Peers, Work, Worker, down::Down};
use crate::{
    Connector, DialError, DialErrorKind, Endpoint, PoolEvent,
    backend::Opened,
    clock,
    engine::{Failure, Moment, ShardId, SlotIndex},
    inner::{Inner, PoolDial, Wreck},
    numbers::ByNumber,
};

/// Panics in a row that a new worker follows at once.
const AT_ONCE: u32 = 5;
/// How long a worker lasts that ends a row of panics.
const CALM: Duration = Duration::from_secs(60);
/// How long the shard is down after the first panic too many, and how long at most.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(32);

/// What a panic leaves of a worker.
struct Remains<C: Connector> {
    inner: Arc<Inner<C>>,
    shard: ShardId,
    jobs: mpsc::UnboundedReceiver<Job>,
    work: ByNumber<SlotIndex, Work<C>>,
    /// They hold what they hold by guards of their own.
    chores: JoinSet<()>,
    peers: Peers<C>,
    random: fastrand::Rng,
}

impl<C: Connector> Worker<C> {
    /// Runs until the pool is gone and every connection of the shard is closed. `open` gives a new
    /// driver after a panic.
    pub(crate) async fn run(mut self, open: impl Fn() -> io::Result<Opened>) {
        let mut row = Row::default();
        loop {
            let began = clock::now();
            let panic = poll_fn(|cx| {
                // AssertUnwindSafe: of a worker that has panicked only the remains are used, which
                // change in single steps.
                match catch_unwind(AssertUnwindSafe(|| self.poll(cx))) {
                    Ok(polled) => polled.map(|()| None),
                    Err(panic) => Poll::Ready(Some(panic)),
                }
            });
            let Some(panic) = panic.await else {
                return;
            };
            let wait = row.another(clock::now() - began);
            match self.remains().recover(&*panic, wait, &open).await {
                Some(worker) => self = worker,
                None => return,
            }
        }
    }

    /// All else of it is dropped here: the driver with its descriptors, the tasks of its dials, and
    /// sockets that were on their way to somebody.
    fn remains(self) -> Remains<C> {
        let Self { inner, shard, jobs, work, chores, peers, random, .. } = self;
        Remains { inner, shard, jobs, work, chores, peers, random }
    }
}

impl<C: Connector> Remains<C> {
    /// Makes a new worker of it, after so long. `None` when the pool has ended meanwhile.
    async fn recover(
        mut self,
        panic: &(dyn Any + Send),
        wait: Duration,
        open: &impl Fn() -> io::Result<Opened>,
    ) -> Option<Worker<C>> {
        let (shard, message) = (self.shard, said(panic));
        let why = format!("the worker of shard {} panicked: {message}", shard.get());
        self.inner.note_panic(shard);
        quietly(|| {
            let shard = shard.get();
            tracing::error!(shard, %message, restart_in = ?wait, "the shard's worker panicked");
        });
        quietly(|| {
            let shard = shard.get();
            self.inner.tell(PoolEvent::ShardPanicked { shard, message, restart_in: wait });
        });
        // First, so that nobody who loses a dial is served by a connection without a watch.
        self.inner.engine.hang_up_all(shard, self.inner.clock(shard).advance());
        let mut work: Vec<_> = self.work.drain().collect();
        // In the same order in every run of a simulation.
        work.sort_unstable_by_key(|(slot, _)| *slot);
        for (slot, work) in work {
            self.peers.forget(slot);
            self.inner.settle(work, &why, &mut self.random);
        }
        self.inner.clear_wrecks(shard, &why, &mut self.random);
        let mut wait = (!wait.is_zero()).then_some(wait);
        loop {
            if let Some(wait) = wait {
                self.inner.note_driver(shard, "none", &why);
                let random = self.random.fork();
                let mut down = Down::new(Arc::clone(&self.inner), shard, &why, random);
                if down.stay(&mut self.jobs, clock::now() + wait).await {
                    return None;
                }
            }
            // Not through `quietly` for its own sake: a driver logs what it cannot have.
            match catch_unwind(AssertUnwindSafe(open)) {
                Ok(Ok(Opened { driver, reason })) => {
                    self.inner.note_driver(shard, driver.name(), &reason);
                    let Self { inner, shard, jobs, chores, mut peers, random, .. } = self;
                    // Without those that were closed while the shard was down.
                    let held: HashSet<SlotIndex> = inner.engine.connections(shard).collect();
                    peers.keep(&held);
                    let new = Worker::new(inner, shard, driver, jobs);
                    return Some(Worker { live: held.len(), chores, peers, random, ..new });
                }
                Ok(Err(error)) => quietly(|| {
                    let shard = shard.get();
                    tracing::error!(shard, %error, "no driver for the shard's new worker");
                }),
                Err(_) => {}
            }
            wait = Some(FIRST);
        }
    }
}

impl<C: Connector> Inner<C> {
    /// Gives back to the engine what a worker was busy with.
    fn settle(&self, work: Work<C>, why: &str, random: &mut fastrand::Rng) {
        match work {
            Work::Dialing(dialing) => {
                let Dialing { dial, began, adopter, .. } = *dialing;
                let cause = lost(dial.seat().group().key().endpoint(), why);
                if let Some(adopter) = adopter {
                    // Who does not wait any more does not care.
                    let _ = adopter.send(Err(cause.clone()));
                }
                let took = began.elapsed();
                quietly(|| self.tell(PoolEvent::DialFailed { error: &cause, took }));
                self.give_up(&dial, cause, random);
            }
            // Told already.
            Work::Rejecting { dial, cause } => self.give_up(&dial, cause, random),
            Work::Closing(place) => {
                let now = self.clock(place.seat().shard()).now();
                quietly(|| self.tell_closed(&place, now));
                self.engine.vacate(place.release(), now);
            }
        }
    }

    /// Gives back to the engine what the panic found on the worker's stack. What there was to tell
    /// of it was told, or was being told.
    pub(super) fn clear_wrecks(&self, shard: ShardId, why: &str, random: &mut fastrand::Rng) {
        while let Some(wreck) = self.wrecks[shard.get()].pop() {
            match wreck {
                Wreck::Dial(dial) => self.give_up_unbegun(&dial, why, random),
                Wreck::Place(place) => self.engine.vacate(place, self.clock(shard).now()),
            }
        }
    }

    /// Abandons a dial that may not have been begun: then the socket that it adopts waits still.
    pub(super) fn give_up_unbegun(
        &self,
        dial: &PoolDial<C>,
        why: &str,
        random: &mut fastrand::Rng,
    ) {
        let cause = lost(dial.seat().group().key().endpoint(), why);
        if dial.is_adoption()
            && let Some(adopted) = self.fetch(dial.seat().shard(), dial.index())
        {
            // Who does not wait any more does not care.
            let _ = adopted.done.send(Err(cause.clone()));
        }
        self.give_up(dial, cause, random);
    }

    /// Abandons a dial, unless it was over: no verdict on its endpoint.
    fn give_up(&self, dial: &PoolDial<C>, cause: DialError, random: &mut fastrand::Rng) {
        let now = self.clock(dial.seat().shard()).now();
        let moment = Moment { now, random: random.u32(..) };
        self.engine.abandon(dial, Failure::Local(cause), moment);
    }
}

/// What a dial's caller is told.
fn lost(endpoint: &Endpoint, why: &str) -> DialError {
    DialError::plain(endpoint.clone(), DialErrorKind::Backend, why.to_owned())
}

/// What a panic said, if it said anything.
pub(super) fn said(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&'static str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "it did not say why",
    }
}

/// Runs what is someone else's code, while a shard is set right: a second panic must not end that.
pub(super) fn quietly(act: impl FnOnce()) {
    // AssertUnwindSafe: the callers only tell and log here, or drop.
    let _ = catch_unwind(AssertUnwindSafe(act));
}

/// Panics in a row.
#[derive(Debug, Default)]
pub(super) struct Row(u32);

impl Row {
    /// One more, by a worker that lasted for so long: how long to wait before the next starts.
    pub(super) fn another(&mut self, lasted: Duration) -> Duration {
        self.0 = if lasted >= CALM { 1 } else { self.0.saturating_add(1) };
        match self.0.checked_sub(AT_ONCE + 1) {
            None => Duration::ZERO,
            Some(doublings) => LONGEST.min(FIRST * (1 << doublings.min(8))),
        }
    }
}
