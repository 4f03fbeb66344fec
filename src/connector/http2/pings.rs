//! PINGs: those that a keep-alive sends by its timer, and those that the pool asks for.

use core::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use std::sync::Arc;

use h2::{Ping, PingPong};
use tokio::time::{Sleep, sleep};

use super::{Http2Keepalive, shared::Shared};
use crate::sync::{AtomicU64, Ordering};

/// How often the connections of one connector ask, which their peers may slow down.
#[derive(Debug)]
pub(super) struct Pace {
    interval_ms: AtomicU64,
}

/// What gRPC's servers want by default, and where the doubling ends.
const CALM: Duration = Duration::from_secs(300);

impl Pace {
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval_ms: AtomicU64::new(millis(interval)) }
    }

    fn interval(&self) -> Duration {
        // Relaxed: a number that steers and guards nothing, here and below.
        Duration::from_millis(self.interval_ms.load(Ordering::Relaxed))
    }

    /// Twice as long from now on, up to where any server is content.
    pub(super) fn slow_down(&self) -> Duration {
        let slower = |now: u64| Some(now.saturating_mul(2).min(millis(CALM)).max(now));
        let _ = self.interval_ms.fetch_update(Ordering::Relaxed, Ordering::Relaxed, slower);
        self.interval()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// One connection's, polled by its driver.
pub(super) struct Pings {
    pinger: PingPong,
    in_flight: bool,
    /// The one in flight, the pool has asked for.
    is_for_pool: bool,
    watch: Option<Watch>,
}

/// A connection's keep-alive.
struct Watch {
    keepalive: Http2Keepalive,
    pace: Arc<Pace>,
    timer: Pin<Box<Sleep>>,
    /// What had come when the timer was set.
    received: u64,
    phase: Phase,
}

/// What the timer is set to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing: no stream is open, and none need be asked for.
    Off,
    /// The end of a silence.
    Listening,
    /// The end of the peer's time to answer.
    Asking,
}

/// The peer has left a PING unanswered.
pub(super) struct Silent;

impl Pings {
    pub(super) fn new(pinger: PingPong, keepalive: Option<(Http2Keepalive, Arc<Pace>)>) -> Self {
        let watch = keepalive.map(|(keepalive, pace)| Watch {
            keepalive,
            pace,
            timer: Box::pin(sleep(Duration::ZERO)),
            received: 0,
            phase: Phase::Off,
        });
        Self { pinger, in_flight: false, is_for_pool: false, watch }
    }

    /// Sends what is due, hears what has come. After the connection was polled.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, shared: &Shared) -> Poll<Silent> {
        if self.in_flight && self.pinger.poll_pong(cx).is_ready() {
            self.in_flight = false;
            if core::mem::take(&mut self.is_for_pool) {
                shared.answered();
            }
        }
        if !self.in_flight && shared.is_ping_asked() {
            self.is_for_pool = true;
            self.ask();
        }
        loop {
            let Some(watch) = &mut self.watch else {
                return Poll::Pending;
            };
            match ready!(watch.poll(cx, shared)) {
                Due::Ask => self.ask(),
                Due::End => return Poll::Ready(Silent),
            }
        }
    }

    /// The answer to one that is under way does as well.
    fn ask(&mut self) {
        // An error says that the connection has ended, which its own poll tells.
        self.in_flight |= self.pinger.send_ping(Ping::opaque()).is_ok();
    }

    pub(super) fn pace(&self) -> Option<&Pace> {
        self.watch.as_ref().map(|watch| &*watch.pace)
    }
}

/// What a keep-alive's timer says.
enum Due {
    Ask,
    End,
}

impl Watch {
    fn poll(&mut self, cx: &mut Context<'_>, shared: &Shared) -> Poll<Due> {
        loop {
            let is_wanted = self.keepalive.without_streams || shared.open() > 0;
            let is_heard = shared.received() != self.received;
            match self.phase {
                Phase::Off if is_wanted => self.set(Phase::Listening, shared),
                Phase::Off => return Poll::Pending,
                // Whatever came is a sign of life.
                Phase::Asking if is_heard => self.set(Phase::Listening, shared),
                Phase::Asking => {
                    ready!(self.timer.as_mut().poll(cx));
                    return Poll::Ready(Due::End);
                }
                Phase::Listening => {
                    ready!(self.timer.as_mut().poll(cx));
                    if is_heard {
                        self.set(Phase::Listening, shared);
                    } else if is_wanted {
                        self.set(Phase::Asking, shared);
                        return Poll::Ready(Due::Ask);
                    } else {
                        self.phase = Phase::Off;
                    }
                }
            }
        }
    }

    fn set(&mut self, phase: Phase, shared: &Shared) {
        let after = match phase {
            Phase::Asking => self.keepalive.timeout,
            Phase::Off | Phase::Listening => self.pace.interval(),
        };
        self.timer.set(sleep(after));
        self.received = shared.received();
        self.phase = phase;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_doubles_as_far_as_any_server_asks() {
        let pace = Pace::new(Duration::from_secs(100));
        assert_eq!(pace.slow_down(), Duration::from_secs(200));
        assert_eq!(pace.slow_down(), CALM);
        assert_eq!(pace.slow_down(), CALM);
        let pace = Pace::new(Duration::from_secs(1000));
        assert_eq!(pace.slow_down(), Duration::from_secs(1000));
    }
}
