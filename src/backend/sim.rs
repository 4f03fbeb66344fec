//! The driver of the scripted network.

use core::task::{Context, Poll};
use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::Arc,
};

use super::{
    Departure, Destination, DialId, Driver, Ending, Event, Socket, Target, dials::Dials,
    socket::Kind,
};
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
    fn dial(&mut self, id: DialId, target: &Target) {
        match &target.to {
            Destination::Ip(to) => {
                let dial = self.script.dial(*to);
                self.dials.start(id, async { Ok(Socket(Kind::Sim(dial.await?))) });
            }
            #[cfg(unix)]
            Destination::Unix(_) => {
                let what = "the scripted network has no unix sockets";
                let error = io::Error::new(io::ErrorKind::Unsupported, what);
                self.dials.start(id, async { Err(error) });
            }
        }
    }

    fn give_up(&mut self, id: DialId) {
        self.dials.give_up(id);
    }

    fn watch(&mut self, slot: SlotIndex, socket: &Socket) {
        if let Kind::Sim(socket) = &socket.0 {
            self.watches.insert(slot, socket.line());
        }
    }

    /// A line in memory ends in one way.
    fn close(&mut self, slot: SlotIndex, socket: Option<Socket>, _: Ending) {
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
                events.push_back(Event::HungUp(*slot, Departure::Finished));
            }
            !cut
        });
        Ok(if events.is_empty() { Poll::Pending } else { Poll::Ready(()) })
    }

    fn name(&self) -> &'static str {
        "sim"
    }
}
