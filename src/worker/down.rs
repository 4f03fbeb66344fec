//! A shard without a worker: nothing is dialled, and nobody waits in vain.

use core::{
    future::poll_fn,
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};
use std::{
    sync::Arc,
    task::Wake,
    thread::{self, Thread},
};

use tokio::{sync::mpsc, time::Instant};

use super::{Job, into_socket, salvage::quietly};
use crate::{
    Connector, PoolEvent,
    clock::RESOLUTION,
    engine::{Doomed, Duty, ShardId},
    inner::Inner,
};

/// Does the least of a worker's duties: dials fail at once, connections that come back are closed,
/// and the proxy's own tasks start. It logs nothing, and calls nobody else's code but in a guard.
pub(super) struct Down<'a, C: Connector> {
    inner: Arc<Inner<C>>,
    shard: ShardId,
    why: &'a str,
    random: fastrand::Rng,
}

impl<'a, C: Connector> Down<'a, C> {
    pub(super) fn new(
        inner: Arc<Inner<C>>,
        shard: ShardId,
        why: &'a str,
        random: fastrand::Rng,
    ) -> Self {
        Self { inner, shard, why, random }
    }

    /// Serves until then, or until the pool has ended: `true`.
    pub(super) async fn stay(
        &mut self,
        jobs: &mut mpsc::UnboundedReceiver<Job>,
        until: Instant,
    ) -> bool {
        let mut over = pin!(tokio::time::sleep_until(until));
        poll_fn(|cx| {
            while let Poll::Ready(Some(job)) = jobs.poll_recv(cx) {
                quietly(job);
            }
            if self.poll(cx).is_ready() {
                return Poll::Ready(true);
            }
            over.as_mut().poll(cx).map(|()| false)
        })
        .await
    }

    /// Ready when the pool has ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self { inner, shard, why, random } = self;
        inner.engine.register_driver(*shard, cx.waker());
        inner.note_asleep(*shard, false);
        let now = inner.clock(*shard).advance();
        while let Some(duty) = inner.engine.next_duty(*shard) {
            match duty {
                Duty::Dial(dial) => inner.give_up_unbegun(&dial, why, random),
                Duty::Close(Doomed { conn, place }) => {
                    quietly(|| drop(conn.and_then(into_socket)));
                    quietly(|| inner.tell_closed(&place, now));
                    inner.engine.vacate(place, now);
                }
                Duty::Tell(seat, change) => quietly(|| inner.tell_change(&seat, change)),
            }
        }
        if inner.engine.slots_in_use(*shard) > 0 {
            return Poll::Pending;
        }
        inner.note_empty();
        if !inner.is_abandoned() {
            return Poll::Pending;
        }
        inner.engine.forget_starving();
        Poll::Ready(())
    }
}

/// The last resort: a shard's runtime is gone, by a panic outside its worker, and its thread has
/// nothing left to run a worker on. It stays, so that those who call on the shard are told.
#[cold]
pub(crate) fn bury<C: Connector>(inner: Arc<Inner<C>>, shard: ShardId) {
    let why = format!("the thread of shard {} panicked", shard.get());
    inner.note_panic(shard);
    quietly(|| tracing::error!(shard = shard.get(), "the shard's thread panicked: it is down"));
    quietly(|| {
        let (shard, restart_in) = (shard.get(), Duration::MAX);
        inner.tell(PoolEvent::ShardPanicked { shard, message: &why, restart_in });
    });
    inner.note_driver(shard, "none", &why);
    inner.engine.hang_up_all(shard, inner.clock(shard).advance());
    let mut random = fastrand::Rng::new();
    inner.clear_wrecks(shard, &why, &mut random);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut cx = Context::from_waker(&waker);
    let mut down = Down::new(inner, shard, &why, random);
    while down.poll(&mut cx).is_pending() {
        // With an end, so that the shard's clock does not stand still.
        thread::park_timeout(RESOLUTION);
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
