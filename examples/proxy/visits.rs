//! The clients that are with one shard: each has to be told when the proxy stops, and none may keep
//! it waiting for a request for ever.
//!
//! A look at all of them now and then, instead of a timer that is set and taken back with every
//! request: the clock is read a few times a second and not twice a request.

use core::{
    cell::{Cell, OnceCell, RefCell},
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};
use std::rc::{Rc, Weak};

use hyper::body::{Body, Frame, SizeHint};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};

/// All of them.
#[derive(Debug)]
pub(crate) struct Visits {
    visits: RefCell<Vec<Weak<Visit>>>,
    /// The time of the last look.
    now: Cell<Instant>,
    is_stopping: Cell<bool>,
    patience: Duration,
}

/// One client's connection.
#[derive(Debug)]
pub(crate) struct Visit {
    visits: Rc<Visits>,
    /// Since when we wait for the head of a request to be complete; `None` while we answer.
    awaiting: Cell<Option<Instant>>,
    task: OnceCell<Waker>,
}

/// Lasts from a request's head to the end of its response.
#[derive(Debug)]
pub(crate) struct Answering(Rc<Visit>);

/// A response's body, and that it is under way.
#[derive(Debug)]
pub(crate) struct Answer<B> {
    body: B,
    _answering: Answering,
}

impl Visits {
    /// Nobody there. Who lets us wait for a request for longer than `patience` is shown out, within
    /// a quarter of that time.
    pub(crate) fn new(patience: Duration) -> Rc<Self> {
        Rc::new(Self {
            visits: RefCell::default(),
            now: Cell::new(Instant::now()),
            is_stopping: Cell::new(false),
            patience,
        })
    }

    /// A client came.
    pub(crate) fn enter(self: &Rc<Self>) -> Rc<Visit> {
        let visit = Rc::new(Visit {
            visits: Rc::clone(self),
            awaiting: Cell::new(Some(Instant::now())),
            task: OnceCell::new(),
        });
        self.visits.borrow_mut().push(Rc::downgrade(&visit));
        visit
    }

    /// Looks at everybody now and then, and tells them when the proxy stops.
    pub(crate) async fn look_after(self: Rc<Self>, mut stop: watch::Receiver<bool>) {
        // Never zero, which an interval does not take.
        let mut looks = interval((self.patience / 4).max(Duration::from_millis(1)));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                now = looks.tick() => self.look(now),
                _ = stop.wait_for(|stop| *stop), if !self.is_stopping.get() => {
                    self.is_stopping.set(true);
                    self.for_each(Visit::wake);
                }
            }
        }
    }

    fn look(&self, now: Instant) {
        self.now.set(now);
        self.for_each(|visit| {
            if visit.is_overdue() {
                visit.wake();
            }
        });
    }

    /// Those that have left are forgotten on the way.
    fn for_each(&self, mut act: impl FnMut(&Visit)) {
        self.visits
            .borrow_mut()
            .retain(|visit| visit.upgrade().inspect(|visit| act(visit)).is_some());
    }
}

impl Visit {
    /// Has the task of this client's connection woken when something is up. It is one task to the
    /// end, so the first waker will do.
    pub(crate) fn hear(&self, cx: &Context<'_>) {
        self.task.get_or_init(|| cx.waker().clone());
    }

    /// Whether the proxy stops: after the response in flight the connection ends.
    pub(crate) fn is_last_call(&self) -> bool {
        self.visits.is_stopping.get()
    }

    /// Whether the client has let us wait for a request for too long.
    pub(crate) fn is_overdue(&self) -> bool {
        let patience = self.visits.patience;
        self.awaiting.get().is_some_and(|since| self.visits.now.get() >= since + patience)
    }

    /// The head of a request is there.
    pub(crate) fn answer(self: &Rc<Self>) -> Answering {
        self.awaiting.set(None);
        Answering(Rc::clone(self))
    }

    /// Some of a response went out, of which the last may still be on its way after its end.
    pub(crate) fn wrote(&self) {
        if self.awaiting.get().is_some() {
            self.awaiting.set(Some(self.visits.now.get()));
        }
    }

    fn wake(&self) {
        if let Some(task) = self.task.get() {
            task.wake_by_ref();
        }
    }
}

impl Answering {
    pub(crate) fn with<B>(self, body: B) -> Answer<B> {
        Answer { body, _answering: self }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        let visit = &self.0;
        // The last look was up to a quarter of the patience ago: so much less it is, at the most.
        visit.awaiting.set(Some(visit.visits.now.get()));
    }
}

impl<B: Body + Unpin> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(4);

    /// A client that has just come, and a way to look at the clock so much later.
    fn client() -> (Rc<Visit>, impl Fn(u64)) {
        let visits = Visits::new(PATIENCE);
        let visit = visits.enter();
        let start = Instant::now();
        (visit, move |seconds| visits.look(start + Duration::from_secs(seconds)))
    }

    #[test]
    fn who_asks_for_nothing_is_overdue() {
        let (visit, look) = client();
        look(3);
        assert!(!visit.is_overdue());
        look(5);
        assert!(visit.is_overdue());
    }

    #[test]
    fn who_waits_for_an_answer_is_not() {
        let (visit, look) = client();
        let answering = visit.answer();
        look(60);
        assert!(!visit.is_overdue());
        drop(answering);
        look(63);
        assert!(!visit.is_overdue(), "three seconds since the answer");
        look(64);
        assert!(visit.is_overdue());
    }

    #[test]
    fn who_reads_slowly_is_not() {
        let (visit, look) = client();
        drop(visit.answer());
        look(3);
        visit.wrote();
        look(6);
        assert!(!visit.is_overdue(), "three seconds since the last byte");
        look(7);
        assert!(visit.is_overdue());
    }

    #[test]
    fn who_has_left_is_forgotten() {
        let (visit, look) = client();
        let visits = Rc::clone(&visit.visits);
        drop(visit);
        look(1);
        assert!(visits.visits.borrow().is_empty());
    }
}
