//! What the handles of an endpoint's streams share: the table, its connections, and who listens.

use std::{
    any::Any,
    sync::{Arc, Weak},
};

use super::{StreamStats, keeper};
use crate::{
    CheckoutError, CloseReason, Condition, Connection, Connector, EndpointSettings, Group, Inspect,
    Multiplexed, Pooled, StreamCapacity, StreamMeter,
    engine::{
        NEVER,
        streams::{Bounds, Capacity, Carrier, Spot, StreamOutcome, StreamWaiter, Streams},
    },
    meter::Listener,
    settings::AtStreamLimit,
    sync::{AtomicBool, AtomicU32, Ordering, fence},
};

pub(super) type Outcome<C> = StreamOutcome<Carried<C>, CheckoutError>;
pub(super) type Waiter<C> = Arc<StreamWaiter<Carried<C>, CheckoutError>>;

/// The shared connections of one endpoint.
pub(crate) struct SharedStreams<C: Connector>
where
    C::Connection: Multiplexed,
{
    pub(super) streams: Streams<Carried<C>, CheckoutError>,
    /// Whether the keeper's task runs.
    pub(super) kept: AtomicBool,
    /// Whether the last connection that was looked at could not be shared; before there was one,
    /// what can be said without.
    pub(super) exclusive: AtomicBool,
}

