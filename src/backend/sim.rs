//! The driver of the scripted network.

use core::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    sync::Arc,
};

use tokio::time::Sleep;

use super::{
    Destination, DialId, Driver, Ending, Event, Socket, Target, dials::Dials, socket::Kind,
};
use crate::{
    engine::{ShardId, SlotIndex},
    sim::{Dial, Line, Promise, Script},
};

/// Dials by script, watches lines in memory. Everything is in order of slots and dials, so that a
/// run can be had again.
#[derive(Debug)]
pub(crate) struct Sim {
    script: Script,
    shard: ShardId,
    dials: Dials,
    /// Dials that do not heed that they were given up.
    stubborn: BTreeSet<DialId>,
    watches: BTreeMap<SlotIndex, Watch>,
    closing: Vec<(SlotIndex, Delay)>,
    events: VecDeque<Event>,
    /// What the last turn told the shard of.
    told: Vec<Arc<Line>>,
}

#[derive(Debug)]
struct Watch {
    line: Arc<Line>,
    /// Once the peer went: when to say so.
    late: Option<Delay>,
}

/// Nothing, or a wait.
type Delay = Option<Pin<Box<Sleep>>>;

impl Sim {
    pub(crate) fn new(script: Script, shard: ShardId) -> Self {
        Self {
            script,
            shard,
            dials: Dials::default(),
            stubborn: BTreeSet::new(),
            watches: BTreeMap::new(),
            closing: Vec::new(),
            events: VecDeque::new(),
            told: Vec::new(),
        }
    }
}

impl Driver for Sim {
    fn dial(&mut self, id: DialId, target: &Target) {
        match &target.to {
            Destination::Ip(to) => {
                let plan = self.script.plan(self.shard, *to);
                if matches!(plan, Dial::AcceptLate(_)) {
                    self.stubborn.insert(id);
                }
                let dial = self.script.dial(*to, plan);
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
        if !self.stubborn.contains(&id) {
            self.dials.give_up(id);
        }
    }

    fn watch(&mut self, slot: SlotIndex, socket: &Socket) {
        if let Kind::Sim(socket) = &socket.0 {
            self.watches.insert(slot, Watch { line: socket.line(), late: None });
        }
    }

    /// A line in memory ends in one way. Where the driver is slow, the socket is closed as late as
    /// that is told.
    fn close(&mut self, slot: SlotIndex, socket: Option<Socket>, _: Ending) {
        if let Some(Watch { line, late: Some(_) }) = self.watches.remove(&slot) {
            // Its peer went as well, and the word of it was on its way: the two cross.
            let departure = line.departure();
            self.events.extend(departure.map(|how| Event::HungUp(slot, how)));
        }
        drop(socket);
        self.closing.push((slot, delay(self.script.network().close())));
    }

    fn turn(&mut self, cx: &mut Context<'_>, events: &mut VecDeque<Event>) -> io::Result<Poll<()>> {
        // The shard takes in what one turn told it before it asks for the next.
        self.told.drain(..).for_each(|line| line.note_reported());
        let network = self.script.network();
        if network.fails(self.shard.get()) {
            self.watches.values().for_each(|watch| watch.line.note_reported());
            return Err(io::Error::other("the simulated driver failed"));
        }
        events.append(&mut self.events);
        self.closing.retain_mut(|(slot, delay)| {
            let over = poll(delay, cx).is_ready();
            if over && !network.breaks(Promise::TellsCloses) {
                events.push_back(Event::Closed(*slot));
            }
            !over
        });
        let dialed = events.len();
        self.dials.collect(cx, events);
        for event in events.iter().skip(dialed) {
            if let Event::Dialed(id, _) = event {
                self.stubborn.remove(id);
            }
        }
        self.watches.retain(|slot, watch| {
            let Poll::Ready(how) = watch.line.poll_gone(cx) else {
                return true;
            };
            if poll(watch.late.get_or_insert_with(|| delay(network.report())), cx).is_pending() {
                return true;
            }
            if !network.breaks(Promise::TellsDepartures) {
                events.push_back(Event::HungUp(*slot, how));
            }
            self.told.push(Arc::clone(&watch.line));
            false
        });
        Ok(if events.is_empty() { Poll::Pending } else { Poll::Ready(()) })
    }

    fn name(&self) -> &'static str {
        "sim"
    }

    fn successor(&self) -> Option<Box<dyn Driver>> {
        Some(Box::new(Self::new(self.script.clone(), self.shard)))
    }
}

fn delay(after: Duration) -> Delay {
    (!after.is_zero()).then(|| Box::pin(tokio::time::sleep(after)))
}

fn poll(delay: &mut Delay, cx: &mut Context<'_>) -> Poll<()> {
    delay.as_mut().map_or(Poll::Ready(()), |sleep| sleep.as_mut().poll(cx))
}
