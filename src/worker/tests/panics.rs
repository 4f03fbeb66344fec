//! A worker that panics, wherever it is at.

use core::time::Duration;
use std::panic::resume_unwind;

use super::*;
use crate::{Adoption, CloseReason, backend::Opened, worker::salvage};

/// A shard's worker under way, and the notes of all its drivers.
struct Shift {
    pool: Pool<TcpConnector>,
    notes: Rc<RefCell<Notes>>,
    listener: TcpListener,
    /// How many drivers may be opened still.
    drivers: Rc<RefCell<usize>>,
}

impl Shift {
    fn begin(rig: Rig) -> Self {
        let Rig { pool, worker, notes, listener } = rig;
        let drivers = Rc::new(RefCell::new(usize::MAX));
        let (pen, left) = (Rc::clone(&notes), Rc::clone(&drivers));
        tokio::task::spawn_local(worker.run(move || {
            let mut left = left.borrow_mut();
            *left = left.checked_sub(1).ok_or_else(|| io::Error::other("no driver left"))?;
            let driver = Box::new(Scribe(Rc::clone(&pen)));
            Ok(Opened { driver, reason: "another pen".to_owned() })
        }));
        Self { pool, notes, listener, drivers }
    }

    fn arm(&self, verb: &'static str) {
        self.notes.borrow_mut().bomb = Some(verb);
    }

    /// Has the worker panic in its next turn.
    async fn panic_in_a_turn(&self) {
        let before = self.panics();
        self.arm("turn");
        self.pool.inner().engine.wake_driver(ShardId(0));
        while self.panics() == before {
            tokio::task::yield_now().await;
        }
    }

    fn panics(&self) -> u64 {
        self.pool.inner().panics(ShardId(0))
    }

    fn driver(&self) -> (&'static str, String) {
        self.pool.inner().drivers().remove(0)
    }

    /// A connection made elsewhere, and its peer.
    fn connection(&self) -> (Socket, TcpStream) {
        let near = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        near.set_nonblocking(true).unwrap();
        (near.into(), self.listener.accept().unwrap().0)
    }

    async fn close(self) {
        let report = self.pool.close_within(Duration::from_secs(5)).await;
        assert_eq!(report.left, 0, "{report:?}");
        for group in self.pool.stats().endpoints {
            assert_eq!(group.opened, group.closed_total(), "INV-9: {group:?}");
            assert_eq!((group.idle, group.in_use, group.dialing, group.waiting), (0, 0, 0, 0));
        }
    }
}

fn is_lost(error: &CheckoutError) -> bool {
    let CheckoutError::Dial(dial) = error else { return false };
    dial.kind() == DialErrorKind::Backend && dial.to_string().contains("panicked")
}

#[test]
fn a_dial_that_meets_a_panic_fails_and_the_next_one_is_begun_by_a_new_driver() {
    run(async |rig| {
        let shift = Shift::begin(rig);
        let group = shift.pool.group(endpoint());
        shift.arm("dial");
        let error = group.checkout().await.unwrap_err();
        assert!(is_lost(&error) && error.to_string().contains("on purpose"), "{error}");
        let stats = group.stats();
        assert_eq!((stats.dialing, stats.waiting, stats.dial_failures), (0, 0, 1));
        assert_eq!(shift.panics(), 1);
        assert_eq!(shift.driver(), ("scribe", "another pen".to_owned()));

        let mut checkout = pin!(group.checkout());
        let mut cx = Context::from_waker(Waker::noop());
        while shift.notes.borrow().dialed.len() < 2 {
            assert!(checkout.as_mut().poll(&mut cx).is_pending());
            tokio::task::yield_now().await;
        }
        shift.panic_in_a_turn().await;
        assert!(is_lost(&checkout.await.unwrap_err()), "also one that was under way for long");
        shift.close().await;
    });
}

#[test]
fn who_adopts_is_told_of_a_panic() {
    run(async |rig| {
        let shift = Shift::begin(rig);
        let group = shift.pool.group(endpoint());
        let (socket, mut peer) = shift.connection();
        shift.arm("watch");
        let error = group.adopt(socket).await.unwrap_err();
        let Adoption::Failed(error) = error else { panic!("{error}") };
        assert_eq!(error.kind(), DialErrorKind::Backend);
        assert!(error.to_string().contains("panicked"), "{error}");
        assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0, "the socket is closed");
        shift.close().await;
    });
}

/// The socket is left where the shard fetches it; a panic may come before that.
#[test]
fn who_adopts_is_told_of_a_panic_before_the_socket_was_fetched() {
    run(async |rig| {
        let group = rig.pool.group(endpoint());
        let (socket, _peer) = rig.connection();
        let mut adoption = pin!(group.adopt(socket));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(adoption.as_mut().poll(&mut cx).is_pending());
        let inner = rig.pool.inner();
        let Some(Duty::Dial(dial)) = inner.engine.next_duty(ShardId(0)) else { panic!() };
        let held = Held::new(dial);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _on_the_stack = held;
            resume_unwind(Box::new(()));
        }));
        assert!(panicked.is_err());
        inner.clear_wrecks(ShardId(0), "it panicked", &mut fastrand::Rng::with_seed(0));
        let told = tokio::time::timeout(Duration::from_secs(5), adoption).await;
        let error = told.expect("who adopts is told").unwrap_err();
        assert!(
            matches!(&error, Adoption::Failed(error) if error.to_string().contains("panicked"))
        );
        assert_eq!(inner.engine.slots_in_use(ShardId(0)), 0);
    });
}

