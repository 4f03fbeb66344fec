//! A shard's worker: the one task that carries out the engine's duties by the driver.
//!
//! It runs on the shard's thread beside the proxy's own tasks. A checkout that misses there
//! leaves a duty and wakes it; it runs when the scheduler comes round, so that all misses of one
//! pass become one batch.

use core::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    io,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use tokio::{
    sync::mpsc,
    task::{AbortHandle, Id, JoinError, JoinSet},
    time::{Instant, Sleep},
};

use crate::{
    BoxError, Connection, Connector, DialError, DialErrorKind, Socket,
    backend::{Driver, Event, Reactor},
    clock::{self, RESOLUTION},
    engine::{Doomed, Duty, Place, Reservation, ShardId, SlotIndex},
    pool::{Inner, Key},
};

/// A closure that another thread wants run on the shard's.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

type Dial<C> = Reservation<<C as Connector>::Connection, DialError, Key<C>>;

pub(crate) struct Worker<C: Connector> {
    inner: Arc<Inner<C>>,
    shard: ShardId,
    driver: Box<dyn Driver>,
    jobs: mpsc::UnboundedReceiver<Job>,
    /// What each slot that is not vacant or idle waits for.
    work: HashMap<SlotIndex, Work<C>>,
    /// Slots with a connection of ours, in whatever state.
    live: usize,
    deadlines: BTreeSet<(Instant, SlotIndex)>,
    tasks: JoinSet<Step<C>>,
    task_slots: HashMap<Id, SlotIndex>,
    events: VecDeque<Event>,
    timer: Pin<Box<Sleep>>,
    next_sweep: Instant,
}

/// What there is to close of a connection, which is someone else's code: a panic in it, or in its
/// drop, must not end the shard.
fn into_socket<T: Connection>(connection: T) -> Option<Socket> {
    let given = catch_unwind(AssertUnwindSafe(|| connection.into_socket()));
    given.unwrap_or_else(|_| {
        tracing::error!("a connection panicked while it was closed");
        None
    })
}

/// A slot that the worker is busy with.
enum Work<C: Connector> {
    Dialing {
        dial: Dial<C>,
        deadline: Instant,
        stage: Stage,
    },
    Closing(Place<C::Connection, DialError, Key<C>>),
    /// A connection that came too late or dead: closed before its dial is abandoned.
    Rejecting {
        dial: Dial<C>,
        cause: DialError,
    },
}

/// How far a dial has come.
enum Stage {
    /// A task resolves the name.
    Resolving(AbortHandle),
    /// The driver connects, until then at the most; these addresses are left to try.
    Connecting { left: VecDeque<SocketAddr>, until: Instant },
    /// A task runs the connector.
    Preparing(AbortHandle),
}

/// What a task of a dial produced.
enum Step<C: Connector> {
    Resolved(io::Result<Vec<SocketAddr>>),
    Prepared(Result<C::Connection, BoxError>),
}

/// Turns of one poll before the other tasks of the thread get theirs.
const TURNS: usize = 32;
/// The sweep's period: how late an idle timeout may be noticed.
const SWEEP: Duration = Duration::from_millis(250);

impl<C: Connector> Worker<C> {
    pub(crate) fn new(
        inner: Arc<Inner<C>>,
        shard: ShardId,
        driver: Box<dyn Driver>,
        jobs: mpsc::UnboundedReceiver<Job>,
    ) -> Self {
        let now = clock::now();
        Self {
            inner,
            shard,
            driver,
            jobs,
            work: HashMap::new(),
            live: 0,
            deadlines: BTreeSet::new(),
            tasks: JoinSet::new(),
            task_slots: HashMap::new(),
            events: VecDeque::new(),
            timer: Box::pin(tokio::time::sleep_until(now)),
            next_sweep: now,
        }
    }

