//! Peers that misbehave on command, a resolver by script, and a recorder of events.
#![allow(dead_code, unreachable_pub)] // each test file uses its part

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use corepool::{Answer, PoolEvent, Resolver, Resolving};

/// The IPv4 address of this host.
pub const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Another one, which Linux has without being told.
pub const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
/// The IPv6 one.
pub const HERE_V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// Ends an echo's connection by an RST: from its last descriptor, so the echo's own goes first.
pub fn reset(stream: TcpStream) {
    let peer = socket2::Socket::from(stream);
    peer.set_linger(Some(Duration::ZERO)).unwrap();
    peer.shutdown(Shutdown::Read).unwrap();
    // The echo's thread closes its descriptor when its read returns.
    thread::sleep(Duration::from_millis(20));
    drop(peer);
}

/// Says something that nobody asked for, and gives it the time to arrive.
pub fn blurt(stream: &TcpStream) {
    let mut stream = stream;
    stream.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").unwrap();
    thread::sleep(Duration::from_millis(50));
}

/// A port of this host that nobody listens on.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Whether this host has IPv6.
pub fn has_v6() -> bool {
    TcpListener::bind("[::1]:0").is_ok()
}

/// An origin that says back what it hears, and to whom: on whatever address.
pub struct Origin {
    pub address: SocketAddr,
    /// Each connection that was made to it.
    pub accepted: mpsc::Receiver<TcpStream>,
}

impl Origin {
    pub fn at(address: impl Into<SocketAddr>) -> io::Result<Self> {
        let listener = TcpListener::bind(address.into())?;
        let address = listener.local_addr()?;
        let (accepting, accepted) = mpsc::channel();
        thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let _ = accepting.send(stream.try_clone().unwrap());
                thread::spawn(move || {
                    let mut buffer = [0; 4096];
                    while let Ok(count @ 1..) = stream.read(&mut buffer) {
                        if stream.write_all(&buffer[..count]).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Ok(Self { address, accepted })
    }

    /// The next connection made to it.
    pub fn next(&self) -> TcpStream {
        self.accepted.recv_timeout(Duration::from_secs(5)).expect("a connection arrives")
    }

    /// How many connections were made to it since they were last asked for.
    pub fn count(&self) -> usize {
        self.accepted.try_iter().count()
    }
}

/// Origins on several addresses with one port.
pub fn origins<const N: usize>(addresses: [IpAddr; N]) -> ([Origin; N], u16) {
    for _ in 0..64 {
        let port = free_port();
        let found: Vec<_> =
            addresses.iter().filter_map(|address| Origin::at((*address, port)).ok()).collect();
        if let Ok(found) = found.try_into() {
            return (found, port);
        }
    }
    panic!("no port that is free on all of {addresses:?}");
}

/// An origin that takes no answer: it keeps what it hears, byte by byte.
pub struct Listener {
    pub address: SocketAddr,
    /// Each connection: whence it came, and what was sent on it up to its end.
    pub heard: mpsc::Receiver<(SocketAddr, Vec<u8>)>,
}

impl Listener {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (hearing, heard) = mpsc::channel();
        thread::spawn(move || {
            while let Ok((mut stream, from)) = listener.accept() {
                let hearing = hearing.clone();
                thread::spawn(move || {
                    let mut bytes = Vec::new();
                    let _ = stream.read_to_end(&mut bytes);
                    hearing.send((from, bytes))
                });
            }
        });
        Self { address, heard }
    }

    /// What was heard on the next connection that ended.
    pub fn next(&self) -> (SocketAddr, Vec<u8>) {
        self.heard.recv_timeout(Duration::from_secs(5)).expect("a connection ends")
    }
}

/// What a resolver does when it is asked.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Answers, with a TTL in milliseconds.
    With(Vec<IpAddr>, u64),
    /// The same, but not at once.
    Slowly(Vec<IpAddr>, u64),
    Fails,
    Never,
    Panics,
}

/// A resolver that goes by a script: one reply for each time that it is asked, and the last for
/// ever after.
#[derive(Clone, Debug)]
pub struct Scripted(Arc<Script>);

#[derive(Debug)]
struct Script {
    replies: Mutex<VecDeque<Reply>>,
    asked: AtomicUsize,
}

impl Scripted {
    pub fn new(replies: impl IntoIterator<Item = Reply>) -> Self {
        let replies = Mutex::new(replies.into_iter().collect());
        Self(Arc::new(Script { replies, asked: AtomicUsize::new(0) }))
    }

    /// From now on it says only this.
    pub fn say(&self, reply: Reply) {
        *self.0.replies.lock().unwrap() = VecDeque::from([reply]);
    }

    pub fn asked(&self) -> usize {
        self.0.asked.load(Ordering::SeqCst)
    }
}

impl Resolver for Scripted {
    fn resolve<'a>(&'a self, name: &'a str) -> Resolving<'a> {
        self.0.asked.fetch_add(1, Ordering::SeqCst);
        let reply = {
            let mut replies = self.0.replies.lock().unwrap();
            let next = replies.pop_front().expect("a script has a last reply");
            if replies.is_empty() {
                replies.push_back(next.clone());
            }
            next
        };
        let answer = |addresses: Vec<IpAddr>, ttl| {
            Ok(Answer::new(addresses, Some(Duration::from_millis(ttl))))
        };
        Box::pin(async move {
            match reply {
                Reply::With(addresses, ttl) => answer(addresses, ttl),
                Reply::Slowly(addresses, ttl) => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    answer(addresses, ttl)
                }
                Reply::Fails => Err(io::Error::other(format!("host {name}: no server answers"))),
                Reply::Never => std::future::pending().await,
                Reply::Panics => panic!("a resolver's bug, on purpose"),
            }
        })
    }
}

/// Keeps what an observer is told, as text: the label, and what else there is to say.
#[derive(Clone, Debug, Default)]
pub struct Events(Arc<Mutex<Vec<String>>>);

impl Events {
    /// What to give to the builder.
    pub fn observer(&self) -> impl Fn(&PoolEvent<'_>) + Send + Sync + 'static {
        let Self(events) = self.clone();
        move |event| {
            let text = match event {
                PoolEvent::DialFailed { error, .. } => format!("dial_failed: {error}"),
                PoolEvent::Closed { reason, age, uses, .. } => {
                    format!("closed: {} {} {uses}", reason.as_str(), age.as_millis())
                }
                PoolEvent::WarmedUp { ready, failed, .. } => format!("warmed_up: {ready} {failed}"),
                PoolEvent::LeakSuspected { held, location, .. }
                | PoolEvent::LeakReturned { held, location, .. } => {
                    let (file, line) = (location.file(), location.line());
                    format!("{}: {file}:{line} {}", event.as_str(), held.as_millis())
                }
                PoolEvent::AddressesChanged { added, removed, .. } => {
                    format!("addresses_changed: {added:?} {removed:?}")
                }
                other => other.as_str().to_owned(),
            };
            let endpoint = event.endpoint().map(ToString::to_string).unwrap_or_default();
            events.lock().unwrap().push(format!("{text} @{endpoint}"));
        }
    }

    /// All that begin like this.
    pub fn of(&self, label: &str) -> Vec<String> {
        let events = self.0.lock().unwrap();
        events.iter().filter(|event| event.starts_with(label)).cloned().collect()
    }

    pub fn count(&self, label: &str) -> usize {
        self.of(label).len()
    }
}