#[test]
fn connections_end_when_nobody_watches_them_any_more() {
    run(async |rig| {
        let shift = Shift::begin(rig);
        let group = shift.pool.group(endpoint());
        let mut peers = Vec::new();
        for _ in 0..2 {
            let (socket, peer) = shift.connection();
            group.adopt(socket).await.unwrap();
            peers.push(peer);
        }
        let held = group.checkout().await.unwrap();
        shift.panic_in_a_turn().await;
        while group.stats().closed_for(CloseReason::Unwatched) == 0 {
            tokio::task::yield_now().await;
        }
        assert!(group.try_checkout().is_none());
        held.release();
        while group.stats().closed_for(CloseReason::Unwatched) < 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(group.stats().opened, 2);
        shift.close().await;
    });
}

#[test]
fn a_close_that_meets_a_panic_is_counted_once() {
    run(async |rig| {
        let shift = Shift::begin(rig);
        let group = shift.pool.group(endpoint());
        let (socket, mut peer) = shift.connection();
        group.adopt(socket).await.unwrap();
        shift.arm("close");
        group.checkout().await.unwrap().discard();
        while shift.panics() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0);
        assert_eq!(group.stats().closed_for(CloseReason::Discarded), 1);
        shift.close().await;
    });
}

#[test]
fn a_shard_that_panics_over_and_over_waits_and_tells_its_callers() {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let shift = Shift::begin(Rig::new());
        let group = shift.pool.group(endpoint());
        for _ in 0..5 {
            shift.panic_in_a_turn().await;
        }
        assert_eq!(shift.driver().0, "scribe");
        // The next time there is not even a driver to be had.
        *shift.drivers.borrow_mut() = 0;
        shift.panic_in_a_turn().await;
        assert_eq!(shift.driver().0, "none");
        let down = clock::now();
        for _ in 0..3 {
            assert!(is_lost(&group.checkout().await.unwrap_err()));
        }
        let (socket, _peer) = shift.connection();
        assert!(group.adopt(socket).await.is_err());
        assert_eq!(clock::now(), down, "they are told at once");
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert_eq!(shift.driver().0, "none", "it tries again later");
        *shift.drivers.borrow_mut() = 1;
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert_eq!(shift.driver().0, "scribe");
        let (socket, _peer) = shift.connection();
        group.adopt(socket).await.unwrap();
        shift.close().await;
    });
}

#[test]
fn a_pool_that_ends_while_its_shard_is_down_ends() {
    run(async |rig| {
        let Rig { pool, worker, notes, .. } = rig;
        drop(pool.group(endpoint()));
        let ended = tokio::task::spawn_local(worker.run(|| Err(io::Error::other("none"))));
        notes.borrow_mut().bomb = Some("turn");
        while pool.inner().panics(ShardId(0)) == 0 {
            tokio::task::yield_now().await;
        }
        drop(pool);
        tokio::time::timeout(Duration::from_secs(5), ended).await.unwrap().unwrap();
    });
}

#[test]
fn a_shard_without_a_runtime_tells_its_callers_and_ends_with_its_pool() {
    run(async |rig| {
        let Rig { pool, worker, listener, .. } = rig;
        let inner = Arc::clone(pool.inner());
        drop((worker, listener));
        let buried = tokio::task::spawn_blocking(move || bury(inner, ShardId(0)));
        let group = pool.group(endpoint());
        assert!(is_lost(&group.checkout().await.unwrap_err()));
        assert_eq!(pool.inner().panics(ShardId(0)), 1);
        assert_eq!(pool.close_within(Duration::from_secs(5)).await.left, 0);
        drop((group, pool));
        buried.await.unwrap();
    });
}

#[test]
fn a_row_of_panics_is_answered_ever_later_and_ends_with_a_calm() {
    let mut row = salvage::Row::default();
    let mut after = |lasted| row.another(Duration::from_secs(lasted)).as_secs();
    let waits: Vec<_> = (0..12).map(|_| after(1)).collect();
    assert_eq!(waits, [0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 32]);
    assert_eq!(after(60), 0);
    assert_eq!(after(59), 0, "the second of a row");
}

/// It has lost nothing: its time is still to come.
#[test]
fn a_dial_that_waited_for_its_turn_outlives_the_ring() {
    run(async |mut rig| {
        let group = rig.pool.group(endpoint());
        let mut checkout = pin!(group.checkout());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(checkout.as_mut().poll(&mut cx).is_pending());
        assert!(rig.worker.fall_back(&io::Error::other("the ring's end")));
        rig.worker.driver = Box::new(Scribe(Rc::clone(&rig.notes)));
        rig.take_on_duties();
        let dial = rig.notes.borrow().dialed[0];
        let (socket, _peer) = rig.connection();
        rig.worker.on_dialed(dial, Ok(socket));
        rig.hand_over();
        checkout.await.expect("nothing was wrong with it").discard();
    });
}
