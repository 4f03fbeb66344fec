//! A shard's worker: the one task that carries out the engine's duties by the driver.
//!
//! It runs on the shard's thread beside the proxy's own tasks. A checkout that misses there
//! leaves a duty and wakes it; it runs when the scheduler comes round, so that all misses of one
//! pass become one batch.

mod attempts;
mod dial;
mod down;
mod fallback;
mod held;
mod names;
mod salvage;
mod tend;
#[cfg(test)]
mod tests;

use core::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use std::{
    collections::{BTreeSet, VecDeque},
    io,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use tokio::{
    sync::{mpsc, oneshot},
    task::{AbortHandle, Id, JoinSet},
    time::{Instant, Sleep},
};

pub(crate) use self::down::bury;
use self::{attempts::Attempts, held::Held, names::Peers};
use crate::{
    BoxError, BreakerState, CloseReason, Connection, Connector, DialError, PoolEvent, Socket,
    backend::{Departure, DialId, Driver, Ending, Event},
    clock::{self, RESOLUTION, Tick},
    engine::{Change, Doomed, Duty, Moment, Place, ShardId, SlotIndex},
    inner::{Inner, PoolDial, PoolPlace, PoolSeat},
    numbers::ByNumber,
    policy::{Policy, millis},
    seats::Key,
};

/// A closure that another thread wants run on the shard's.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

type Dial<C> = Held<PoolDial<C>>;

pub(crate) struct Worker<C: Connector> {
    inner: Arc<Inner<C>>,
    shard: ShardId,
    driver: Box<dyn Driver>,
    jobs: mpsc::UnboundedReceiver<Job>,
    /// What each slot that is not vacant or idle waits for.
    work: ByNumber<SlotIndex, Work<C>>,
    /// The slot that each dial under way is for; none for one that lost to another of its slot.
    dials: ByNumber<DialId, Option<SlotIndex>>,
    last_dial: DialId,
    /// Slots with a connection of ours, in whatever state.
    live: usize,
    /// When to look at the dial of a slot next, one time for each.
    timers: BTreeSet<(Instant, SlotIndex)>,
    tasks: JoinSet<Step<C>>,
    task_slots: ByNumber<Id, SlotIndex>,
    events: VecDeque<Event>,
    /// Slots with a socket whose watch the next turn submits.
    watching: VecDeque<SlotIndex>,
    /// Slots with a socket that is watched, for the connector.
    watched: VecDeque<SlotIndex>,
    /// When the current round began. A dial has its times from here: a reading of the clock for
    /// each of its steps would cost more than it tells.
    time: Instant,
    timer: Pin<Box<Sleep>>,
    next_sweep: Instant,
    /// Pings and look-ups under way. Whatever becomes of one, what it holds comes back.
    chores: JoinSet<()>,
    /// The connections whose group or peer the shard has to know.
    peers: Peers<C>,
    random: fastrand::Rng,
    /// The closes of groups that it has followed.
    closes: u32,
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
    Dialing(Box<Dialing<C>>),
    Closing(Held<PoolPlace<C>>),
    /// A connection that came too late or dead: closed before its dial is abandoned.
    Rejecting {
        dial: Dial<C>,
        cause: DialError,
    },
}

/// A dial under way.
struct Dialing<C: Connector> {
    dial: Dial<C>,
    policy: Arc<Policy>,
    began: Instant,
    /// When all of it has to be done.
    deadline: Instant,
    /// Its entry in the worker's timers.
    timer: Option<Instant>,
    stage: Stage,
    /// Where it came to, of the addresses of a name.
    peer: Option<SocketAddr>,
    /// Whether the driver watches the socket from its connect on.
    watched: bool,
    /// Who waits to hear of an adoption.
    adopter: Option<oneshot::Sender<Result<(), DialError>>>,
}

/// How far a dial has come.
enum Stage {
    /// A task resolves the name.
    Resolving(AbortHandle),
    /// The driver connects.
    Connecting(Attempts),
    /// There is a socket, which is watched or about to be.
    Watched(Socket),
    /// A task runs the connector.
    Preparing(AbortHandle),
    /// There is a socket, and who holds it is about to say so.
    Adopting,
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
            work: ByNumber::default(),
            dials: ByNumber::default(),
            last_dial: DialId(0),
            live: 0,
            timers: BTreeSet::new(),
            tasks: JoinSet::new(),
            task_slots: ByNumber::default(),
            events: VecDeque::new(),
            watching: VecDeque::new(),
            watched: VecDeque::new(),
            time: now,
            timer: Box::pin(tokio::time::sleep_until(now)),
            next_sweep: now,
            chores: JoinSet::new(),
            peers: Peers::default(),
            random: fastrand::Rng::new(),
            closes: 0,
        }
    }

    /// Takes its chance from a seed, for simulations.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn seed(&mut self, seed: u64) {
        self.random = fastrand::Rng::with_seed(seed);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.inner.engine.register_driver(self.shard, cx.waker());
        self.inner.note_asleep(self.shard, false);
        // Once: what comes in later wakes us.
        while let Poll::Ready(Some(job)) = self.jobs.poll_recv(cx) {
            job();
        }
        for _ in 0..TURNS {
            self.time = clock::now();
            self.inner.clock(self.shard).advance_to(self.time);
            while let Some(duty) = self.inner.engine.next_duty(self.shard) {
                self.take_on(duty);
            }
            while let Some(event) = self.events.pop_front() {
                self.on_event(event);
            }
            // After the events, one of which may be that its peer is gone already.
            self.hand_over();
            // After all that spawn tasks: a set that is empty when it is polled takes no waker.
            while let Poll::Ready(Some(done)) = self.tasks.poll_join_next_with_id(cx) {
                self.on_step(done);
            }
            if self.inner.closes() != self.closes {
                self.give_up_closed();
            }
            self.fire_timers();
            // Last, so that what the steps above asked for is submitted before other tasks run:
            // a connector must not get a socket whose watch is still in the queue.
            let turn = self.driver.turn(cx, &mut self.events);
            while let Some(slot) = self.watching.pop_front() {
                self.watched.push_back(slot);
            }
            match turn {
                Ok(Poll::Ready(())) => {}
                Ok(Poll::Pending) if !self.watched.is_empty() => {}
                // A set of tasks that is empty notes no waker, and it may have been when it was
                // asked above.
                Ok(Poll::Pending) => match self.tasks.poll_join_next_with_id(cx) {
                    Poll::Ready(Some(done)) => self.on_step(done),
                    _ => return self.rest(cx),
                },
                Err(error) if !self.fall_back(&error) => return self.rest(cx),
                Err(_) => {}
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Nothing to do but wait: for the driver, a duty, a job, or the timer.
    fn rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut next = self.time + RESOLUTION;
        if self.live == 0 {
            self.inner.note_empty();
            if self.inner.is_abandoned() && self.inner.engine.slots_in_use(self.shard) == 0 {
                // What is left tells of a breaker or waits for a permit; either names a group,
                // and a group its pool, which would outlive everybody.
                while let Some(duty) = self.inner.engine.next_duty(self.shard) {
                    self.take_on(duty);
                }
                self.inner.engine.forget_starving();
                return Poll::Ready(());
            }
            // No connection and nothing to tend, no timer: an unused pool sleeps. Said first,
            // looked second, so that whoever brings something to tend in between wakes us.
            self.inner.note_asleep(self.shard, true);
            if !self.wants_tending() {
                return Poll::Pending;
            }
            next = self.next_sweep;
        }
        // What other tasks gave us while the driver worked has woken us already.
        let next = self.timers.first().map_or(next, |(timer, _)| next.min(*timer));
        // Left as it is when it goes off earlier: then it is set anew. To set it takes the runtime's
        // lock, and a busy shard comes here for each connection.
        if next < self.timer.deadline() || self.timer.is_elapsed() {
            self.timer.as_mut().reset(next);
        }
        if self.timer.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn fire_timers(&mut self) {
        let now = self.time;
        while let Some(&(timer, slot)) = self.timers.first() {
            if timer > now {
                break;
            }
            self.timers.pop_first();
            self.on_timer(slot, now);
        }
        if now >= self.next_sweep {
            self.next_sweep = now + SWEEP;
            self.sweep();
        }
    }

    fn now(&self) -> Tick {
        self.inner.clock(self.shard).now()
    }

    fn moment(&mut self) -> Moment {
        Moment { now: self.now(), random: self.random.u32(..) }
    }

    fn take_on(&mut self, duty: Duty<C::Connection, DialError, Key<C>>) {
        match duty {
            Duty::Dial(dial) => self.start(Held::new(dial)),
            Duty::Close(Doomed { conn, place }) => {
                let slot = place.index();
                let how = ending(&place);
                // First of all, so that it is known whatever the rest comes to.
                self.work.insert(slot, Work::Closing(Held::new(place)));
                self.peers.forget(slot);
                self.driver.close(slot, conn.and_then(into_socket), how);
            }
            Duty::Tell(seat, change) => self.inner.tell_change(&seat, change),
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Dialed(id, outcome) => self.on_dialed(id, outcome),
            Event::HungUp(slot, how) => {
                let reason = match how {
                    Departure::Finished => CloseReason::PeerClosed,
                    Departure::Reset => CloseReason::PeerReset,
                };
                self.inner.engine.hang_up(self.shard, slot, reason, self.now());
            }
            Event::Closed(slot) => match self.work.remove(&slot) {
                Some(Work::Closing(place)) => {
                    self.live -= 1;
                    let now = self.now();
                    self.inner.tell_closed(&place, now);
                    self.inner.engine.vacate(place.release(), now);
                }
                Some(Work::Rejecting { dial, cause }) => self.abandon(dial, cause),
                Some(work @ Work::Dialing(_)) => {
                    debug_assert!(false, "a dial holds nothing to be closed");
                    self.work.insert(slot, work);
                }
                None => debug_assert!(false, "only what was closed is reported closed"),
            },
        }
    }
}

impl<C: Connector> Inner<C> {
    /// A breaker has changed: a line in the log and an event.
    fn tell_change(&self, seat: &PoolSeat<C>, change: Change) {
        let endpoint = seat.group().key().endpoint();
        let Change { from, to, open_for_ms } = change;
        let open_for = (to == BreakerState::Open).then(|| millis(open_for_ms));
        match open_for {
            Some(open_for) => {
                tracing::warn!(%endpoint, %from, %to, ?open_for, "the circuit breaker opened");
            }
            None => tracing::info!(%endpoint, %from, %to, "the circuit breaker changed"),
        }
        self.tell(PoolEvent::BreakerChanged { endpoint, from, to, open_for });
    }

    /// A connection is closed.
    fn tell_closed(&self, place: &PoolPlace<C>, now: Tick) {
        let (opened, uses) = place.life();
        let endpoint = place.seat().group().key().endpoint();
        let age = millis(now.since(opened));
        self.tell(PoolEvent::Closed { endpoint, reason: place.reason(), age, uses });
    }
}

/// How a connection is closed. Nobody waits for anything on one that was at rest.
fn ending<C: Connector>(place: &Place<C::Connection, DialError, Key<C>>) -> Ending {
    let at_rest = matches!(
        place.reason(),
        CloseReason::Surplus
            | CloseReason::IdleTimeout
            | CloseReason::MaxLifetime
            | CloseReason::Evicted
            | CloseReason::Shrunk
            | CloseReason::Retired
    );
    let reset = || place.seat().group().key().policy().settings.sockets.reset_evicted;
    if at_rest && reset() { Ending::Reset } else { Ending::Fin }
}
