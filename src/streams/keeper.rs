//! The keeper: one task for each endpoint that finds connections for callers in line, and sends to
//! rest those that nobody needs.

use core::{
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Weak},
};

use tokio::{
    task::JoinSet,
    time::{Sleep, sleep},
};

use super::shared::{Carried, SharedStreams};
use crate::{
    CheckoutError, Connector, DialError, DialErrorKind, Endpoint, Group, Multiplexed, Pooled,
    ShardGone,
    engine::streams::{Carrier, StreamOutcome, decayed},
    group::WeakGroup,
};

/// How often connections are looked over while there are any.
const ROUND: Duration = Duration::from_millis(250);

/// Has the endpoint's home shard run the keeper. It ends with the handles, or when the group is
/// closed.
pub(super) fn start<C: Connector>(group: &Group<C>, shared: &Arc<SharedStreams<C>>)
where
    C::Connection: Multiplexed,
{
    let mut keeper = Keeper {
        shared: Arc::downgrade(shared),
        endpoint: group.endpoint().clone(),
        group: group.downgrade(),
        finds: JoinSet::new(),
        peak: 0,
        round: None,
    };
    let home = &group.pool().shards()[group.seats().home().get()];
    home.spawn(poll_fn(move |cx| keeper.poll(cx)));
}

struct Keeper<C: Connector>
where
    C::Connection: Multiplexed,
{
    shared: Weak<SharedStreams<C>>,
    endpoint: Endpoint,
    group: WeakGroup<C>,
    finds: JoinSet<Result<Pooled<C>, CheckoutError>>,
    /// The most streams of late.
    peak: u32,
    /// When the next look is due; none while there is nothing to look over.
    round: Option<Pin<Box<Sleep>>>,
}

impl<C: Connector> Keeper<C>
where
    C::Connection: Multiplexed,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(shared) = self.shared.upgrade() else {
            return Poll::Ready(());
        };
        shared.streams.register_keeper(cx.waker());
        if shared.streams.is_closed() {
            return Poll::Ready(());
        }
        // Hooks and connections are someone else's code: callers must not wait for a keeper that
        // has gone.
        let went = catch_unwind(AssertUnwindSafe(|| {
            self.take_found(&shared, cx);
            self.find(&shared, cx);
            self.look_over(&shared, cx);
        }));
        if went.is_err() {
            let error = self.panicked();
            shared.streams.turn_away(u32::MAX, || StreamOutcome::Failed(error.clone()));
            // Once more for what came after it: other finds that have ended, the next round.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Shares what was found; what was not is told to as many callers as it was for.
    fn take_found(&mut self, shared: &Arc<SharedStreams<C>>, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(found)) = self.finds.poll_join_next(cx) {
            let found = found.unwrap_or_else(|_| Err(self.panicked()));
            // Until it stands where it is shared, and also when that panics.
            let found_one = Found(shared);
            match found {
                Ok(guard) => Self::share(shared, guard),
                // Those in line have deadlines of their own.
                Err(CheckoutError::Timeout { .. }) => {}
                Err(error) => {
                    drop(found_one);
                    let for_whom = shared.streams.bounds().streams;
                    shared.streams.turn_away(for_whom, || StreamOutcome::Failed(error.clone()));
                }
            }
        }
    }

    /// Shares a connection, or sends those in line to fetch connections of their own, of which this
    /// is one.
    fn share(shared: &Arc<SharedStreams<C>>, guard: Pooled<C>) {
        if let Err(guard) = shared.share(guard) {
            // Untouched: it goes to the first of them, or to rest.
            drop(guard);
            shared.streams.turn_away(u32::MAX, || StreamOutcome::Exclusive);
        }
    }

    /// Finds connections for as many as are wanted: what rests first, then by a dial.
    fn find(&mut self, shared: &Arc<SharedStreams<C>>, cx: &mut Context<'_>) {
        while shared.streams.wanted() > 0 {
            let Some(group) = self.group.upgrade() else {
                return;
            };
            if let Some(guard) = group.try_checkout() {
                Self::share(shared, guard);
            } else if shared.streams.is_moving() {
                // One is on its way to rest. Who takes it there wakes us.
                return;
            } else if shared.streams.find_one() {
                // A caller that has gone with all handles must not keep the pool by this.
                let group = group.loose();
                self.finds.spawn(async move { group.checkout().await });
                // It is to wake us.
                self.take_found(shared, cx);
            } else {
                return;
            }
        }
    }

    /// Sends to rest what is not needed, and ends what has lived long enough or takes no stream:
    /// of one that has all its streams, no caller finds that out.
    fn look_over(&mut self, shared: &Arc<SharedStreams<C>>, cx: &mut Context<'_>) {
        if shared.streams.is_empty() {
            (self.peak, self.round) = (0, None);
            return;
        }
        let round = self.round.get_or_insert_with(|| Box::pin(sleep(ROUND)));
        while round.as_mut().poll(cx).is_ready() {
            round.set(sleep(ROUND));
            let spots: Vec<_> = shared.streams.spots().collect();
            for spot in spots {
                let is_over = |carried: &Carried<C>| carried.is_spent() || !carried.is_usable();
                if shared.streams.look(spot, is_over) == Some(true) {
                    shared.streams.drain(spot);
                }
            }
            let census = shared.streams.census();
            let peak = self.peak.max(census.leased);
            shared.streams.shrink(census.surplus(shared.streams.bounds(), peak));
            self.peak = decayed(self.peak, census.leased);
        }
    }

    fn panicked(&self) -> CheckoutError {
        let what = "what looked for a connection panicked".to_owned();
        DialError::plain(self.endpoint.clone(), DialErrorKind::Backend, what).into()
    }
}

