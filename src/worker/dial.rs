//! A dial, from the duty to the connection: resolve, connect, watch, prepare, deliver.

use core::{
    mem,
    task::{Context, Poll, Waker},
    time::Duration,
};
use std::{
    io,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use tokio::{
    io::AsyncWriteExt,
    task::{AbortHandle, Id, JoinError},
    time::Instant,
};

use super::{
    Dial, Dialing, Stage, Step, Work, Worker,
    attempts::{Attempts, Move},
    into_socket,
    salvage::{quietly, said},
};
use crate::{
    BoxError, ConnectionInfo, Connector, DialError, DialErrorKind, Endpoint, PoolEvent,
    ProxyHeader, Socket,
    backend::{Destination, DialId, Ending, Target},
    engine::{Failure, SlotIndex},
    eyeballs::Eyeballs,
    inner::Adopted,
    policy::{Policy, millis},
    resolve::Lookup,
};

impl<C: Connector> Worker<C> {
    pub(super) fn start(&mut self, dial: Dial<C>) {
        self.live += 1;
        let (slot, began) = (dial.index(), self.time);
        let key = dial.seat().group().key();
        let policy = key.policy();
        let deadline = began + policy.total_timeout();
        // A group whose home sleeps is tended by nobody.
        self.rouse_home(dial.seat());
        let adopted = dial.is_adoption().then(|| self.inner.fetch(self.shard, slot)).flatten();
        let stage = match known_destination(key.endpoint()) {
            _ if adopted.is_some() => Stage::Adopting,
            Some(destination) => {
                let until = deadline.min(began + policy.connect_timeout());
                Stage::Connecting(Attempts::at(destination, until))
            }
            None => match key.names().map(|names| names.glance(began)) {
                Some(Lookup::Fresh(addresses)) => connect_to(addresses, &policy, began, deadline),
                Some(Lookup::Stale(addresses)) => {
                    self.refresh(dial.seat());
                    connect_to(addresses, &policy, began, deadline)
                }
                _ => Stage::Resolving(self.resolve(slot, dial.seat())),
            },
        };
        let (adopter, socket) = match adopted {
            // The runtime that it is registered with may end before the pool does.
            Some(Adopted { socket, done }) => (Some(done), Some(socket.unregistered())),
            None => (None, None),
        };
        let resolving = matches!(stage, Stage::Resolving(_));
        let timer = None;
        let peer = match &socket {
            Some(Ok(socket)) if key.names().is_some() => socket.peer_addr().ok(),
            _ => None,
        };
        let watched = false;
        let dialing =
            Dialing { dial, policy, began, deadline, timer, stage, peer, watched, adopter };
        self.work.insert(slot, Work::Dialing(Box::new(dialing)));
        match socket {
            Some(Ok(socket)) => self.prepare(slot, socket),
            Some(Err(error)) => self.fail(slot, |endpoint| DialError::io(endpoint, error)),
            None if resolving => self.set_timer(slot),
            None => self.advance(slot),
        }
    }

    /// Looks a name up for one dial, or waits for who does.
    fn resolve(&mut self, slot: SlotIndex, seat: &crate::inner::PoolSeat<C>) -> AbortHandle {
        let (inner, seat) = (Arc::clone(&self.inner), Arc::clone(seat));
        self.spawn(slot, async move {
            let Some(names) = seat.group().key().names() else {
                return Step::Resolved(Err(io::ErrorKind::Unsupported.into()));
            };
            match names.look_up(&*inner.parts.resolver).await {
                Ok((addresses, change)) => {
                    if let Some(change) = change {
                        inner.note_change(&seat, &change);
                    }
                    Step::Resolved(Ok(addresses))
                }
                Err(error) => Step::Resolved(Err(error)),
            }
        })
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

    /// Begins what attempts there are to begin now; when all have failed, the dial has.
    fn advance(&mut self, slot: SlotIndex) {
        loop {
            let next_id = self.next_dial_id();
            let Some(Work::Dialing(dialing)) = self.work.get_mut(&slot) else {
                return;
            };
            let Stage::Connecting(attempts) = &mut dialing.stage else {
                return;
            };
            match attempts.next_move(self.time) {
                Move::Begin(to, attempt) => {
                    // An address of a name may lose its race, and a slot has one watch.
                    let alone = attempt.is_none();
                    attempts.begun(next_id, attempt);
                    let options = Arc::clone(&dialing.policy.sockets);
                    let target = Target { to, options };
                    self.dials.insert(next_id, Some(slot));
                    if alone {
                        dialing.watched = self.driver.dial_and_watch(next_id, &target, slot);
                    } else {
                        self.driver.dial(next_id, &target);
                    }
                }
                Move::Wait => return self.set_timer(slot),
                Move::Fail(last) => {
                    let timeout = dialing.policy.connect_timeout();
                    return self.fail(slot, |endpoint| match last {
                        Some(last) if last.error.kind() == io::ErrorKind::TimedOut => {
                            DialError::timed_out(endpoint, timeout)
                        }
                        Some(last) => DialError::io_at(endpoint, last.address, last.error),
                        None => DialError::plain(
                            endpoint,
                            DialErrorKind::Resolve,
                            "the name has no address".to_owned(),
                        ),
                    });
                }
            }
        }
    }

    /// An id that no dial under way has.
    pub(super) fn next_dial_id(&mut self) -> DialId {
        loop {
            self.last_dial = DialId(self.last_dial.0.wrapping_add(1));
            if !self.dials.contains_key(&self.last_dial) {
                return self.last_dial;
            }
        }
    }

    /// Sets the one timer of a slot's dial to what it waits for.
    fn set_timer(&mut self, slot: SlotIndex) {
        let Some(Work::Dialing(dialing)) = self.work.get_mut(&slot) else {
            return;
        };
        let next = match &dialing.stage {
            Stage::Connecting(attempts) => attempts.timer(),
            // The connector gets the socket by the next round.
            Stage::Watched(_) => None,
            Stage::Adopting | Stage::Resolving(_) | Stage::Preparing(_) => Some(dialing.deadline),
        };
        if let Some(old) = mem::replace(&mut dialing.timer, next) {
            self.timers.remove(&(old, slot));
        }
        if let Some(next) = next {
            self.timers.insert((next, slot));
        }
    }

    /// The time has come that a dial's timer was set to.
    pub(super) fn on_timer(&mut self, slot: SlotIndex, now: Instant) {
        let Some(Work::Dialing(dialing)) = self.work.get_mut(&slot) else {
            return;
        };
        dialing.timer = None;
        // It was connected in time. Whether it is ready in time is the next round's question.
        if matches!(dialing.stage, Stage::Watched(_)) {
            return;
        }
        let timeout = dialing.policy.total_timeout();
        let is_connected = matches!(dialing.stage, Stage::Preparing(_));
        self.stop(
            slot,
            |attempts| attempts.overdue(now),
            |endpoint| match is_connected {
                true => DialError::not_ready(endpoint, timeout),
                false => DialError::timed_out(endpoint, timeout),
            },
        );
    }

    /// Ends what a dial is doing: a task at once, attempts by giving up those that `which` names
    /// and waiting for the answers.
    fn stop(
        &mut self,
        slot: SlotIndex,
        which: impl FnOnce(&mut Attempts) -> Vec<DialId>,
        cause: impl FnOnce(Endpoint) -> DialError,
    ) {
        let Some(Work::Dialing(dialing)) = self.work.get_mut(&slot) else {
            return;
        };
        match &mut dialing.stage {
            Stage::Adopting => {}
            Stage::Watched(_) => self.reject_watched(slot, cause),
            Stage::Connecting(attempts) => {
                for id in which(attempts) {
                    self.driver.give_up(id);
                }
                self.advance(slot);
            }
            Stage::Resolving(task) => {
                self.task_slots.remove(&task.id());
                task.abort();
                self.fail(slot, cause);
            }
            Stage::Preparing(task) => {
                self.task_slots.remove(&task.id());
                task.abort();
                // The task owns the socket and closes it when it is dropped; only the watch is
                // left to end.
                self.reject(slot, None, cause);
            }
        }
    }

    /// Groups were closed: nobody waits for their dials any more, which need not run to their
    /// timeouts.
    #[cold]
    pub(super) fn give_up_closed(&mut self) {
        self.closes = self.inner.closes();
        let of_closed = |work: &Work<C>| match work {
            Work::Dialing(dialing) => dialing.dial.seat().group().is_closed(),
            _ => false,
        };
        let slots = self.work.iter().filter(|(_, work)| of_closed(work)).map(|(slot, _)| *slot);
        let mut slots: Vec<SlotIndex> = slots.collect();
        // In the same order in every run of a simulation.
        slots.sort_unstable();
        let closed = |endpoint| {
            DialError::plain(endpoint, DialErrorKind::Backend, "the group was closed".to_owned())
        };
        for slot in slots {
            self.stop(slot, Attempts::cut_short, closed);
        }
    }

    /// A dial that holds no socket has failed.
    pub(super) fn fail(&mut self, slot: SlotIndex, cause: impl FnOnce(Endpoint) -> DialError) {
        if let Some((dial, cause)) = self.end_dial(slot, cause) {
            self.abandon(dial, cause);
        }
    }

    /// A dial whose socket is watched has failed: the watch ends and the socket closes first.
    pub(super) fn reject(
        &mut self,
        slot: SlotIndex,
        socket: Option<Socket>,
        cause: impl FnOnce(Endpoint) -> DialError,
    ) {
        let Some((dial, cause)) = self.end_dial(slot, cause) else {
            return;
        };
        self.driver.close(slot, socket, Ending::Fin);
        self.work.insert(slot, Work::Rejecting { dial, cause });
    }

    /// A dial has failed whose socket is watched and was not given to the connector yet.
    #[cold]
    pub(super) fn reject_watched(
        &mut self,
        slot: SlotIndex,
        cause: impl FnOnce(Endpoint) -> DialError,
    ) {
        if let Some(Work::Dialing(dialing)) = self.work.get_mut(&slot)
            && let Stage::Watched(socket) = mem::replace(&mut dialing.stage, Stage::Adopting)
        {
            self.reject(slot, Some(socket), cause);
        }
    }

    /// Takes a dial and its timer off the books, with what is to be told of it.
    fn end_dial(
        &mut self,
        slot: SlotIndex,
        cause: impl FnOnce(Endpoint) -> DialError,
    ) -> Option<(Dial<C>, DialError)> {
        let Some(Work::Dialing(dialing)) = self.work.remove(&slot) else {
            return None;
        };
        let Dialing { dial, timer, adopter, began, .. } = *dialing;
        if let Some(timer) = timer {
            self.timers.remove(&(timer, slot));
        }
        let cause = cause(dial.seat().group().key().endpoint().clone());
        if let Some(adopter) = adopter {
            // Who does not wait any more does not care.
            let _ = adopter.send(Err(cause.clone()));
        }
        tracing::debug!(error = %cause, "a dial failed");
        self.inner.tell(PoolEvent::DialFailed { error: &cause, took: began.elapsed() });
        Some((dial, cause))
    }

    pub(super) fn abandon(&mut self, dial: Dial<C>, cause: DialError) {
        self.live -= 1;
        if cause.kind() == DialErrorKind::Descriptors {
            self.relieve();
        }
        let local = cause.is_local();
        let failure = if local { Failure::Local(cause) } else { Failure::Peer(cause) };
        let moment = self.moment();
        self.inner.engine.abandon(&dial, failure, moment);
    }

    pub(super) fn on_step(&mut self, done: Result<(Id, Step<C>), JoinError>) {
        let (id, step) = match done {
            Ok((id, step)) => (id, Ok(step)),
            Err(error) => (error.id(), Err(error)),
        };
        // A task that was timed out is not in the table any more.
        let Some(slot) = self.task_slots.remove(&id) else {
            // What it made all the same is someone else's to drop.
            return quietly(|| drop(step));
        };
        match step {
            Ok(Step::Resolved(Ok(addresses))) => {
                if let Some(Work::Dialing(dialing)) = self.work.get_mut(&slot) {
                    let (policy, deadline) = (&dialing.policy, dialing.deadline);
                    dialing.stage = connect_to(addresses, policy, self.time, deadline);
                }
                self.advance(slot);
            }
            Ok(Step::Resolved(Err(error))) => self.fail(slot, |endpoint| {
                DialError::new(endpoint, DialErrorKind::Resolve, error.into())
            }),
            Ok(Step::Prepared(outcome)) => self.on_prepared(slot, outcome),
            Err(error) if self.is_resolving(slot) => self.fail(slot, |endpoint| {
                DialError::new(endpoint, DialErrorKind::Resolve, error.into())
            }),
            Err(error) => self.reject(slot, None, |endpoint| {
                DialError::new(endpoint, DialErrorKind::Connector, error.into())
            }),
        }
    }

    fn is_resolving(&self, slot: SlotIndex) -> bool {
        let work = self.work.get(&slot);
        matches!(work, Some(Work::Dialing(dialing)) if matches!(dialing.stage, Stage::Resolving(_)))
    }

    /// An attempt is over. The first success of a slot wins.
    pub(super) fn on_dialed(&mut self, id: DialId, outcome: io::Result<Socket>) {
        let Some(slot) = self.dials.remove(&id) else {
            debug_assert!(false, "a dial that nobody began");
            return;
        };
        // One that lost is closed here, if it came to a connection after all: nothing was sent
        // on it, nothing watches it, and it holds no slot.
        let Some(slot) = slot else {
            return;
        };
        let Some(Work::Dialing(dialing)) = self.work.get_mut(&slot) else {
            debug_assert!(outcome.is_err(), "a socket without a dial");
            return;
        };
        let outcome = match outcome {
            // One without a peer must not win a race: see `deliver`.
            Ok(socket) if dialing.dial.seat().group().key().names().is_some() => {
                socket.peer_addr().map_err(|none| socket.take_error().unwrap_or(none)).map(|peer| {
                    dialing.peer = Some(peer);
                    socket
                })
            }
            outcome => outcome,
        };
        match outcome {
            Ok(socket) => {
                let connecting = mem::replace(&mut dialing.stage, Stage::Adopting);
                if let Stage::Connecting(attempts) = connecting {
                    for loser in attempts.won(id) {
                        self.dials.insert(loser, None);
                        self.driver.give_up(loser);
                    }
                }
                self.prepare(slot, socket);
            }
            Err(error) => {
                if let Stage::Connecting(attempts) = &mut dialing.stage {
                    attempts.failed(id, error);
                    self.advance(slot);
                }
            }
        }
    }

    /// Watches a fresh socket. The connector gets it once the watch is submitted: it may hand the
    /// descriptor to a task that closes it, and then its number could name another socket.
    fn prepare(&mut self, slot: SlotIndex, socket: Socket) {
        let Some(Work::Dialing(dialing)) = self.work.get_mut(&slot) else {
            return;
        };
        if dialing.watched {
            self.watched.push_back(slot);
        } else {
            self.driver.watch(slot, &socket);
            self.watching.push_back(slot);
        }
        dialing.stage = Stage::Watched(socket);
    }

    /// Lets the connector make those sockets ready that are watched. One that only wraps the socket,
    /// or has nothing to wait for, is done here and costs no task.
    pub(super) fn hand_over(&mut self) {
        while let Some(slot) = self.watched.pop_front() {
            let Some(Work::Dialing(dialing)) = self.work.get_mut(&slot) else {
                continue;
            };
            let socket = match mem::replace(&mut dialing.stage, Stage::Adopting) {
                Stage::Watched(socket) => socket,
                stage => {
                    dialing.stage = stage;
                    continue;
                }
            };
            let (inner, seat) = (Arc::clone(&self.inner), Arc::clone(dialing.dial.seat()));
            let mut connecting = Box::pin(async move {
                let endpoint = seat.group().key().endpoint();
                let socket = match endpoint.proxy_header() {
                    Some(header) => introduce(socket, header).await?,
                    None => socket,
                };
                inner.connector.connect(socket, endpoint).await
            });
            // Its task polls it once more and by a waker of its own, so that nothing is lost.
            let mut cx = Context::from_waker(Waker::noop());
            // AssertUnwindSafe: one that panicked is dropped.
            match catch_unwind(AssertUnwindSafe(|| connecting.as_mut().poll(&mut cx))) {
                Ok(Poll::Ready(outcome)) => self.on_prepared(slot, outcome),
                Ok(Poll::Pending) => {
                    let task = self.spawn(slot, async { Step::Prepared(connecting.await) });
                    if let Some(Work::Dialing(dialing)) = self.work.get_mut(&slot) {
                        dialing.stage = Stage::Preparing(task);
                    }
                    // To the deadline, also when it has passed already: the connector may be no
                    // slower than the dial.
                    self.set_timer(slot);
                }
                Err(panic) => {
                    quietly(|| drop(connecting));
                    let error = format!("the connector panicked: {}", said(&*panic));
                    self.on_prepared(slot, Err(error.into()));
                }
            }
        }
    }

    /// The connector is done with a socket.
    fn on_prepared(&mut self, slot: SlotIndex, outcome: Result<C::Connection, BoxError>) {
        match outcome {
            Ok(connection) => self.deliver(slot, connection),
            Err(error) => self.reject(slot, None, |endpoint| {
                DialError::new(endpoint, DialErrorKind::Connector, error)
            }),
        }
    }

    /// Hands a ready connection to the engine.
    fn deliver(&mut self, slot: SlotIndex, mut connection: C::Connection) {
        let moment = self.moment();
        let Some(Work::Dialing(dialing)) = self.work.get_mut(&slot) else {
            return;
        };
        let seat = Arc::clone(dialing.dial.seat());
        let key = seat.group().key();
        let (timer, began, peer) = (dialing.timer, dialing.began, dialing.peer);
        if let Err(error) = self.inner.welcome(&mut connection, key.endpoint(), self.shard) {
            return self.reject(slot, into_socket(connection), |endpoint| {
                DialError::new(endpoint, DialErrorKind::Connector, error)
            });
        }
        let adopter = dialing.adopter.take();
        match self.inner.engine.fulfil(&dialing.dial, connection, moment) {
            Ok(()) => {
                if let Some(timer) = timer {
                    self.timers.remove(&(timer, slot));
                }
                self.work.remove(&slot);
                self.peers.met(slot, peer, &seat);
                if let Some(adopter) = adopter {
                    // Who does not wait any more does not care.
                    let _ = adopter.send(Ok(()));
                }
                let took = self.time.duration_since(began);
                key.connect_time.record(took.as_micros() as u64);
                self.inner.tell(PoolEvent::Opened { endpoint: key.endpoint(), took });
            }
            Err(connection) => {
                dialing.adopter = adopter;
                let socket = into_socket(connection);
                // A ring also says success of a connect that an ICMP error ended (Linux 6.18).
                let broke = socket.as_ref().and_then(Socket::take_error);
                self.reject(slot, socket, |endpoint| match broke {
                    Some(error) => DialError::io(endpoint, error),
                    None => DialError::plain(
                        endpoint,
                        DialErrorKind::PeerClosed,
                        "it closed the connection before its first use".to_owned(),
                    ),
                });
            }
        }
    }
}

/// Sends the PROXY header ahead of everything else.
async fn introduce(socket: Socket, header: &ProxyHeader) -> Result<Socket, BoxError> {
    let mut stream = socket.into_stream()?;
    stream.write_all(&header.to_bytes()).await?;
    Ok(stream.into())
}

impl<C: Connector> crate::inner::Inner<C> {
    /// Shows a connection that is ready to the hook for such. Its panic is the dial's failure.
    fn welcome(
        &self,
        connection: &mut C::Connection,
        endpoint: &Endpoint,
        shard: crate::engine::ShardId,
    ) -> Result<(), BoxError> {
        let Some(hook) = &self.parts.hooks.after_connect else {
            return Ok(());
        };
        let shard = shard.get();
        let (age, idle_for) = (Duration::ZERO, Duration::ZERO);
        let info = ConnectionInfo { endpoint, shard, age, idle_for, uses: 0 };
        catch_unwind(AssertUnwindSafe(|| hook(connection, &info)))
            .unwrap_or_else(|_| Err("the after_connect hook panicked".into()))
    }
}

/// The race over the addresses of a name.
fn connect_to(
    addresses: Vec<SocketAddr>,
    policy: &Policy,
    now: Instant,
    deadline: Instant,
) -> Stage {
    let delay = millis(policy.settings.names.attempt_delay_ms);
    let until = deadline.min(now + policy.connect_timeout());
    Stage::Connecting(Attempts::race(Eyeballs::new(addresses, delay), until))
}

/// Where an endpoint leads, when there is nothing to resolve.
fn known_destination(endpoint: &Endpoint) -> Option<Destination> {
    #[cfg(unix)]
    if let Some(path) = endpoint.as_unix() {
        return Some(Destination::Unix(path.into()));
    }
    endpoint.as_ip().map(Destination::Ip)
}