/// The same, for a group that does not know whether its connections can be shared.
pub(crate) trait AnyStreams: Any + Send + Sync {
    fn close(&self);
    /// Connections of this moment take no more streams.
    fn drain(&self);
    fn hold(&self);
    fn resume(&self);
    fn configure(&self, settings: &EndpointSettings);
    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

impl<C: Connector> SharedStreams<C>
where
    C::Connection: Multiplexed,
{
    /// The one of a group.
    pub(super) fn of(group: &Group<C>) -> Arc<Self> {
        let make = || -> Arc<dyn AnyStreams> {
            let bounds = bounds(&group.seats().policy().settings);
            let will_be_exclusive = C::Connection::will_be_exclusive(group.endpoint());
            Arc::new(Self {
                streams: Streams::new(bounds),
                kept: AtomicBool::new(false),
                exclusive: AtomicBool::new(will_be_exclusive),
            })
        };
        let shared = group.seats().streams(make);
        let Ok(shared) = Arc::clone(shared).as_any().downcast::<Self>() else {
            unreachable!("a group has connections of one kind");
        };
        // SeqCst: pairs with the fence in the engine's close. Either the close finds our streams, or
        // we find that it was closed.
        fence(Ordering::SeqCst);
        if group.seats().on(crate::engine::ShardId(0)).group().is_closed() {
            shared.close();
        }
        shared.keep(group);
        shared
    }

    /// Sees to it that there is a keeper, unless there is nothing to keep any more. Where the
    /// endpoint's home shard is down, who is in line is told.
    pub(super) fn keep(self: &Arc<Self>, group: &Group<C>) {
        // AcqRel: one of those that come at once starts it. The order towards a keeper that goes is
        // by fences: the one in `line_up` and the one in `forsake`.
        if !self.kept.load(Ordering::Relaxed)
            && !self.streams.is_closed()
            && !self.kept.swap(true, Ordering::AcqRel)
        {
            keeper::start(group, self);
        }
    }

    /// The keeper goes, before its time if the table is not closed.
    pub(super) fn forsake(&self, why: impl Fn() -> CheckoutError) {
        self.kept.store(false, Ordering::Relaxed);
        // SeqCst: pairs with the fence in `line_up`. Whoever is in line before it is told here, and
        // who comes after finds that there is no keeper.
        fence(Ordering::SeqCst);
        self.streams.turn_away(u32::MAX, || StreamOutcome::Failed(why()));
    }

    pub(super) fn stats(&self) -> StreamStats {
        let census = self.streams.census();
        StreamStats {
            connections: census.open,
            leased: census.leased,
            capacity: census.room,
            waiting: census.waiting,
        }
    }

    /// Whether callers are to take connections of their own.
    pub(super) fn is_exclusive(&self) -> bool {
        // Relaxed: a guess about the next connection, which is looked at itself.
        self.exclusive.load(Ordering::Relaxed)
    }

    /// Shares a connection.
    ///
    /// # Errors
    /// Gives back one that cannot be shared.
    pub(super) fn share(self: &Arc<Self>, guard: Pooled<C>) -> Result<(), Pooled<C>> {
        let is_exclusive = guard.glance().is_exclusive();
        // Every request of HTTP/1 on every shard comes by: the line is written when it changes.
        if self.is_exclusive() != is_exclusive {
            // Relaxed: as in `is_exclusive`.
            self.exclusive.store(is_exclusive, Ordering::Relaxed);
        }
        if is_exclusive {
            return Err(guard);
        }
        self.put_in(guard);
        Ok(())
    }

    /// The same for who has dialled one of its own: it rests if there is room without it.
    ///
    /// # Errors
    /// As for [`Self::share`].
    pub(super) fn offer(self: &Arc<Self>, guard: Pooled<C>) -> Result<(), Pooled<C>> {
        if !guard.glance().is_exclusive() {
            let census = self.streams.census();
            if census.leased < census.room {
                // Untouched: it goes to rest.
                drop(guard);
                return Ok(());
            }
        }
        self.share(guard)
    }

    /// It goes back to rest when there are enough.
    fn put_in(self: &Arc<Self>, guard: Pooled<C>) {
        guard.untrack();
        let carried = Carried { guard, lent: AtomicU32::new(0) };
        let put = self.streams.put_in(carried, |carried, spot| {
            let found = carried.meter().stand_at(spot.to_bits(), || {
                let listener: Weak<dyn Listener> = Arc::downgrade(self) as _;
                listener
            });
            if found.is_draining {
                self.streams.drain(spot);
            }
            Capacity::of_peer(found.max_streams, found.version)
        });
        if let Err(carried) = put {
            carried.rest();
        }
    }
}

impl<C: Connector> AnyStreams for SharedStreams<C>
where
    C::Connection: Multiplexed,
{
    fn close(&self) {
        self.streams.close();
    }

    fn drain(&self) {
        self.streams.drain_all();
    }

    fn hold(&self) {
        self.streams.hold();
    }

    fn resume(&self) {
        self.streams.resume();
    }

    fn configure(&self, settings: &EndpointSettings) {
        let exceed = settings.streams.at_limit == AtStreamLimit::Oversubscribe;
        self.streams.set_bounds(bounds(settings), exceed);
    }

    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

fn bounds(settings: &EndpointSettings) -> Bounds {
    let max = settings.streams.max_connections.min(settings.capacity.max_live);
    let min = settings.streams.min_connections.min(max);
    Bounds { min, max, streams: settings.streams.max_streams }
}

impl<C: Connector> Listener for SharedStreams<C>
where
    C::Connection: Multiplexed,
{
    fn changed(&self, place: u64, now: StreamCapacity) {
        let spot = Spot::from_bits(place);
        if now.is_draining {
            self.streams.drain(spot);
        } else {
            self.streams.change(spot, Capacity::of_peer(now.max_streams, now.version));
        }
    }
}

impl<C: Connector> Drop for SharedStreams<C>
where
    C::Connection: Multiplexed,
{
    fn drop(&mut self) {
        // It finds that there is nothing left to keep.
        self.streams.wake_keeper();
    }
}

/// A connection in the hands of the table.
pub(crate) struct Carried<C: Connector> {
    pub(super) guard: Pooled<C>,
    /// How many streams were lent, where there is a limit.
    lent: AtomicU32,
}

impl<C: Connector> Carried<C>
where
    C::Connection: Multiplexed,
{
    fn meter(&self) -> &StreamMeter {
        self.guard.glance().meter()
    }

    /// Whether it has lived or served for as long as it may.
    pub(super) fn is_spent(&self) -> bool {
        // Relaxed: a count, here and below.
        self.guard.is_old() || !self.may_serve_after(self.lent.load(Ordering::Relaxed))
    }

    /// Whether another stream may be lent after so many.
    fn may_serve_after(&self, lent: u32) -> bool {
        self.guard.uses().saturating_add(lent) < self.guard.max_uses()
    }

    /// The streams count as uses from now on. One is what the return of any guard counts.
    fn settle(&mut self) {
        let lent = self.lent.load(Ordering::Relaxed);
        self.guard.count_uses(lent.saturating_sub(1));
    }
}

impl<C: Connector> Carrier for Carried<C>
where
    C::Connection: Multiplexed,
{
    fn is_usable(&self) -> bool {
        !self.guard.is_given_up() && !self.meter().capacity().is_draining
    }

    fn admit(&self) -> bool {
        let is_counted = self.guard.max_uses() != NEVER;
        self.is_usable()
            && (!is_counted || self.may_serve_after(self.lent.fetch_add(1, Ordering::Relaxed)))
    }

    fn rest(mut self) {
        self.settle();
        self.guard.release();
    }

    fn end(mut self) {
        // As a rule it says itself why it cannot be used any more, or its group does. One that does
        // not must not come to rest all the same: it would be found there again.
        let is_sound = self.guard.inspect(Inspect::Glance) == Condition::Usable;
        let is_spent = self.is_spent();
        self.settle();
        if is_sound && !self.guard.is_given_up() && !is_spent {
            self.guard.end_as(CloseReason::PeerClosed);
        } else {
            self.guard.release();
        }
    }
}