/// A find that has ended, counted until this is dropped.
struct Found<'a, C: Connector>(&'a SharedStreams<C>)
where
    C::Connection: Multiplexed;

impl<C: Connector> Drop for Found<'_, C>
where
    C::Connection: Multiplexed,
{
    fn drop(&mut self) {
        self.0.streams.found();
    }
}

impl<C: Connector> Drop for Keeper<C>
where
    C::Connection: Multiplexed,
{
    fn drop(&mut self) {
        // With its shard, as a rule: nobody else drops a task that has not ended.
        if let Some(shared) = self.shared.upgrade() {
            let endpoint = || self.endpoint.clone();
            let why = || DialError::new(endpoint(), DialErrorKind::Backend, ShardGone.into());
            // What was being found is lost.
            (0..self.finds.len()).for_each(|_| shared.streams.found());
            shared.forsake(|| why().into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Backend, BoxError, Condition, Connection, Inspect, Pool, Socket, StreamMeter,
        engine::streams::{Bounds, Streams},
        sync::Ordering,
    };

    struct Mux;

    struct Wire(StreamMeter);

    impl Connector for Mux {
        type Connection = Wire;

        async fn connect(&self, _: Socket, _: &Endpoint) -> Result<Wire, BoxError> {
            Ok(Wire(StreamMeter::new(1)))
        }
    }

    impl Connection for Wire {
        fn inspect(&mut self, _: Inspect) -> Condition {
            Condition::Usable
        }

        fn into_socket(self) -> Option<Socket> {
            None
        }
    }

    impl Multiplexed for Wire {
        fn meter(&self) -> &StreamMeter {
            &self.0
        }
    }

    #[tokio::test]
    async fn a_keeper_that_goes_with_its_shard_tells_those_in_line_and_may_be_replaced() {
        let pool = Pool::builder(Mux).backend(Backend::Epoll).shards(1).pin(false).build().unwrap();
        let group = pool.group(std::net::SocketAddr::from(([127, 0, 0, 1], 1)));
        let shared = Arc::new(SharedStreams::<Mux> {
            streams: Streams::new(Bounds { min: 1, max: 1, streams: 1 }),
            kept: true.into(),
            exclusive: false.into(),
        });
        let mut keeper = Keeper {
            shared: Arc::downgrade(&shared),
            endpoint: group.endpoint().clone(),
            group: group.downgrade(),
            finds: JoinSet::new(),
            peak: 0,
            round: None,
        };
        assert!(shared.streams.find_one());
        keeper.finds.spawn(core::future::pending());
        let waiter = shared.streams.line_up(9).unwrap();
        drop(keeper);
        let told = poll_fn(|cx| waiter.poll(cx)).await;
        let StreamOutcome::Failed(CheckoutError::Dial(error)) = told else { panic!("{told:?}") };
        assert_eq!(error.kind(), DialErrorKind::Backend);
        assert_eq!(shared.streams.wanted(), 0);
        let waiter = shared.streams.line_up(9).unwrap();
        assert_eq!(shared.streams.wanted(), 1, "what was being found is not waited for");
        assert!(!shared.kept.load(Ordering::Relaxed), "another may be started");
        shared.streams.leave_line(&waiter);
        drop(group);
        pool.close().await;
    }
}
