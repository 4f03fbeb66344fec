//! The verbs of a driver, on each of the two that do real I/O; on io_uring also as older kernels
//! have it.

mod batches;
mod kernels;

use core::{future::poll_fn, time::Duration};
use std::{
    collections::VecDeque,
    io::{self, Read},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::Arc,
    task::Poll,
};

use socket2::{Domain, Type};

use self::kernels::{KERNELS, on_kernel, open_descriptors};
use super::*;
use crate::sockets::{PortWindow, SocketOptions};

/// A driver and what it told so far.
struct Rig {
    driver: Box<dyn Driver>,
    conflicts: Arc<PortConflicts>,
    events: VecDeque<Event>,
}

impl Rig {
    async fn next(&mut self) -> Event {
        let Self { driver, events, .. } = self;
        let next = poll_fn(|cx| {
            loop {
                if let Some(event) = events.pop_front() {
                    return Poll::Ready(event);
                }
                if driver.turn(cx, events).unwrap().is_pending() {
                    return Poll::Pending;
                }
            }
        });
        tokio::time::timeout(Duration::from_secs(5), next).await.expect("something happens")
    }

    fn dial(&mut self, id: u32, to: SocketAddr) {
        self.dial_with(id, Destination::Ip(to), SocketOptions::default());
    }

    fn dial_with(&mut self, id: u32, to: Destination, options: SocketOptions) {
        self.driver.dial(DialId(id), &Target { to, options: Arc::new(options) });
    }

    async fn dialed(&mut self) -> (u32, io::Result<Socket>) {
        match self.next().await {
            Event::Dialed(DialId(id), outcome) => (id, outcome),
            other => panic!("{other:?}"),
        }
    }

    /// Nothing more happens, for as long as the loopback could take.
    async fn quiet(&mut self) {
        let Self { driver, events, .. } = self;
        let turns = poll_fn(|cx| {
            while driver.turn(cx, events).unwrap().is_ready() {
                assert!(events.is_empty(), "{events:?}");
            }
            Poll::<()>::Pending
        });
        let _ = tokio::time::timeout(Duration::from_millis(5), turns).await;
    }

    /// A connection to a listener, and its other end.
    async fn connection(&mut self, listener: &TcpListener) -> (Socket, TcpStream) {
        self.dial(1, listener.local_addr().unwrap());
        let (_, socket) = self.dialed().await;
        (socket.unwrap(), listener.accept().unwrap().0)
    }
}

/// Slots of a driver under test.
const SLOTS: usize = 160;

/// Runs a body on both drivers, on the ring for every kernel of [`KERNELS`]; without io_uring, as
/// `COREPOOL_TEST_NO_URING` says, on the reactor alone.
fn on_both(body: impl AsyncFn(Rig)) {
    if std::env::var_os("COREPOOL_TEST_NO_URING").is_none() {
        for kernel in &KERNELS {
            on_kernel(kernel, &body);
        }
    }
    let open = |conflicts: &_| open(Backend::Epoll, SLOTS, conflicts).unwrap().driver;
    on_driver("epoll", open, &body);
}

/// Runs a body on a driver of its own.
fn on_driver(
    name: &str,
    open: impl FnOnce(&Arc<PortConflicts>) -> Box<dyn Driver>,
    body: &impl AsyncFn(Rig),
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let before = open_descriptors();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let conflicts = Arc::default();
        let driver = open(&conflicts);
        body(Rig { driver, conflicts, events: VecDeque::new() }).await;
    });
    assert_eq!(open_descriptors(), before, "INV-4: descriptors after a run on {name}");
}

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

/// A listener that answers no SYN, because its backlog is full; what fills it must live on.
fn blackhole() -> (SocketAddr, Vec<socket2::Socket>) {
    let listener = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut held = vec![listener];
    for _ in 0..4 {
        let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        let _ = socket.connect(&address);
        held.push(socket);
    }
    (address.as_socket().unwrap(), held)
}

#[test]
fn several_dials_are_under_way_by_ids_of_their_own() {
    on_both(async |mut rig| {
        let origin = listener();
        let nobody = listener().local_addr().unwrap();
        let (hole, _held) = blackhole();
        rig.dial(u32::MAX, hole);
        rig.dial(0, origin.local_addr().unwrap());
        rig.dial(7, nobody);
        let mut outcomes = [rig.dialed().await, rig.dialed().await];
        outcomes.sort_by_key(|(id, _)| *id);
        let [(0, Ok(socket)), (7, Err(refused))] = outcomes else { panic!("{outcomes:?}") };
        assert_eq!(socket.peer_addr().unwrap(), origin.local_addr().unwrap());
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        rig.driver.give_up(DialId(u32::MAX));
        let (u32::MAX, Err(error)) = rig.dialed().await else { panic!("nobody answers there") };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    });
}

#[test]
fn a_dial_given_up_before_it_began_is_answered_all_the_same() {
    on_both(async |mut rig| {
        let origin = listener();
        for id in 0..16 {
            rig.dial(id, origin.local_addr().unwrap());
            rig.driver.give_up(DialId(id));
        }
        for _ in 0..16 {
            if let (_, Err(error)) = rig.dialed().await {
                assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            }
        }
    });
}

