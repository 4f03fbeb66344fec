//! Connections that callers share, each for a stream at a time, on a connector without a protocol:
//! what its peer would say is said by the test.

#[path = "support/origin.rs"]
mod origin;
mod support;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use corepool::{
    BoxError, CheckoutError, CloseReason, Condition, Connection, Connector, DialErrorKind,
    Endpoint, Inspect, Multiplexed, Pool, Socket, StreamGroup, StreamLease, StreamMeter,
    settings::AtStreamLimit,
};
use origin::Origin;
use support::{close_and_check, eventually, tuned};
use tokio::net::TcpStream;

/// A connection whose streams are the leases that there are of it.
#[derive(Debug)]
struct Wire {
    stream: TcpStream,
    said: Arc<Said>,
}

/// What the peer has said, and what was made of it.
#[derive(Debug)]
struct Said {
    peers: Arc<Peers>,
    meter: StreamMeter,
    streams: AtomicU32,
    most: AtomicU32,
    exclusive: bool,
}

/// A stream as a test holds it.
struct Stream {
    /// First: who hears that a stream has ended finds it counted out.
    counted: Counted,
    lease: StreamLease<Mux>,
}

/// One of the streams that a connection has.
struct Counted(Arc<Said>);

impl Stream {
    fn said(&self) -> &Arc<Said> {
        &self.counted.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Makes them, and keeps what they say.
#[derive(Clone, Debug, Default)]
struct Mux(Arc<Peers>);

#[derive(Debug)]
struct Peers {
    allows: AtomicU32,
    made: Mutex<Vec<Arc<Said>>>,
    refuses: AtomicBool,
    /// What is made from now on serves one exchange at a time.
    exclusive: AtomicBool,
    /// Whether a connection's own code panics.
    panics: AtomicBool,
    /// Whether connects do not end, and how many do not.
    stalls: AtomicBool,
    stalled: AtomicU32,
}

/// A connect that does not end yet.
struct Stalled(Arc<Peers>);

impl Drop for Stalled {
    fn drop(&mut self) {
        self.0.stalled.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Default for Peers {
    fn default() -> Self {
        Self {
            allows: AtomicU32::new(1000),
            made: Mutex::default(),
            refuses: AtomicBool::new(false),
            exclusive: AtomicBool::new(false),
            panics: AtomicBool::new(false),
            stalls: AtomicBool::new(false),
            stalled: AtomicU32::new(0),
        }
    }
}

impl Mux {
    fn made(&self) -> Vec<Arc<Said>> {
        self.0.made.lock().unwrap().clone()
    }
}

impl Connector for Mux {
    type Connection = Wire;

    async fn connect(&self, socket: Socket, _: &Endpoint) -> Result<Wire, BoxError> {
        if self.0.stalls.load(Ordering::SeqCst) {
            self.0.stalled.fetch_add(1, Ordering::SeqCst);
            let _stalled = Stalled(Arc::clone(&self.0));
            while self.0.stalls.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        if self.0.refuses.load(Ordering::SeqCst) {
            return Err("the test wants none".into());
        }
        let said = Arc::new(Said {
            peers: Arc::clone(&self.0),
            meter: StreamMeter::new(self.0.allows.load(Ordering::SeqCst)),
            streams: AtomicU32::new(0),
            most: AtomicU32::new(0),
            exclusive: self.0.exclusive.load(Ordering::SeqCst),
        });
        self.0.made.lock().unwrap().push(Arc::clone(&said));
        Ok(Wire { stream: socket.into_tokio()?, said })
    }
}

impl Connection for Wire {
    fn inspect(&mut self, _: Inspect) -> Condition {
        if self.said.meter.capacity().is_draining { Condition::Closed } else { Condition::Usable }
    }

    fn into_socket(self) -> Option<Socket> {
        Some(self.stream.into())
    }
}

impl Multiplexed for Wire {
    fn meter(&self) -> &StreamMeter {
        assert!(!self.said.peers.panics.load(Ordering::SeqCst), "the connection's own code");
        &self.said.meter
    }

    fn is_exclusive(&self) -> bool {
        self.said.exclusive
    }
}

fn pool(
    backend: corepool::Backend,
    change: impl FnOnce(&mut corepool::EndpointSettings),
) -> (Pool<Mux>, Mux) {
    let mux = Mux::default();
    let pool = tuned(Pool::builder(mux.clone()), backend).endpoint(change).build().unwrap();
    (pool, mux)
}

async fn stream(group: &StreamGroup<Mux>) -> Result<Stream, CheckoutError> {
    group.lease().await.map(counted)
}

fn counted(lease: StreamLease<Mux>) -> Stream {
    let streams = lease.said.streams.fetch_add(1, Ordering::SeqCst) + 1;
    lease.said.most.fetch_max(streams, Ordering::SeqCst);
    let counted = Counted(Arc::clone(&lease.said));
    Stream { lease, counted }
}

async fn streams(group: &StreamGroup<Mux>, count: usize) -> Vec<Stream> {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..count {
        let group = group.clone();
        tasks.spawn(async move { stream(&group).await });
    }
    tasks.join_all().await.into_iter().map(Result::unwrap).collect()
}

on_both_drivers! {
    async fn callers_at_once_share_the_first_connection(backend) {
        let origin = Origin::start();
        let (pool, mux) = pool(backend, |_| ());
        let group = pool.streams(origin.address);
        let held = streams(&group, 100).await;
        assert_eq!(mux.made().len(), 1, "one dial while the first is under way");
        let stats = group.stats();
        assert_eq!((stats.connections, stats.leased, stats.waiting), (1, 100, 0));
        drop(held);
        close_and_check(pool).await;
    }

    async fn as_many_connections_as_the_streams_need_and_none_above_its_limit(backend) {
        let origin = Origin::start();
        let (pool, mux) = pool(backend, |_| ());
        mux.0.allows.store(16, Ordering::SeqCst);
        let group = pool.streams(origin.address);
        let held = streams(&group, 100).await;
        let made = mux.made();
        assert_eq!(made.len(), 7, "100 streams at 16 each");
        assert!(made.iter().all(|said| said.most.load(Ordering::SeqCst) <= 16));
        drop(held);
        close_and_check(pool).await;
    }

    async fn what_was_configured_holds_where_the_peer_allows_more(backend) {
        let origin = Origin::start();
        let (pool, mux) = pool(backend, |policy| policy.streams.max_streams = 3);
        let group = pool.streams(origin.address);
        let held = streams(&group, 7).await;
        assert_eq!(mux.made().len(), 3);
        assert!(mux.made().iter().all(|said| said.most.load(Ordering::SeqCst) <= 3));
        drop(held);
        close_and_check(pool).await;
    }

    async fn a_limit_that_is_configured_anew_holds_at_once(backend) {
        let origin = Origin::start();
        let (pool, mux) = pool(backend, |policy| {
            (policy.streams.max_connections, policy.streams.max_streams) = (1, 2);
        });
        mux.0.allows.store(4, Ordering::SeqCst);
        let group = pool.streams(origin.address);
        let mut held = streams(&group, 2).await;
        let waiting = tokio::spawn({
            let group = group.clone();
            async move { stream(&group).await }
        });
        eventually("in line", || group.stats().waiting == 1).await;
        group.group().reconfigure(|policy| policy.streams.max_streams = 9).unwrap();
        held.push(waiting.await.unwrap().unwrap());
        held.push(stream(&group).await.unwrap());
        assert!(group.try_lease().is_none(), "the peer allows no more");
        group.group().reconfigure(|policy| policy.streams.max_streams = 3).unwrap();
        held.truncate(3);
        assert!(group.try_lease().is_none(), "three of three");
        assert_eq!(mux.made().len(), 1);
        drop(held);
        close_and_check(pool).await;
    }

    async fn the_connection_with_the_fewest_streams_is_next(backend) {
        let origin = Origin::start();
        let (pool, mux) = pool(backend, |policy| policy.streams.max_streams = 4);
        let group = pool.streams(origin.address);
        let mut held = streams(&group, 8).await;
        let first = Arc::clone(&mux.made()[0]);
        // Three end on the first, one on the second.
        for (said, count) in [(first.clone(), 3), (Arc::clone(&mux.made()[1]), 1)] {
            for _ in 0..count {
                let at = held.iter().position(|held| Arc::ptr_eq(held.said(), &said)).unwrap();
                drop(held.swap_remove(at));
            }
        }
        let next = [stream(&group).await.unwrap(), stream(&group).await.unwrap()];
        assert!(next.iter().all(|next| Arc::ptr_eq(next.said(), &first)));
        assert_eq!(mux.made().len(), 2);
        drop((held, next));
        close_and_check(pool).await;
    }

    async fn a_limit_that_the_peer_changes_holds_at_once(backend) {
        let origin = Origin::start();
        let (pool, mux) = pool(backend, |policy| policy.streams.max_connections = 1);
        mux.0.allows.store(4, Ordering::SeqCst);
        let group = pool.streams(origin.address);
        let mut held = streams(&group, 4).await;
        let said = Arc::clone(&mux.made()[0]);
        said.meter.set_max_streams(2);
        held.truncate(2);
        assert!(group.try_lease().is_none(), "two of two");
        drop(held.pop());
        held.push(counted(group.try_lease().expect("one of two")));
        let waiting = tokio::spawn({
            let group = group.clone();
            async move { stream(&group).await }
        });
        eventually("in line", || group.stats().waiting == 1).await;
        said.meter.set_max_streams(3);
        held.push(waiting.await.unwrap().unwrap());
        assert_eq!(group.stats().leased, 3);
        drop(held);
        close_and_check(pool).await;
    }

    async fn a_connection_that_drains_serves_its_streams_and_no_others(backend) {
        let origin = Origin::start();
        let (pool, mux) = pool(backend, |policy| policy.streams.max_connections = 1);
        let group = pool.streams(origin.address);
        let held = stream(&group).await.unwrap();
        mux.made()[0].meter.drain();
        let next = stream(&group).await.unwrap();
        assert!(!Arc::ptr_eq(held.said(), next.said()), "another one, although it stands there still");
        assert_eq!(group.group().stats().in_use, 2);
        drop(held);
        eventually("ended", || group.group().stats().closed_total() == 1).await;
        drop(next);
        close_and_check(pool).await;
    }

    async fn one_that_drains_at_rest_is_not_shared_again(backend) {
        let origin = Origin::start();
        let (pool, mux) = pool(backend, |_| ());
        let group = pool.streams(origin.address);
        drop(stream(&group).await.unwrap());
        eventually("at rest", || group.group().stats().idle == 1).await;
        mux.made()[0].meter.drain();
        drop(stream(&group).await.unwrap());
        assert_eq!(mux.made().len(), 2);
        assert_eq!(group.group().stats().closed_for(CloseReason::PeerClosed), 1);
        close_and_check(pool).await;
    }

    async fn a_connection_without_streams_goes_to_rest_and_is_found_there(backend) {
        let origin = Origin::start();
        let (pool, mux) = pool(backend, |_| ());
        let group = pool.streams(origin.address);
        for _ in 0..3 {
            drop(stream(&group).await.unwrap());
            assert_eq!(group.stats().connections, 1, "it stays for a while");
            eventually("at rest", || group.group().stats().idle == 1).await;
            assert_eq!(group.stats().connections, 0);
        }
        assert_eq!(mux.made().len(), 1);
        close_and_check(pool).await;
    }

    async fn it_shrinks_when_half_would_do(backend) {
        let origin = Origin::start();
        let (pool, _) = pool(backend, |policy| policy.streams.max_streams = 4);
        let group = pool.streams(origin.address);
        let mut held = streams(&group, 16).await;
        assert_eq!(group.stats().connections, 4);
        held.truncate(1);
        eventually("shrunk", || group.stats().connections == 1).await;
        drop(held);
        close_and_check(pool).await;
    }

    async fn several_connections_where_that_is_asked_for(backend) {
        let origin = Origin::start();
        let (pool, mux) = pool(backend, |policy| policy.streams.min_connections = 3);
        let group = pool.streams(origin.address);
        let held = streams(&group, 6).await;
        eventually("spread", || group.stats().connections == 3).await;
        let more = streams(&group, 6).await;
        let counts: Vec<_> =
            mux.made().iter().map(|said| said.streams.load(Ordering::SeqCst)).collect();
        assert_eq!(counts.iter().sum::<u32>(), 12);
        assert!(counts.iter().all(|count| *count >= 2), "{counts:?}");
        drop((held, more));
        close_and_check(pool).await;
    }

    async fn at_the_limit_a_caller_waits_for_so_long(backend) {
        let origin = Origin::start();
        let (pool, mux) = pool(backend, |policy| {
            (policy.streams.max_connections, policy.streams.max_streams) = (1, 1);
            policy.timeouts.acquire_timeout_ms = 100;
        });
        let group = pool.streams(origin.address);
        let held = stream(&group).await.unwrap();
        let error = stream(&group).await.err().unwrap();
        assert_eq!(
            error.to_string(),
            format!(
                "{}: no stream within 100 ms (1 of 1 streams of 1 connections leased, 0 callers waiting)",
                origin.address
            )
        );
        assert_eq!(mux.made().len(), 1);
        drop(held);
        drop(stream(&group).await.unwrap());
        close_and_check(pool).await;
    }

    async fn at_the_limit_a_caller_is_refused_where_that_is_the_policy(backend) {
        let origin = Origin::start();
        let (pool, _) = pool(backend, |policy| {
            (policy.streams.max_connections, policy.streams.max_streams) = (1, 2);
            policy.streams.at_limit = AtStreamLimit::Reject;
        });
        let group = pool.streams(origin.address);
        let held = streams(&group, 2).await;
        let error = stream(&group).await.err().unwrap();
        assert_eq!(
            error.to_string(),
            format!("{}: all streams of 1 connections are in use (2)", origin.address)
        );
        drop(held);
        close_and_check(pool).await;
    }

    async fn callers_beside_the_first_dial_are_not_refused_for_its_streams(backend) {
        let origin = Origin::start();
        let (pool, mux) = pool(backend, |policy| {
            (policy.streams.max_connections, policy.streams.max_streams) = (1, 8);
            policy.streams.at_limit = AtStreamLimit::Reject;
        });
        let group = pool.streams(origin.address);
        let held = streams(&group, 8).await;
        assert_eq!(mux.made().len(), 1);
        assert!(matches!(stream(&group).await, Err(CheckoutError::StreamsAtLimit { .. })));
        drop(held);
        close_and_check(pool).await;
    }

    async fn at_the_limit_a_caller_has_a_connection_alone_where_that_is_the_policy(backend) {
        let origin = Origin::start();
        let (pool, mux) = pool(backend, |policy| {
            (policy.streams.max_connections, policy.streams.max_streams) = (1, 2);
            policy.streams.at_limit = AtStreamLimit::Overflow;
        });
        let group = pool.streams(origin.address);
        let held = streams(&group, 2).await;
        let alone = stream(&group).await.unwrap();
        assert!(!alone.lease.is_shared());
        assert_eq!((mux.made().len(), group.stats().connections), (2, 1));
        drop(alone);
        eventually("closed", || group.group().stats().closed_for(CloseReason::Overflow) == 1).await;
        drop(held);
        close_and_check(pool).await;
    }

    async fn at_the_limit_callers_share_as_far_as_the_peer_allows_where_that_is_the_policy(backend) {
        let origin = Origin::start();
        let (pool, mux) = pool(backend, |policy| {
            (policy.streams.max_connections, policy.streams.max_streams) = (2, 2);
            policy.streams.at_limit = AtStreamLimit::Oversubscribe;
            policy.timeouts.acquire_timeout_ms = 100;
        });
        mux.0.allows.store(5, Ordering::SeqCst);
        let group = pool.streams(origin.address);
        let held = streams(&group, 10).await;
        let most: Vec<_> = mux.made().iter().map(|said| said.most.load(Ordering::SeqCst)).collect();
        assert_eq!(most, [5, 5]);
        assert!(stream(&group).await.is_err(), "the peer allows no more");
        drop(held);
        close_and_check(pool).await;
    }

    async fn a_failed_dial_tells_all_that_it_was_for(backend) {
        let origin = Origin::start();
        let (pool, mux) = pool(backend, |_| ());
        mux.0.refuses.store(true, Ordering::SeqCst);
        mux.0.stalls.store(true, Ordering::SeqCst);
        let group = pool.streams(origin.address);
        let calls: Vec<_> = (0..20).map(|_| {
            let group = group.clone();
            tokio::spawn(async move { stream(&group).await })
        }).collect();
        eventually("in line", || group.stats().waiting == 20).await;
        mux.0.stalls.store(false, Ordering::SeqCst);
        for call in calls {
            let error = call.await.unwrap().err().unwrap();
            let CheckoutError::Dial(error) = error else { panic!("{error}") };
            assert_eq!(error.kind(), DialErrorKind::Connector);
            assert!(error.to_string().ends_with("the test wants none"), "{error}");
        }
        assert_eq!(group.group().stats().dial_failures, 1, "one dial for 20 callers");
        mux.0.refuses.store(false, Ordering::SeqCst);
        drop(stream(&group).await.unwrap());
        close_and_check(pool).await;
    }

    async fn a_connection_that_panics_as_it_is_shared_fails_those_in_line_and_no_others(backend) {
        let origin = Origin::start();
        let (pool, mux) = pool(backend, |policy| policy.streams.max_connections = 1);
        let group = pool.streams(origin.address);
        mux.0.panics.store(true, Ordering::SeqCst);
        for _ in 0..3 {
            let error = stream(&group).await.err().unwrap();
            let CheckoutError::Dial(error) = error else { panic!("{error}") };
            assert_eq!(error.kind(), DialErrorKind::Backend);
        }
        mux.0.panics.store(false, Ordering::SeqCst);
        drop(stream(&group).await.unwrap());
        assert_eq!(group.stats().connections, 1);
        close_and_check(pool).await;
    }

    async fn a_connection_that_dies_with_all_its_streams_is_replaced(backend) {
        let origin = Origin::start();
        let (pool, mux) = pool(backend, |policy| {
            (policy.streams.max_connections, policy.streams.max_streams) = (1, 2);
        });
        let group = pool.streams(origin.address);
        let held = streams(&group, 2).await;
        eventually("accepted", || origin.accepted() == 1).await;
        origin.hang_up();
        let next = stream(&group).await.unwrap();
        assert_eq!(mux.made().len(), 2);
        drop((held, next));
        close_and_check(pool).await;
    }

    async fn connections_above_a_lowered_maximum_go_with_their_last_stream(backend) {
        let origin = Origin::start();
        let (pool, _) = pool(backend, |policy| policy.streams.max_streams = 2);
        let group = pool.streams(origin.address);
        let held = streams(&group, 8).await;
        assert_eq!(group.stats().connections, 4);
        group.group().reconfigure(|policy| policy.streams.max_connections = 1).unwrap();
        eventually("lowered", || group.stats().connections == 1).await;
        assert_eq!(group.group().stats().in_use, 4, "their streams go on");
        drop(held);
        eventually("at rest", || group.group().stats().idle == 4).await;
        close_and_check(pool).await;
    }

    async fn a_caller_that_leaves_takes_nothing_with_it(backend) {
        let origin = Origin::start();
        let (pool, _) = pool(backend, |policy| {
            (policy.streams.max_connections, policy.streams.max_streams) = (1, 1);
        });
        let group = pool.streams(origin.address);
        for round in 0..50_u32 {
            let held = stream(&group).await.unwrap();
            let (leaving, staying) = (group.clone(), group.clone());
            let leaving = tokio::spawn(async move { stream(&leaving).await });
            let staying = tokio::spawn(async move { stream(&staying).await });
            if round % 2 == 0 {
                tokio::task::yield_now().await;
            }
            drop(held);
            leaving.abort();
            drop(staying.await.unwrap().unwrap());
            drop(leaving.await);
            assert_eq!((group.stats().leased, group.stats().waiting), (0, 0));
        }
        close_and_check(pool).await;
    }

    async fn an_eviction_ends_connections_with_their_last_stream(backend) {
        let origin = Origin::start();
        let (pool, mux) = pool(backend, |_| ());
        let group = pool.streams(origin.address);
        let held = stream(&group).await.unwrap();
        group.group().evict();
        let next = stream(&group).await.unwrap();
        assert_eq!(mux.made().len(), 2);
        drop(held);
        eventually("ended", || group.group().stats().closed_for(CloseReason::Purged) == 1).await;
        drop(next);
        close_and_check(pool).await;
    }

    async fn a_suspended_endpoint_lends_no_stream_until_it_is_resumed(backend) {
        let origin = Origin::start();
        let (pool, _) = pool(backend, |_| ());
        let group = pool.streams(origin.address);
        let held = stream(&group).await.unwrap();
        group.group().suspend();
        assert!(group.try_lease().is_none());
        let waiting = tokio::spawn({
            let group = group.clone();
            async move { stream(&group).await }
        });
        eventually("in line", || group.stats().waiting == 1).await;
        drop(held);
        assert_eq!(group.stats().leased, 0);
        group.group().resume();
        drop(waiting.await.unwrap().unwrap());
        close_and_check(pool).await;
    }

    async fn an_old_connection_takes_no_more_streams(backend) {
        let origin = Origin::start();
        let (pool, mux) = pool(backend, |policy| {
            policy.lifetime.max_lifetime_ms = Some(300);
            policy.lifetime.lifetime_jitter_percent = 0;
        });
        let group = pool.streams(origin.address);
        let held = stream(&group).await.unwrap();
        eventually("replaced", || {
            drop(group.try_lease());
            group.stats().connections == 0
        }).await;
        let next = stream(&group).await.unwrap();
        assert_eq!(mux.made().len(), 2);
        drop(held);
        let ended = || group.group().stats().closed_for(CloseReason::MaxLifetime) == 1;
        eventually("ended by its age", ended).await;
        drop(next);
        close_and_check(pool).await;
    }

    async fn a_connection_that_may_serve_three_streams_serves_no_fourth(backend) {
        let origin = Origin::start();
        let (pool, mux) = pool(backend, |policy| policy.lifetime.max_uses = Some(3));
        let group = pool.streams(origin.address);
        let held = streams(&group, 4).await;
        assert_eq!(mux.made().len(), 2, "the fourth has one of its own");
        drop(held);
        let used_up = |count| group.group().stats().closed_for(CloseReason::MaxUses) == count;
        eventually("the first is closed", || used_up(1)).await;
        for _ in 0..2 {
            drop(stream(&group).await.unwrap());
        }
        eventually("the second too, unasked", || used_up(2)).await;
        drop(stream(&group).await.unwrap());
        assert_eq!(mux.made().len(), 3);
        close_and_check(pool).await;
    }

    async fn streams_count_on_when_their_connection_has_been_at_rest(backend) {
        let origin = Origin::start();
        let (pool, mux) = pool(backend, |policy| policy.lifetime.max_uses = Some(4));
        let group = pool.streams(origin.address);
        for _ in 0..2 {
            drop(streams(&group, 2).await);
            eventually("at rest or closed", || group.stats().connections == 0).await;
        }
        assert_eq!(mux.made().len(), 1);
        assert_eq!(group.group().stats().closed_for(CloseReason::MaxUses), 1);
        close_and_check(pool).await;
    }

    async fn a_closed_pool_lends_nothing_and_waits_for_streams(backend) {
        let origin = Origin::start();
        let (pool, _) = pool(backend, |_| ());
        let group = pool.streams(origin.address);
        let held = stream(&group).await.unwrap();
        let report = pool.close_within(Duration::from_millis(100)).await;
        assert_eq!(report.left, 1);
        let error = stream(&group).await.err().unwrap();
        assert!(matches!(error, CheckoutError::Closed { .. }), "{error}");
        drop(held);
        pool.close().await;
    }

    async fn a_pool_whose_handles_go_ends_with_its_last_stream(backend) {
        let origin = Origin::start();
        let (pool, mux) = pool(backend, |_| ());
        let group = pool.streams(origin.address);
        let held = stream(&group).await.unwrap();
        drop((pool, group));
        let said = Arc::downgrade(&mux.made()[0]);
        mux.0.made.lock().unwrap().clear();
        drop(held);
        eventually("gone", || said.strong_count() == 0).await;
    }

    async fn connections_that_cannot_be_shared_go_to_a_caller_each(backend) {
        let origin = Origin::start();
        let (pool, mux) = pool(backend, |_| ());
        mux.0.exclusive.store(true, Ordering::SeqCst);
        let group = pool.streams(origin.address);
        for _ in 0..3 {
            let held = streams(&group, 5).await;
            assert!(held.iter().all(|held| !held.lease.is_shared()));
            assert_eq!((mux.made().len(), group.stats().connections), (5, 0));
            for Stream { lease, counted } in held {
                drop(counted);
                lease.into_exclusive().ok().unwrap().release();
            }
        }
        close_and_check(pool).await;
    }

    async fn an_endpoint_whose_connections_can_be_shared_from_now_on_has_them_shared(backend) {
        let origin = Origin::start();
        let (pool, mux) = pool(backend, |_| ());
        mux.0.exclusive.store(true, Ordering::SeqCst);
        let group = pool.streams(origin.address);
        drop(streams(&group, 2).await);
        mux.0.exclusive.store(false, Ordering::SeqCst);
        group.group().evict();
        let held = streams(&group, 5).await;
        assert!(held.iter().all(|held| held.lease.is_shared()));
        assert_eq!(group.stats().connections, 1, "those dialled beside it rest");
        // And back.
        mux.0.exclusive.store(true, Ordering::SeqCst);
        group.group().evict();
        let alone = streams(&group, 2).await;
        assert!(alone.iter().all(|held| !held.lease.is_shared()));
        drop((held, alone));
        close_and_check(pool).await;
    }

    async fn a_dial_for_callers_that_have_gone_keeps_no_pool(backend) {
        let origin = Origin::start();
        let mux = Mux::default();
        mux.0.stalls.store(true, Ordering::SeqCst);
        let pool = tuned(Pool::builder(mux.clone()), backend);
        let pool = pool.acquire_timeout(Duration::from_secs(600));
        let pool = pool.connect_timeout(Duration::from_secs(600)).build().unwrap();
        let group = pool.streams(origin.address);
        let waiting = tokio::spawn(async move { stream(&group).await.is_ok() });
        eventually("under way", || mux.0.stalled.load(Ordering::SeqCst) == 1).await;
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
        drop(pool);
        eventually("given up", || mux.0.stalled.load(Ordering::SeqCst) == 0).await;
    }

    async fn a_hook_that_asks_for_a_group_holds_no_close_up(backend) {
        let origin = Origin::start();
        let asked: Arc<std::sync::OnceLock<Pool<Mux>>> = Arc::default();
        let pool = tuned(Pool::builder(Mux::default()), backend).after_return({
            let (asked, other) = (Arc::clone(&asked), origin.address);
            move |_, _| asked.get().is_some_and(|pool| pool.group(other).settings().streams.max_streams > 0)
        });
        let pool = pool.build().unwrap();
        asked.set(pool.clone()).ok().unwrap();
        let group = pool.streams(origin.address);
        drop(stream(&group).await.unwrap());
        assert_eq!(group.stats().connections, 1);
        let closing = std::thread::spawn({
            let pool = pool.clone();
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.unwrap().block_on(pool.close());
            }
        });
        eventually("closed", || closing.is_finished()).await;
        closing.join().unwrap();
    }

    async fn ten_thousand_streams_by_a_hundred_callers_never_exceed_a_limit(backend) {
        let origin = Origin::start();
        let (pool, mux) = pool(backend, |_| ());
        mux.0.allows.store(16, Ordering::SeqCst);
        let group = pool.streams(origin.address);
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let group = group.clone();
            tasks.spawn(async move {
                for _ in 0..100 {
                    let held = stream(&group).await.unwrap();
                    tokio::task::yield_now().await;
                    drop(held);
                }
            });
        }
        tasks.join_all().await;
        let made = mux.made();
        assert!(made.len() <= 7, "{} connections", made.len());
        assert!(made.iter().all(|said| said.most.load(Ordering::SeqCst) <= 16));
        close_and_check(pool).await;
    }
}
