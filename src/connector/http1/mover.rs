//! hyper's half of a connection that moves the bytes: polled as a task would poll it, which is when
//! it was woken, by whoever waits for what it brings.

use core::{
    pin::Pin,
    task::{Context, Poll, Waker},
};
use std::{sync::Arc, task::Wake};

use hyper::{body::Body, client::conn::http1};
use hyper_util::rt::TokioIo;

use super::wire::{Outgoing, Wire};
use crate::{BoxError, Transport, bell::Bell};

/// What hyper calls a connection.
pub(super) type Moving<B, S> = http1::Connection<TokioIo<Wire<S>>, Outgoing<B>>;

pub(super) struct Mover<B: Body + 'static, S: Transport> {
    moving: Box<Moving<B, S>>,
    bell: Arc<Bell>,
    /// Rings the bell.
    ringer: Waker,
    /// Somebody may still hear the bell.
    is_heard: bool,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

impl<B, S> Mover<B, S>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
    S: Transport,
{
    pub(super) fn new(moving: Moving<B, S>) -> Self {
        // Rung: like any future it wants to be polled once.
        let bell = Arc::new(Bell::rung());
        let ringer = Waker::from(Arc::clone(&bell));
        Self { moving: Box::new(moving), bell, ringer, is_heard: false }
    }

    /// Whether there is something to move.
    pub(super) fn is_rung(&self) -> bool {
        self.bell.is_rung()
    }

    /// Moves what there is to move. Whoever wants to hear of more asks for it afterwards.
    pub(super) fn poll(&mut self) -> Poll<hyper::Result<()>> {
        if !self.bell.answer() {
            return Poll::Pending;
        }
        // Who heard it is woken by who rang.
        self.is_heard = false;
        Pin::new(&mut *self.moving).poll(&mut Context::from_waker(&self.ringer))
    }

    /// Has a waker hear when there is more; `false` if there is already, and it does not.
    pub(super) fn listen(&mut self, waker: &Waker) -> bool {
        self.is_heard = true;
        let is_silent = self.bell.listen(waker);
        if !is_silent {
            // Who rang may have found nobody to wake.
            self.hush();
        }
        is_silent
    }

    /// Lets go of who heard it last.
    pub(super) fn hush(&mut self) {
        if self.is_heard {
            self.bell.hush();
            self.is_heard = false;
        }
    }

    /// Has it polled the next time, whether or not there is something to move.
    pub(super) fn ring(&self) {
        self.bell.ring();
    }

    pub(super) fn into_moving(self) -> Box<Moving<B, S>> {
        self.moving
    }

    /// What the bytes moved over. hyper lets go of whatever it still has.
    pub(super) fn into_stream(self) -> S {
        self.moving.into_parts().io.into_inner().into_stream()
    }
}