#[test]
fn a_fin_is_told_from_a_reset() {
    on_both(async |mut rig| {
        let origin = listener();
        let slot = SlotIndex::new(3);
        for expected in [Departure::Finished, Departure::Reset] {
            let (socket, peer) = rig.connection(&origin).await;
            rig.driver.watch(slot, &socket);
            if expected == Departure::Reset {
                socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
            }
            drop(peer);
            let event = rig.next().await;
            let Event::HungUp(hung_up, how) = event else { panic!("{event:?}") };
            assert_eq!((hung_up, how), (slot, expected));
            rig.driver.close(slot, Some(socket), Ending::Fin);
            assert!(matches!(rig.next().await, Event::Closed(closed) if closed == slot));
        }
    });
}

#[test]
fn a_close_is_a_fin_or_a_reset_also_under_a_watch() {
    on_both(async |mut rig| {
        let origin = listener();
        let slot = SlotIndex::new(0);
        for watched in [false, true] {
            for how in [Ending::Fin, Ending::Reset] {
                let (socket, mut peer) = rig.connection(&origin).await;
                if watched {
                    rig.driver.watch(slot, &socket);
                }
                rig.driver.close(slot, Some(socket), how);
                assert!(matches!(rig.next().await, Event::Closed(closed) if closed == slot));
                peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                match (how, peer.read(&mut [0; 1])) {
                    (Ending::Fin, Ok(0)) => {}
                    (Ending::Reset, Err(error)) => {
                        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
                    }
                    (how, other) => panic!("{how:?}, watched: {watched}: {other:?}"),
                }
            }
        }
    });
}

#[test]
fn a_unix_socket_is_dialled_watched_and_closed() {
    on_both(async |mut rig| {
        let path = std::env::temp_dir().join(format!("corepool-driver-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let origin = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let to = Destination::Unix(Arc::from(&*path));
        rig.dial_with(5, to.clone(), SocketOptions::default());
        let (5, Ok(socket)) = rig.dialed().await else { panic!("somebody listens") };
        assert!(socket.is_unix());
        let (peer, _) = origin.accept().unwrap();
        let slot = SlotIndex::new(1);
        rig.driver.watch(slot, &socket);
        drop(peer);
        let event = rig.next().await;
        assert!(matches!(event, Event::HungUp(_, Departure::Finished)), "{event:?}");
        rig.driver.close(slot, Some(socket), Ending::Reset);
        assert!(matches!(rig.next().await, Event::Closed(_)));

        drop(origin);
        rig.dial_with(6, to.clone(), SocketOptions::default());
        let (6, Err(error)) = rig.dialed().await else { panic!("nobody listens") };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        std::fs::remove_file(&path).unwrap();
        rig.dial_with(7, to, SocketOptions::default());
        let (7, Err(error)) = rig.dialed().await else { panic!("nothing is there") };
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let long: Arc<Path> = Path::new(&"a".repeat(200)).into();
        rig.dial_with(8, Destination::Unix(long), SocketOptions::default());
        let (8, Err(error)) = rig.dialed().await else { panic!("the path is too long") };
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    });
}

#[test]
fn a_unix_listener_whose_queue_is_full_refuses_for_now() {
    on_both(async |mut rig| {
        let path = std::env::temp_dir().join(format!("corepool-queue-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = socket2::Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        listener.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
        listener.listen(0).unwrap();
        let mut held = Vec::new();
        let error = loop {
            assert!(held.len() < 8, "a queue of none takes them all");
            let to = Destination::Unix(Arc::from(&*path));
            rig.dial_with(held.len() as u32, to, SocketOptions::default());
            match rig.dialed().await.1 {
                Ok(socket) => held.push(socket),
                Err(error) => break error,
            }
        };
        std::fs::remove_file(&path).unwrap();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{error}");
        assert!(error.to_string().contains("queue is full"), "{error}");
    });
}

#[test]
fn a_dial_moves_from_window_to_window_and_counts_its_conflicts() {
    on_both(async |mut rig| {
        let origin = listener();
        let to = Destination::Ip(origin.local_addr().unwrap());
        // Ports of an address that no other test connects from.
        let options = SocketOptions::default()
            .source("127.0.0.86".parse().unwrap())
            .port_window(PortWindow::default().size(1).range(41_000..=41_003));
        let mut held = Vec::new();
        let (error, before) = loop {
            let before = rig.conflicts.get();
            rig.dial_with(1, to.clone(), options.clone());
            match rig.dialed().await.1 {
                Ok(socket) => held.push(socket),
                Err(error) => break (error, before),
            }
            assert!(held.len() <= 4, "more connections than ports");
        };
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
        // Four windows and the whole range.
        assert_eq!(rig.conflicts.get() - before, 5);
        assert!(!held.is_empty());
        for socket in held {
            let port = socket.into_std().unwrap().local_addr().unwrap().port();
            assert!((41_000..=41_003).contains(&port), "{port}");
        }
    });
}
