//! The addresses of one name, shared by all dials to it: one look-up at a time.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::Notify, time::Instant};

use super::{
    Resolver,
    names::{Change, Lifetimes, Names, Refresh},
};
use crate::clock;

/// A host name and what is known of it. The lock is taken by dials and by the refresh, never by a
/// checkout that hits, and never across an await.
#[derive(Debug)]
pub(crate) struct SharedNames {
    name: Box<str>,
    port: u16,
    known: Mutex<Known>,
    answered: Notify,
}

#[derive(Debug)]
struct Known {
    names: Names,
    /// Why the last look-up failed, for those that waited for it.
    failure: Option<(io::ErrorKind, String)>,
}

/// What is known of a name without asking.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// These addresses, still good.
    Fresh(Vec<SocketAddr>),
    /// These addresses, and it is the caller's to ask for newer ones.
    Stale(Vec<SocketAddr>),
    /// None: ask, or wait for who asks.
    Unknown,
}

impl SharedNames {
    pub(crate) fn new(name: &str, port: u16, lifetimes: Lifetimes) -> Self {
        let known = Known { names: Names::new(lifetimes), failure: None };
        Self { name: name.into(), port, known: Mutex::new(known), answered: Notify::new() }
    }

    /// Changes for how long the answers to come are kept.
    pub(crate) fn set_lifetimes(&self, lifetimes: Lifetimes) {
        self.known().names.set_lifetimes(lifetimes);
    }

    /// The addresses of the last answer, however old.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.with_port(self.known().names.addresses())
    }

    /// Whether it is the caller's to look the name up now, by [`Self::look_up`].
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let known = self.known();
        !known.names.addresses().is_empty() && known.names.is_due(now)
    }

    /// What a dial may use at once.
    pub(crate) fn glance(&self, now: Instant) -> Lookup {
        let known = self.known();
        let addresses = self.with_port(known.names.addresses());
        match addresses.is_empty() {
            true => Lookup::Unknown,
            false if known.names.is_due(now) => Lookup::Stale(addresses),
            false => Lookup::Fresh(addresses),
        }
    }

    /// Looks the name up, or waits for the look-up that is under way. Says what changed, to the
    /// one that looked; the first answer is no change.
    ///
    /// # Errors
    /// When there is no answer, not even an old one.
    ///
    /// # Cancel safety
    /// A look-up that is dropped counts as failed; who waits for it looks for itself.
    pub(crate) async fn look_up(
        &self,
        resolver: &dyn Resolver,
    ) -> io::Result<(Vec<SocketAddr>, Option<Change>)> {
        loop {
            let answered = self.answered.notified();
            tokio::pin!(answered);
            // Listen first, look second, so that an answer in between is not missed.
            answered.as_mut().enable();
            let step = self.known().names.refresh(clock::now());
            match step {
                Refresh::Start => return self.ask(resolver).await,
                Refresh::UnderWay => answered.await,
                Refresh::WaitUntil(_) => {
                    let known = self.known();
                    let addresses = self.with_port(known.names.addresses());
                    return match &known.failure {
                        Some((kind, why)) if addresses.is_empty() => {
                            Err(io::Error::new(*kind, why.clone()))
                        }
                        _ => Ok((addresses, None)),
                    };
                }
            }
        }
    }

    async fn ask(&self, resolver: &dyn Resolver) -> io::Result<(Vec<SocketAddr>, Option<Change>)> {
        // Whatever becomes of the look-up, it is reported.
        let mut asking = Asking { names: self, reported: false };
        let answer = resolver.resolve(&self.name).await;
        let mut known = self.known();
        let outcome = match answer {
            Ok(answer) if !answer.addresses.is_empty() => {
                known.failure = None;
                let first = known.names.addresses().is_empty();
                let change = known.names.answered(answer, clock::now());
                Ok((self.with_port(known.names.addresses()), (!first).then_some(change)))
            }
            other => {
                let error = other.err().unwrap_or_else(|| {
                    io::Error::new(io::ErrorKind::NotFound, "the name has no address")
                });
                known.names.failed(clock::now());
                known.failure = Some((error.kind(), error.to_string()));
                let addresses = self.with_port(known.names.addresses());
                if addresses.is_empty() {
                    Err(error)
                } else {
                    tracing::warn!(name = &*self.name, %error, "the old addresses stay in use");
                    Ok((addresses, None))
                }
            }
        };
        // Only now: what is someone else's above may have panicked.
        asking.reported = true;
        drop(known);
        self.answered.notify_waiters();
        outcome
    }

    fn with_port(&self, addresses: &[IpAddr]) -> Vec<SocketAddr> {
        addresses.iter().map(|address| (*address, self.port).into()).collect()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A look-up under way. Dropped without a report, it failed.
struct Asking<'a> {
    names: &'a SharedNames,
    reported: bool,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if !self.reported {
            let mut known = self.names.known();
            known.names.failed(clock::now());
            known.failure =
                Some((io::ErrorKind::TimedOut, "the look-up was not finished in time".to_owned()));
            drop(known);
            self.names.answered.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;
    use crate::{
        Answer, Resolving,
        sync::{AtomicU32, Ordering},
    };

    /// Answers with one address more each time, and fails every third.
    #[derive(Debug, Default)]
    struct Growing(AtomicU32);

    impl Resolver for Growing {
        fn resolve<'a>(&'a self, _: &'a str) -> Resolving<'a> {
            Box::pin(async {
                tokio::task::yield_now().await;
                // Relaxed: one thread.
                let asked = self.0.fetch_add(1, Ordering::Relaxed) + 1;
                if asked.is_multiple_of(3) {
                    return Err(io::ErrorKind::ConnectionRefused.into());
                }
                let addresses: Vec<IpAddr> =
                    (1..=asked as u8).map(|last| [192, 0, 2, last].into()).collect();
                Ok(Answer::new(addresses, Some(Duration::from_secs(10))))
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_that_wait_ask_once() {
        let (resolver, names) =
            (Growing::default(), SharedNames::new("a", 1, Lifetimes::default()));
        assert_eq!(names.glance(clock::now()), Lookup::Unknown);
        let (one, two) = tokio::join!(names.look_up(&resolver), names.look_up(&resolver));
        assert_eq!(one.unwrap().0, two.unwrap().0);
        assert_eq!(resolver.0.load(Ordering::Relaxed), 1);
        assert!(matches!(names.glance(clock::now()), Lookup::Fresh(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_answer_serves_while_a_new_one_cannot_be_had() {
        let (resolver, names) =
            (Growing::default(), SharedNames::new("a", 1, Lifetimes::default()));
        names.look_up(&resolver).await.unwrap();
        for expected in [2, 2, 4] {
            tokio::time::advance(Duration::from_secs(11)).await;
            assert!(names.is_due(clock::now()));
            assert!(matches!(names.glance(clock::now()), Lookup::Stale(_)));
            assert_eq!(names.look_up(&resolver).await.unwrap().0.len(), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_up_that_is_dropped_leaves_the_next_one_free_to_ask() {
        let (resolver, names) =
            (Growing::default(), SharedNames::new("a", 1, Lifetimes::default()));
        let dropped = tokio::time::timeout(Duration::ZERO, names.look_up(&resolver)).await;
        assert!(dropped.is_err());
        assert!(names.look_up(&resolver).await.is_err(), "told why, until the retry is due");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(names.look_up(&resolver).await.unwrap().0.len(), 1);
    }
}