    /// Runs until the pool is gone and every connection of the shard is closed.
    pub(crate) async fn run(mut self) {
        core::future::poll_fn(|cx| self.poll(cx)).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.inner.engine.register_driver(self.shard, cx.waker());
        for _ in 0..TURNS {
            self.inner.clock(self.shard).advance();
            while let Poll::Ready(Some(job)) = self.jobs.poll_recv(cx) {
                job();
            }
            while let Some(duty) = self.inner.engine.next_duty(self.shard) {
                self.take_on(duty);
            }
            while let Poll::Ready(Some(done)) = self.tasks.poll_join_next_with_id(cx) {
                self.on_step(done);
            }
            while let Some(event) = self.events.pop_front() {
                self.on_event(event);
            }
            self.fire_deadlines();
            // Last, so that what the steps above asked for is submitted before other tasks run:
            // a connector must not get a socket whose watch is still in the queue.
            match self.driver.turn(cx, &mut self.events) {
                Ok(Poll::Ready(())) => {}
                Ok(Poll::Pending) => return self.rest(cx),
                Err(error) if !self.fall_back(&error) => return self.rest(cx),
                Err(_) => {}
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Nothing to do but wait: for the driver, a duty, a job, or the timer.
    fn rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.live == 0 {
            self.inner.note_empty();
            if self.inner.is_abandoned() && self.inner.engine.slots_in_use(self.shard) == 0 {
                return Poll::Ready(());
            }
            // No connection, no timer: an unused pool sleeps.
            return Poll::Pending;
        }
        // What other tasks gave us while the driver worked has woken us already.
        let tick = clock::now() + RESOLUTION;
        let next = self.deadlines.first().map_or(tick, |(deadline, _)| tick.min(*deadline));
        self.timer.as_mut().reset(next);
        if self.timer.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn fire_deadlines(&mut self) {
        let now = clock::now();
        while let Some(&(deadline, slot)) = self.deadlines.first() {
            if deadline > now {
                break;
            }
            self.deadlines.pop_first();
            self.time_out(slot);
        }
        if now >= self.next_sweep {
            self.next_sweep = now + SWEEP;
            self.inner.engine.sweep(self.shard, self.inner.clock(self.shard).now());
        }
    }

    fn take_on(&mut self, duty: Duty<C::Connection, DialError, Key<C>>) {
        match duty {
            Duty::Dial(dial) => self.start(dial),
            Duty::Close(Doomed { conn, place }) => {
                let slot = place.index();
                self.driver.close(slot, conn.and_then(into_socket));
                self.work.insert(slot, Work::Closing(place));
            }
        }
    }

    fn start(&mut self, dial: Dial<C>) {
        self.live += 1;
        let slot = dial.index();
        let deadline = clock::now() + self.inner.config.connect_timeout;
        self.deadlines.insert((deadline, slot));
        let endpoint = dial.seat().group().key().endpoint();
        let stage = match endpoint.as_ip() {
            Some(address) => {
                self.driver.dial(slot, address);
                Stage::Connecting { left: VecDeque::new(), until: deadline }
            }
            None => {
                let endpoint = endpoint.clone();
                Stage::Resolving(
                    self.spawn(slot, async move { Step::Resolved(endpoint.resolve().await) }),
                )
            }
        };
        self.work.insert(slot, Work::Dialing { dial, deadline, stage });
    }

    fn spawn(
        &mut self,
        slot: SlotIndex,
        step: impl Future<Output = Step<C>> + 'static,
    ) -> AbortHandle {
        let task = self.tasks.spawn_local(step);
        self.task_slots.insert(task.id(), slot);
        task
    }

    /// The connect timeout of a dial has come.
    fn time_out(&mut self, slot: SlotIndex) {
        let Some(Work::Dialing { stage, .. }) = self.work.get(&slot) else {
            return;
        };
        match stage {
            // The kernel may have connected meanwhile: its answer decides. Otherwise the next
            // address is tried, if there is one.
            Stage::Connecting { .. } => self.driver.give_up(slot),
            Stage::Resolving(task) => {
                self.task_slots.remove(&task.id());
                task.abort();
                self.fail(slot, DialError::timed_out);
            }
            Stage::Preparing(task) => {
                self.task_slots.remove(&task.id());
                task.abort();
                // The task owns the socket and closes it when it is dropped; only the watch is
                // left to end.
                self.reject(slot, None, DialError::timed_out);
            }
        }
    }

    /// A dial that holds no socket has failed.
    fn fail(
        &mut self,
        slot: SlotIndex,
        cause: impl FnOnce(crate::Endpoint, Duration) -> DialError,
    ) {
        if let Some((dial, cause)) = self.end_dial(slot, cause) {
            self.abandon(dial, cause);
        }
    }

    /// A dial whose socket is watched has failed: the watch ends and the socket closes first.
    fn reject(
        &mut self,
        slot: SlotIndex,
        conn: Option<C::Connection>,
        cause: impl FnOnce(crate::Endpoint, Duration) -> DialError,
    ) {
        let Some((dial, cause)) = self.end_dial(slot, cause) else {
            return;
        };
        self.driver.close(slot, conn.and_then(into_socket));
        self.work.insert(slot, Work::Rejecting { dial, cause });
    }

    /// Takes a dial and its deadline off the books, with what is to be told of it.
    fn end_dial(
        &mut self,
        slot: SlotIndex,
        cause: impl FnOnce(crate::Endpoint, Duration) -> DialError,
    ) -> Option<(Dial<C>, DialError)> {
        let Some(Work::Dialing { dial, deadline, .. }) = self.work.remove(&slot) else {
            return None;
        };
        self.deadlines.remove(&(deadline, slot));
        let endpoint = dial.seat().group().key().endpoint().clone();
        let cause = cause(endpoint, self.inner.config.connect_timeout);
        Some((dial, cause))
    }

    fn abandon(&mut self, dial: Dial<C>, cause: DialError) {
        self.live -= 1;
        tracing::debug!(error = %cause, "a dial failed");
        self.inner.engine.abandon(&dial, Some(cause));
    }

    fn on_step(&mut self, done: Result<(Id, Step<C>), JoinError>) {
        let (id, step) = match done {
            Ok((id, step)) => (id, Ok(step)),
            Err(error) => (error.id(), Err(error)),
        };
        // A task that was timed out is not in the table any more.
        let Some(slot) = self.task_slots.remove(&id) else {
            return;
        };
        match step {
            Ok(Step::Resolved(Ok(addresses))) => self.connect_next(slot, addresses.into(), None),
            Ok(Step::Resolved(Err(error))) => self.fail(slot, |endpoint, _| {
                DialError::new(endpoint, DialErrorKind::Resolve, error.into())
            }),
            Ok(Step::Prepared(Ok(connection))) => self.deliver(slot, connection),
            Ok(Step::Prepared(Err(error))) => self.reject(slot, None, |endpoint, _| {
                DialError::new(endpoint, DialErrorKind::Connector, error)
            }),
            Err(error) => self.reject(slot, None, |endpoint, _| {
                DialError::new(endpoint, DialErrorKind::Connector, error.into())
            }),
        }
    }

    /// Dials the next address of a name; without one, the dial has failed for the last reason.
    fn connect_next(
        &mut self,
        slot: SlotIndex,
        mut left: VecDeque<SocketAddr>,
        last: Option<io::Error>,
    ) {
        let Some(address) = left.pop_front() else {
            return self.fail(slot, |endpoint, timeout| match last {
                Some(error) if error.kind() == io::ErrorKind::TimedOut => {
                    DialError::timed_out(endpoint, timeout)
                }
                Some(error) => DialError::io(endpoint, error),
                None => DialError::plain(
                    endpoint,
                    DialErrorKind::Resolve,
                    "the name has no address".to_owned(),
                ),
            });
        };
        if let Some(Work::Dialing { stage, deadline, .. }) = self.work.get_mut(&slot) {
            // An address that never answers must leave time for those behind it.
            let now = clock::now();
            let share = deadline.saturating_duration_since(now) / (left.len() as u32 + 1);
            let until = if left.is_empty() { *deadline } else { now + share };
            *stage = Stage::Connecting { left, until };
            self.deadlines.insert((until, slot));
            self.driver.dial(slot, address);
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Dialed(slot, Ok(socket)) => self.prepare(slot, socket),
            Event::Dialed(slot, Err(error)) => {
                let Some(Work::Dialing { stage: Stage::Connecting { left, until }, .. }) =
                    self.work.get_mut(&slot)
                else {
                    return;
                };
                let left = core::mem::take(left);
                self.deadlines.remove(&(*until, slot));
                self.connect_next(slot, left, Some(error));
            }
            Event::HungUp(slot) => self.inner.engine.hang_up(self.shard, slot),
            Event::Closed(slot) => match self.work.remove(&slot) {
                Some(Work::Closing(place)) => {
                    self.live -= 1;
                    self.inner.engine.vacate(place);
                }
                Some(Work::Rejecting { dial, cause }) => self.abandon(dial, cause),
                Some(work @ Work::Dialing { .. }) => {
                    debug_assert!(false, "a dial holds nothing to be closed");
                    self.work.insert(slot, work);
                }
                None => debug_assert!(false, "only what was closed is reported closed"),
            },
        }
    }

    /// Watches a fresh socket and lets the connector make it ready.
    ///
    /// The watch comes first: the connector may hand the descriptor to a task that closes it, and
    /// then its number could name another socket. The task runs after this turn, and the turn
    /// submits the watch.
    fn prepare(&mut self, slot: SlotIndex, socket: Socket) {
        let Some(Work::Dialing { dial, deadline, stage }) = self.work.get(&slot) else {
            debug_assert!(false, "a socket without a dial");
            return;
        };
        if let Stage::Connecting { until, .. } = stage {
            self.deadlines.remove(&(*until, slot));
        }
        // Also when it has fired already: the connector may be no faster than the dial.
        self.deadlines.insert((*deadline, slot));
        self.driver.watch(slot, &socket);
        let endpoint = dial.seat().group().key().endpoint().clone();
        let inner = Arc::clone(&self.inner);
        let task = self.spawn(slot, async move {
            Step::Prepared(inner.connector.connect(socket, &endpoint).await)
        });
        if let Some(Work::Dialing { stage, .. }) = self.work.get_mut(&slot) {
            *stage = Stage::Preparing(task);
        }
    }

    /// Hands a ready connection to the engine.
    fn deliver(&mut self, slot: SlotIndex, connection: C::Connection) {
        let Some(Work::Dialing { dial, deadline, .. }) = self.work.get(&slot) else {
            return;
        };
        let deadline = *deadline;
        let now = self.inner.clock(self.shard).now();
        match self.inner.engine.fulfil(dial, connection, now) {
            Ok(()) => {
                self.deadlines.remove(&(deadline, slot));
                self.work.remove(&slot);
            }
            Err(connection) => self.reject(slot, Some(connection), |endpoint, _| {
                DialError::plain(
                    endpoint,
                    DialErrorKind::PeerClosed,
                    "it closed the connection before its first use".to_owned(),
                )
            }),
        }
    }

    /// The kernel interface failed under way, for instance by a seccomp filter that came late:
    /// the shard goes on with tokio's reactor. Dials under way fail. Open connections have lost
    /// their watch, so those at rest are closed, and those in use when they come back. `false`
    /// when there is no descriptor even for an epoll set: the next tick tries again.
    #[cold]
    fn fall_back(&mut self, error: &io::Error) -> bool {
        let shard = self.shard.get();
        let reactor = match Reactor::new(self.inner.config.slots_per_shard) {
            Ok(reactor) => reactor,
            Err(second) => {
                tracing::error!(shard, %error, %second, "the ring failed, and no reactor either");
                return false;
            }
        };
        tracing::error!(shard, %error, "the ring failed; the shard goes on with tokio's reactor");
        self.inner.engine.hang_up_all(self.shard);
        self.driver = Box::new(reactor);
        self.inner.note_driver(
            self.shard,
            self.driver.name(),
            &format!("the ring failed: {error}"),
        );
        self.events.clear();
        let busy: Vec<SlotIndex> = self.work.keys().copied().collect();
        for slot in busy {
            let error = io::Error::new(error.kind(), error.to_string());
            let cause =
                |endpoint, _| DialError::new(endpoint, DialErrorKind::Backend, error.into());
            match self.work.get(&slot) {
                Some(Work::Dialing { stage: Stage::Connecting { .. }, .. }) => {
                    self.fail(slot, cause);
                }
                // Its watch went with the ring.
                Some(Work::Dialing { stage: Stage::Preparing(task), .. }) => {
                    self.task_slots.remove(&task.id());
                    task.abort();
                    self.reject(slot, None, cause);
                }
                Some(Work::Closing(_) | Work::Rejecting { .. }) => {
                    self.events.push_back(Event::Closed(slot));
                }
                _ => {}
            }
        }
        true
    }
}
