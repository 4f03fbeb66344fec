//! Several attempts of one slot, against a driver that only takes notes.

mod panics;

use core::{
    cell::RefCell,
    task::{Context, Poll, Waker},
};
use std::{
    collections::VecDeque,
    io::{self, Read},
    net::{TcpListener, TcpStream},
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::Wake,
};

use tokio::sync::mpsc;

use super::*;
use crate::{
    CheckoutError, DialErrorKind, Endpoint, Pool, ProxyHeader, Settings, TcpConnector,
    backend::Target,
    inner::Parts,
    sync::{AtomicBool, Ordering},
};

/// What a worker asked of its driver.
#[derive(Debug, Default)]
struct Notes {
    dialed: Vec<DialId>,
    given_up: Vec<DialId>,
    watched: usize,
    closed: Vec<SlotIndex>,
    /// Which verb panics next.
    bomb: Option<&'static str>,
}

impl Notes {
    fn tick(notes: &Rc<RefCell<Self>>, verb: &'static str) {
        if notes.borrow_mut().bomb.take_if(|bomb| *bomb == verb).is_some() {
            // Without the panic hook's report.
            std::panic::resume_unwind(Box::new("a driver's bug, on purpose"));
        }
    }
}

struct Scribe(Rc<RefCell<Notes>>);

impl Driver for Scribe {
    fn dial(&mut self, id: DialId, _: &Target) {
        self.0.borrow_mut().dialed.push(id);
        Notes::tick(&self.0, "dial");
    }

    fn give_up(&mut self, id: DialId) {
        self.0.borrow_mut().given_up.push(id);
    }

    fn watch(&mut self, _: SlotIndex, _: &Socket) {
        self.0.borrow_mut().watched += 1;
        Notes::tick(&self.0, "watch");
    }

    fn close(&mut self, slot: SlotIndex, socket: Option<Socket>, _: Ending) {
        drop(socket);
        self.0.borrow_mut().closed.push(slot);
        Notes::tick(&self.0, "close");
    }

    fn turn(&mut self, _: &mut Context<'_>, events: &mut VecDeque<Event>) -> io::Result<Poll<()>> {
        Notes::tick(&self.0, "turn");
        events.extend(self.0.borrow_mut().closed.drain(..).map(Event::Closed));
        Ok(if events.is_empty() { Poll::Pending } else { Poll::Ready(()) })
    }

    fn name(&self) -> &'static str {
        "scribe"
    }
}

struct Rig {
    pool: Pool<TcpConnector>,
    worker: Worker<TcpConnector>,
    notes: Rc<RefCell<Notes>>,
    listener: TcpListener,
}

impl Rig {
    fn new() -> Self {
        let settings = Settings { slots_per_shard: 4, ..Settings::default() };
        let inner = Arc::new(Inner::new(settings, Parts::default(), TcpConnector, 1));
        let notes = Rc::<RefCell<Notes>>::default();
        let (_, jobs) = mpsc::unbounded_channel();
        let driver = Box::new(Scribe(Rc::clone(&notes)));
        let worker = Worker::new(Arc::clone(&inner), ShardId(0), driver, jobs);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self { pool: Pool::assemble(inner, Vec::new()), worker, notes, listener }
    }

    fn take_on_duties(&mut self) {
        while let Some(duty) = self.worker.inner.engine.next_duty(ShardId(0)) {
            self.worker.take_on(duty);
        }
    }

    /// Has a checkout line up, and its dial begun: the first of all.
    fn dial_for<T>(&mut self, checkout: Pin<&mut impl Future<Output = T>>) -> DialId {
        assert!(checkout.poll(&mut Context::from_waker(Waker::noop())).is_pending());
        self.take_on_duties();
        self.notes.borrow().dialed[0]
    }

    /// Another attempt for the slot that the first dial is for.
    fn race(&mut self, first: DialId) -> DialId {
        let slot = self.worker.dials[&first].expect("under way");
        let second = self.worker.next_dial_id();
        let Some(Work::Dialing(dialing)) = self.worker.work.get_mut(&slot) else {
            panic!("no dial of the slot");
        };
        let Stage::Connecting(attempts) = &mut dialing.stage else {
            panic!("not connecting");
        };
        attempts.begun(second, None);
        self.worker.dials.insert(second, Some(slot));
        second
    }

    /// As after a turn, which has submitted the watches.
    fn hand_over(&mut self) {
        self.worker.watched.append(&mut self.worker.watching);
        self.worker.hand_over();
    }

    fn connection(&self) -> (Socket, TcpStream) {
        let near = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        near.set_nonblocking(true).unwrap();
        (near.into(), self.listener.accept().unwrap().0)
    }
}

fn run(body: impl AsyncFnOnce(Rig)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async { body(Rig::new()).await });
}

fn endpoint() -> Endpoint {
    "192.0.2.1:80".parse().unwrap()
}

