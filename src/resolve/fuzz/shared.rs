//! Many dials that look one name up, while answers come and dials are given up.

use core::task::{Context, Waker};
use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    sync::Arc,
    task::{Poll, Wake},
};

use crossbeam_queue::SegQueue;

use super::*;
use crate::sync::{AtomicBool, AtomicU32, AtomicWaker, Ordering, register};

/// Answers when it is told what.
#[derive(Debug, Default)]
struct Scripted {
    /// What comes next.
    told: SegQueue<io::Result<Answer>>,
    waker: AtomicWaker,
    /// Look-ups under way.
    asked: AtomicU32,
}

/// A look-up under way.
struct Asked<'a>(&'a Scripted);

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        // Relaxed, as everywhere here: one thread.
        self.0.asked.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Resolver for Scripted {
    fn resolve<'a>(&'a self, _: &'a str) -> Resolving<'a> {
        Box::pin(async move {
            assert_eq!(self.asked.fetch_add(1, Ordering::Relaxed), 0, "asked twice at a time");
            let _asked = Asked(self);
            poll_fn(|cx| {
                register(&self.waker, cx.waker());
                self.told.pop().map_or(Poll::Pending, Poll::Ready)
            })
            .await
        })
    }
}

/// Says whether a future wants to be polled.
#[derive(Debug)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

type Found = io::Result<(Vec<SocketAddr>, Option<Change>)>;

/// A dial that looks the name up.
struct Dial<'a> {
    look_up: Pin<Box<dyn Future<Output = Found> + 'a>>,
    woken: Arc<Woken>,
}

/// Dials come, wait, and are given up; answers come, or fail; time passes.
pub(super) fn run(bytes: &mut Bytes<'_>) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().expect("a runtime");
    let _entered = runtime.enter();
    let resolver = Scripted::default();
    let names = SharedNames::new("a.test", 443, lifetimes(bytes));
    let mut dials: Vec<Dial<'_>> = Vec::new();
    let mut known: Vec<SocketAddr> = Vec::new();
    while !bytes.is_empty() {
        match bytes.below(8) {
            0 => {
                let time = Duration::from_millis(u64::from(bytes.number()) << (bytes.byte() % 12));
                runtime.block_on(tokio::time::advance(time));
            }
            1 => names.set_lifetimes(lifetimes(bytes)),
            2 if !dials.is_empty() => drop(dials.swap_remove(bytes.below(256) % dials.len())),
            3 | 4 if resolver.asked.load(Ordering::Relaxed) == 1 => {
                let answer = Answer::new(addresses(bytes), ttl(bytes));
                if !answer.addresses.is_empty() {
                    known = answer.addresses.iter().map(|ip| (*ip, 443).into()).collect();
                }
                resolver.told.push(Ok(answer));
                resolver.waker.wake();
            }
            5 if resolver.asked.load(Ordering::Relaxed) == 1 => {
                resolver.told.push(Err(io::ErrorKind::TimedOut.into()));
                resolver.waker.wake();
            }
            _ if dials.len() < 8 => dials.push(Dial {
                look_up: Box::pin(names.look_up(&resolver)),
                woken: Arc::new(Woken(AtomicBool::new(true))),
            }),
            _ => {}
        }
        settle(&mut dials, &known);
        assert_eq!(names.addresses(), known);
        let asked = resolver.asked.load(Ordering::Relaxed);
        assert!(asked == 1 || dials.is_empty(), "{} wait for nobody", dials.len());
        let fresh = match names.glance(clock::now()) {
            Lookup::Unknown => {
                assert!(known.is_empty());
                continue;
            }
            Lookup::Fresh(addresses) | Lookup::Stale(addresses) => addresses,
        };
        assert_eq!(fresh, known);
    }
}

/// Polls who was woken until nobody is. Who has an answer leaves.
fn settle(dials: &mut Vec<Dial<'_>>, known: &[SocketAddr]) {
    while let Some(at) = dials.iter().position(|dial| dial.woken.0.swap(false, Ordering::Relaxed)) {
        let dial = &mut dials[at];
        let waker = Waker::from(Arc::clone(&dial.woken));
        let found = dial.look_up.as_mut().poll(&mut Context::from_waker(&waker));
        let Poll::Ready(found) = found else {
            continue;
        };
        drop(dials.swap_remove(at));
        match found {
            Ok((addresses, _)) => {
                assert!(!addresses.is_empty(), "an answer without an address");
                assert_eq!(addresses, known);
            }
            Err(error) => assert!(known.is_empty(), "{error}, with an old answer to go on with"),
        }
    }
}
