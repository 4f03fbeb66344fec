//! What the table's keeper asks of it: how many connections to find, and which to send to rest.

use core::task::Waker;

use super::{Bounds, Capacity, Carrier, Census, Spot, Streams};
use crate::sync::register;

impl<T: Carrier, E> Streams<T, E> {
    /// Whom to wake when connections are to be found, or may be sent to rest. Register first, then
    /// look.
    pub fn register_keeper(&self, waker: &Waker) {
        register(&self.keeper, waker);
    }

    /// Wakes the keeper for reasons of its owner.
    pub fn wake_keeper(&self) {
        self.keeper.wake();
    }

    /// The bounds.
    pub fn bounds(&self) -> Bounds {
        Bounds {
            min: self.limits.min.get(),
            max: self.limits.max.get().min(self.cells.len() as u32 / 2),
            streams: self.limits.streams.get(),
        }
    }

    /// Other bounds, and whether callers share beyond a connection's limit once there are as many
    /// connections as may be. Other limits of streams hold from the next stream on.
    pub fn set_bounds(&self, bounds: Bounds, exceed: bool) {
        self.limits.min.set(bounds.min);
        self.limits.max.set(bounds.max);
        self.limits.streams.set(bounds.streams);
        self.limits.exceed.set(exceed.into());
        self.look_after_line();
    }

    /// What there is at this moment.
    pub fn census(&self) -> Census {
        let most = self.most();
        let mut census = Census { waiting: self.demand.wanted().waiting, ..Census::default() };
        for word in self.cells.iter().map(|cell| cell.glance()).filter(|word| word.is_open()) {
            census.open += 1;
            census.leased += u32::from(word.leases);
            census.room += u32::from(word.room(most));
        }
        census
    }

    /// Whether a connection is on its way in or out.
    pub fn is_moving(&self) -> bool {
        self.cells.iter().any(|cell| cell.glance().is_moving())
    }

    /// Whether no connection stands here.
    pub fn is_empty(&self) -> bool {
        self.vacant() == self.cells.len() as u32
    }

    /// Whether a caller that lines up now has no stream to hope for but another's: there are as many
    /// connections as may be, those being found included, and those in line take what they have.
    pub fn is_exhausted(&self) -> bool {
        let (wanted, bounds, most) = (self.demand.wanted(), self.bounds(), self.most());
        let mut there = Census { waiting: wanted.waiting, ..Census::default() };
        for word in self.cells.iter().map(|cell| cell.glance()) {
            // What leaves stays when it is wanted, and what moves is found again.
            if word.is_taken() && !word.draining {
                there.open += 1;
                there.leased += u32::from(word.leases);
                there.room += u32::from(if word.is_moving() { most } else { word.room(most) });
            }
        }
        // One that was found just now may be counted among both.
        let missing = bounds.max.saturating_sub(there.open);
        there.room += wanted.dialing.min(missing) * u32::from(most);
        let is_open = !wanted.closed;
        is_open && wanted.dialing >= missing && there.leased + there.waiting >= there.room
    }

    fn vacant(&self) -> u32 {
        self.cells.iter().filter(|cell| !cell.glance().is_taken()).count() as u32
    }

    /// How many more connections are to be found now, those being found not counted. For one
    /// keeper: connections that were to leave stay first.
    pub fn wanted(&self) -> u32 {
        if !self.demand.wanted().is_open() {
            return 0;
        }
        let bounds = self.bounds();
        loop {
            let census = self.census();
            let finding = self.demand.wanted().dialing;
            let lacking = census.wanted(bounds).saturating_sub(census.open + finding);
            if lacking == 0 {
                return 0;
            }
            if !self.cells.iter().any(|cell| cell.stay()) {
                return lacking.min(self.vacant().saturating_sub(finding));
            }
            self.look_after_line();
        }
    }

    /// A connection is being found. `false` when the table was closed.
    #[must_use]
    pub fn find_one(&self) -> bool {
        self.demand.claim_spare()
    }

    /// It was found, or not.
    pub fn found(&self) {
        self.demand.dial_over();
    }

    /// So many connections are not needed: those with the fewest streams.
    pub fn shrink(&self, surplus: u32) {
        for _ in 0..surplus {
            let open = self.cells.iter().enumerate().filter_map(|(at, cell)| {
                let word = cell.glance();
                word.is_open().then_some((word.leases, at))
            });
            let Some((_, at)) = open.min() else {
                return;
            };
            self.leave(at);
        }
    }

    /// Where connections stand that take streams.
    pub fn spots(&self) -> impl Iterator<Item = Spot> {
        self.cells.iter().enumerate().filter_map(|(at, cell)| {
            let word = cell.glance();
            word.is_open().then_some(Spot { cell: at as u32, generation: word.generation })
        })
    }

    /// Looks at a connection that takes streams, if it stands there still. For that moment the look
    /// counts as one of its streams, if need be above its limit.
    pub fn look<R>(&self, at: Spot, look: impl FnOnce(&T) -> R) -> Option<R> {
        let held = self.cells.get(at.cell as usize)?.visit(at.generation)?;
        let lease = self.lease_of(at.cell, held);
        Some(look(lease.carrier()))
    }

    /// How many streams of one connection callers may have, whatever its peer allows.
    pub(super) fn most(&self) -> u16 {
        self.limits.streams.get().min(MOST.into()) as u16
    }
}

/// As many as a word counts, less one for who looks at the connection meanwhile.
const MOST: u16 = u16::MAX - 1;

impl Capacity {
    /// What a peer allows.
    pub fn of_peer(max_streams: u32, version: u32) -> Self {
        Self { limit: max_streams.min(MOST.into()) as u16, version }
    }
}
