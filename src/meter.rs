//! How many streams a multiplexed connection takes, and who is to hear when that changes.

use core::fmt;
use std::sync::{OnceLock, Weak};

use crate::notice::Notice;

/// How many streams a connection takes at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamCapacity {
    /// How many its peer allows at once; in HTTP/2 `SETTINGS_MAX_CONCURRENT_STREAMS`
    /// (RFC 9113 §6.5.2).
    pub max_streams: u32,
    /// It takes no new one: its peer sent GOAWAY, it broke, or it has no stream numbers left.
    /// Streams that are open may go on.
    pub is_draining: bool,
    /// Grows with each change, and comes round after 2³¹.
    pub(crate) version: u32,
}

/// What a multiplexed connection says of itself: its driver writes, the pool reads.
///
/// [`Multiplexed::meter`](crate::Multiplexed::meter) shows it to the pool, and whoever reads the
/// peer's messages has another reference. Any thread; no call blocks. A change may end or rest the
/// connection before the call returns: hold no lock that its
/// [`Connection::inspect`](crate::Connection::inspect) or its drop would wait for.
pub struct StreamMeter {
    /// The maximum in bits 0 to 31, draining in 32, the version in 33 to 63; and where in its table
    /// the connection stands, as the table names it.
    notice: Notice,
    /// Who hears of changes: the endpoint's table of streams, the same for as long as it lives.
    listener: OnceLock<Weak<dyn Listener>>,
}

/// Hears that a connection's capacity has changed.
pub(crate) trait Listener: Send + Sync {
    /// The connection at `place` takes this many from now on. May be told late, when another stands
    /// there.
    fn changed(&self, place: u64, capacity: StreamCapacity);
}

const DRAINING: u64 = 1 << 32;
const VERSION: u64 = 1 << 33;

impl StreamMeter {
    /// Of a connection that takes so many streams at once.
    pub fn new(max_streams: u32) -> Self {
        Self { notice: Notice::new(max_streams.into()), listener: OnceLock::new() }
    }

    /// The peer allows so many streams at once from now on. Those that are open above it may end in
    /// their own time.
    pub fn set_max_streams(&self, max_streams: u32) {
        self.change(|word| word & DRAINING | u64::from(max_streams));
    }

    /// No new stream from now on, for good.
    pub fn drain(&self) {
        self.change(|word| word & u64::from(u32::MAX) | DRAINING);
    }

    /// How many it takes.
    pub fn capacity(&self) -> StreamCapacity {
        unpack(self.notice.read())
    }

    fn change(&self, to: impl Fn(u64) -> u64) {
        let changed = self.notice.change(|word| {
            let same = word & (VERSION - 1);
            let new = to(same);
            (new != same).then(|| (word & !(VERSION - 1)).wrapping_add(VERSION) | new)
        });
        // Who sees the place sees the listener.
        if let Some((word, Some(place))) = changed
            && let Some(listener) = self.listener.get().and_then(Weak::upgrade)
        {
            listener.changed(place, unpack(word));
        }
    }

    /// From here on the table hears of changes, and what was changed before is the answer.
    pub(crate) fn stand_at(
        &self,
        place: u64,
        table: impl FnOnce() -> Weak<dyn Listener>,
    ) -> StreamCapacity {
        self.listener.get_or_init(table);
        unpack(self.notice.stand_at(place))
    }
}

const fn unpack(word: u64) -> StreamCapacity {
    StreamCapacity {
        max_streams: word as u32,
        is_draining: word & DRAINING != 0,
        version: (word >> 33) as u32,
    }
}

impl fmt::Debug for StreamMeter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StreamMeter").field(&self.capacity()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};

    use super::*;

    struct Heard(mpsc::SyncSender<(u64, StreamCapacity)>);

    impl Listener for Heard {
        fn changed(&self, place: u64, capacity: StreamCapacity) {
            self.0.send((place, capacity)).unwrap();
        }
    }

    #[test]
    fn a_change_is_heard_where_the_connection_stands() {
        let meter = StreamMeter::new(8);
        meter.set_max_streams(9);
        let (tell, heard) = mpsc::sync_channel(9);
        let listener: Arc<dyn Listener> = Arc::new(Heard(tell));
        let found = meter.stand_at(3, || Arc::downgrade(&listener));
        assert_eq!((found.max_streams, found.is_draining, found.version), (9, false, 1));
        meter.set_max_streams(9);
        assert!(heard.try_recv().is_err(), "nothing has changed");
        meter.set_max_streams(4);
        meter.drain();
        meter.drain();
        let heard = heard.try_iter().map(|(place, now)| (place, now.max_streams, now.is_draining));
        assert_eq!(heard.collect::<Vec<_>>(), [(3, 4, false), (3, 4, true)]);
    }

    #[test]
    fn versions_come_round_without_touching_what_they_are_of() {
        let meter =
            StreamMeter { notice: Notice::new(u64::MAX << 33 | 7), listener: OnceLock::new() };
        meter.set_max_streams(8);
        let now = meter.capacity();
        assert_eq!((now.max_streams, now.is_draining, now.version), (8, false, 0));
    }

    #[test]
    fn what_drains_drains_for_good() {
        let meter = StreamMeter::new(8);
        meter.drain();
        meter.set_max_streams(100);
        let now = meter.capacity();
        assert_eq!((now.max_streams, now.is_draining), (100, true));
    }
}