#[test]
fn the_first_success_wins_and_a_late_one_is_closed() {
    run(async |mut rig| {
        let group = rig.pool.group(endpoint());
        let mut checkout = pin!(group.checkout());
        let first = rig.dial_for(checkout.as_mut());
        let second = rig.race(first);
        assert_ne!(first, second);

        let (winner, mut winners_peer) = rig.connection();
        rig.worker.on_dialed(second, Ok(winner));
        assert_eq!(rig.notes.borrow().given_up, [first]);
        let (loser, mut losers_peer) = rig.connection();
        rig.worker.on_dialed(first, Ok(loser));
        assert_eq!(losers_peer.read(&mut [0; 1]).unwrap(), 0, "the late one is closed");
        assert_eq!(rig.notes.borrow().watched, 1);
        assert!(rig.worker.dials.is_empty());

        rig.hand_over();
        let conn = checkout.await.expect("the winner is handed over");
        winners_peer.set_nonblocking(true).unwrap();
        let open = winners_peer.read(&mut [0; 1]).unwrap_err();
        assert_eq!(open.kind(), io::ErrorKind::WouldBlock);
        assert!(rig.worker.timers.is_empty() && rig.worker.work.is_empty());
        drop(conn);
    });
}

/// Whether somebody woke the worker.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        // Relaxed: one thread.
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The set of tasks is empty when the turn begins that spawns the shard's first one, and an empty
/// set takes no waker.
#[test]
fn the_first_connector_of_a_shard_wakes_the_worker_when_it_is_done() {
    run(async |mut rig| {
        // The header is written ahead, to a stream that the reactor has not yet told of.
        let group = rig.pool.group(endpoint().with_proxy_header(ProxyHeader::v1_unknown()));
        let mut checkout = pin!(group.checkout());
        let mut nobody = Context::from_waker(Waker::noop());
        assert!(checkout.as_mut().poll(&mut nobody).is_pending());
        let woken = Arc::<Woken>::default();
        let waker = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        assert!(rig.worker.poll(&mut cx).is_pending());
        let dial = rig.notes.borrow().dialed[0];
        let (socket, _peer) = rig.connection();
        rig.worker.events.push_back(Event::Dialed(dial, Ok(socket)));
        woken.0.store(false, Ordering::Relaxed);
        assert!(rig.worker.poll(&mut cx).is_pending());
        // The connector has its turn.
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
        assert!(woken.0.load(Ordering::Relaxed), "the connection waits for the next tick");
        assert!(rig.worker.poll(&mut cx).is_pending());
        assert!(checkout.as_mut().poll(&mut nobody).is_ready());
    });
}

/// It is given to the connector only once its watch is submitted, and costs no task then.
#[test]
fn a_connector_that_need_not_wait_has_no_task() {
    run(async |mut rig| {
        let group = rig.pool.group(endpoint());
        let mut checkout = pin!(group.checkout());
        let mut cx = Context::from_waker(Waker::noop());
        let dial = rig.dial_for(checkout.as_mut());
        let (socket, _peer) = rig.connection();
        rig.worker.on_dialed(dial, Ok(socket));
        rig.worker.hand_over();
        assert!(checkout.as_mut().poll(&mut cx).is_pending(), "its watch is still in the queue");
        rig.hand_over();
        assert!(rig.worker.tasks.is_empty());
        checkout.await.expect("a connection").discard();
    });
}

/// Neither the connector nor a caller has the socket then.
#[test]
fn a_group_that_is_closed_between_connect_and_connector_closes_the_socket() {
    run(async |mut rig| {
        let group = rig.pool.group(endpoint());
        let mut checkout = pin!(group.checkout());
        let mut cx = Context::from_waker(Waker::noop());
        let dial = rig.dial_for(checkout.as_mut());
        let (socket, mut peer) = rig.connection();
        rig.worker.on_dialed(dial, Ok(socket));
        rig.worker.inner.close_groups();
        rig.worker.give_up_closed();
        assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0);
        assert_eq!(rig.notes.borrow().closed.len(), 1);
        rig.hand_over();
        assert!(matches!(checkout.await, Err(CheckoutError::Closed { .. })));
        assert!(rig.worker.poll(&mut cx).is_pending());
        assert!(rig.worker.work.is_empty() && rig.worker.timers.is_empty());
        assert_eq!(rig.worker.live, 0);
    });
}

#[test]
fn the_last_failure_is_reported_when_all_have_failed() {
    run(async |mut rig| {
        let group = rig.pool.group(endpoint());
        let mut checkout = pin!(group.checkout());
        let mut cx = Context::from_waker(Waker::noop());
        let first = rig.dial_for(checkout.as_mut());
        let second = rig.race(first);
        rig.worker.on_dialed(second, Err(io::ErrorKind::ConnectionRefused.into()));
        assert!(checkout.as_mut().poll(&mut cx).is_pending(), "one is under way");
        assert!(rig.notes.borrow().given_up.is_empty());
        rig.worker.on_dialed(first, Err(io::ErrorKind::HostUnreachable.into()));
        let error = checkout.await.unwrap_err();
        let CheckoutError::Dial(dial) = &error else { panic!("{error:?}") };
        assert_eq!(dial.kind(), DialErrorKind::Unreachable);
        assert!(rig.worker.dials.is_empty() && rig.worker.timers.is_empty());
        assert_eq!(rig.worker.live, 0);
    });
}

#[test]
fn an_id_that_is_in_use_is_passed_over_when_they_come_round() {
    run(async |mut rig| {
        rig.worker.dials.insert(DialId(0), None);
        rig.worker.dials.insert(DialId(1), None);
        rig.worker.last_dial = DialId(u32::MAX);
        assert_eq!(rig.worker.next_dial_id(), DialId(2));
    });
}
