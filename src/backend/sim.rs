//! The driver of the scripted network.

use core::task::{Context, Poll};
use std::{
    collections::{HashMap, VecDeque},
    io,
    net::SocketAddr,
    sync::Arc,
};

use super::{Driver, Event, Socket, dials::Dials, socket::Kind};
use crate::{
    engine::SlotIndex,
    sim::{Line, Script},
};

/// Dials by script, watches lines in memory.
#[derive(Debug)]
pub(crate) struct Sim {
    script: Script,
    dials: Dials,
    watches: HashMap<SlotIndex, Arc<Line>>,
    closed: VecDeque<SlotIndex>,
}

impl Sim {
    pub(crate) fn new(script: Script) -> Self {
        Self { script, dials: Dials::default(), watches: HashMap::new(), closed: VecDeque::new() }
    }
}

impl Driver for Sim {
    fn dial(&mut self, slot: SlotIndex, to: SocketAddr) {
        let dial = self.script.dial(to);
        self.dials.start(slot, async { Ok(Socket(Kind::Sim(dial.await?))) });
    }

    fn give_up(&mut self, slot: SlotIndex) {
        self.dials.give_up(slot);
    }

    fn watch(&mut self, slot: SlotIndex, socket: &Socket) {
        if let Kind::Sim(socket) = &socket.0 {
            self.watches.insert(slot, socket.line());
        }
    }

    fn close(&mut self, slot: SlotIndex, socket: Option<Socket>) {
        self.watches.remove(&slot);
        drop(socket);
        self.closed.push_back(slot);
    }

    fn turn(&mut self, cx: &mut Context<'_>, events: &mut VecDeque<Event>) -> io::Result<Poll<()>> {
        events.extend(self.closed.drain(..).map(Event::Closed));
        self.dials.collect(cx, events);
        self.watches.retain(|slot, line| {
            let cut = line.poll_cut(cx).is_ready();
            if cut {
                events.push_back(Event::HungUp(*slot));
            }
            !cut
        });
        Ok(if events.is_empty() { Poll::Pending } else { Poll::Ready(()) })
    }

    fn name(&self) -> &'static str {
        "sim"
    }
}
