//! The account: what became of each connection, who is lent what, and who is told what.

use super::{Told, World, pick};
use crate::engine::seeded::Chance;
use crate::{
    engine::streams::{Capacity, Carrier, Census, Spot},
    sync::{Arc, AtomicBool, AtomicU32, Ordering::Relaxed},
};

/// A connection's end of it.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) id: usize,
    pub(super) fate: Arc<Fate>,
}

#[derive(Debug, Default)]
pub(super) struct Fate {
    pub(super) unusable: AtomicBool,
    pub(super) rested: AtomicU32,
    pub(super) ended: AtomicU32,
    pub(super) dropped: AtomicU32,
}

impl Carrier for Conn {
    fn is_usable(&self) -> bool {
        !self.fate.unusable.load(Relaxed)
    }

    fn rest(self) {
        self.fate.rested.fetch_add(1, Relaxed);
    }

    fn end(self) {
        self.fate.ended.fetch_add(1, Relaxed);
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.fate.dropped.fetch_add(1, Relaxed);
    }
}

/// Where a connection is, by the account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Where {
    Moving,
    Open,
    Leaving,
    Rested,
    Ended,
    /// There was no cell for it.
    Refused,
}

/// What the account says of one connection.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) fate: Arc<Fate>,
    pub(super) spot: Option<Spot>,
    pub(super) at: Where,
    pub(super) draining: bool,
    pub(super) leases: u32,
    /// What its peer has said so far, each with the version after the one before.
    pub(super) said: Vec<u32>,
    pub(super) first_version: u32,
    /// Which of it the table has heard last.
    pub(super) heard: Option<usize>,
}

impl Record {
    pub(super) fn is_there(&self) -> bool {
        matches!(self.at, Where::Moving | Where::Open | Where::Leaving)
    }

    pub(super) fn is_open(&self) -> bool {
        self.at == Where::Open && !self.draining
    }

    pub(super) fn room(&self, most: u32) -> u32 {
        self.heard.map_or(0, |heard| self.said[heard]).min(LARGEST).min(most)
    }

    pub(super) fn capacity(&self, which: usize) -> Capacity {
        Capacity::of_peer(self.said[which], self.first_version.wrapping_add(which as u32))
    }

    pub(super) fn cell(&self) -> usize {
        self.spot.map_or(usize::MAX, |spot| spot.cell as usize)
    }
}

/// The most streams that are counted of a connection.
pub(super) const LARGEST: u32 = 65_534;

impl World {
    pub(super) fn there(&self) -> impl Iterator<Item = (usize, &Record)> {
        self.records.iter().enumerate().filter(|(_, record)| record.is_there())
    }

    pub(super) fn waiting(&self) -> u32 {
        self.line.iter().filter(|(_, left)| !left).count() as u32
    }

    pub(super) fn left(&self) -> u32 {
        self.line.iter().filter(|(_, left)| *left).count() as u32
    }

    pub(super) fn is_contended(&self) -> bool {
        self.waiting() > 0 || self.held || self.closed
    }

    pub(super) fn purge(&mut self) {
        while self.line.front().is_some_and(|(_, left)| *left) {
            self.line.pop_front();
        }
    }

    pub(super) fn one_that_stood(&self, random: &mut impl Chance) -> Option<usize> {
        // Those of late, which may stand there still.
        let back = pick(random, self.records.len().min(8))?;
        let id = self.records.len() - 1 - back;
        self.records[id].spot.map(|_| id)
    }

    /// Tells the first in line, and takes those out that left before it.
    pub(super) fn tell(&mut self, told: Told) {
        self.purge();
        let (number, _) = self.line.pop_front().expect("somebody waits");
        let caller = self.callers.iter_mut().find(|caller| caller.number == number);
        caller.expect("who is in line is there").told = Some(told);
        // The table takes those out on its way to the next.
    }

    pub(super) fn serve(&mut self) {
        while self.waiting() > 0 && !self.held && !self.closed {
            let Some(id) = self.lease_one() else {
                return;
            };
            self.served += 1;
            self.tell(Told::Stream(id));
        }
        while self.closed && self.waiting() > 0 {
            self.tell(Told::Closed);
        }
        if self.closed {
            self.line.clear();
        }
    }

    pub(super) fn lease_one(&mut self) -> Option<usize> {
        if let Some(id) = self.lease_below(self.bounds.streams) {
            return Some(id);
        }
        let open = self.there().filter(|(_, record)| record.is_open()).count() as u32;
        if !self.exceeds || open < self.bounds.max {
            return None;
        }
        let id = self.lease_below(u32::MAX);
        self.exceeded += u32::from(id.is_some());
        id
    }

    fn lease_below(&mut self, most: u32) -> Option<usize> {
        loop {
            let free = self
                .there()
                .filter(|(_, record)| record.is_open() && record.leases < record.room(most));
            let (id, _) = free.min_by_key(|(_, record)| (record.leases, record.cell()))?;
            if !self.records[id].fate.unusable.load(Relaxed) {
                self.records[id].leases += 1;
                return Some(id);
            }
            self.drain_one(id);
        }
    }

    pub(super) fn unlease(&mut self, id: usize) {
        self.records[id].leases -= 1;
        self.take_out(id);
    }

    pub(super) fn drain_one(&mut self, id: usize) {
        if self.records[id].is_there() {
            self.records[id].draining = true;
            self.take_out(id);
        }
    }

    pub(super) fn leave(&mut self, id: usize) {
        if self.records[id].is_open() {
            self.records[id].at = Where::Leaving;
            self.take_out(id);
        }
    }

    /// One that goes has gone when its last stream has ended.
    fn take_out(&mut self, id: usize) {
        let record = &mut self.records[id];
        if record.leases > 0 {
            return;
        }
        if record.draining {
            record.at = Where::Ended;
            self.ended += 1;
        } else if record.at == Where::Leaving {
            record.at = Where::Rested;
            self.rested += 1;
        }
    }

    fn census(&self) -> Census {
        let mut census = Census { waiting: self.waiting(), ..Census::default() };
        for (_, record) in self.there().filter(|(_, record)| record.is_open()) {
            census.open += 1;
            census.leased += record.leases;
            census.room += record.room(self.bounds.streams);
        }
        census
    }

    pub(super) fn lacking(&self) -> u32 {
        if self.held || self.closed {
            return 0;
        }
        let census = self.census();
        census.wanted(self.bounds).saturating_sub(census.open + self.finding)
    }

    /// Whether a caller has but the streams of others to hope for.
    fn is_exhausted(&self) -> bool {
        let there = || self.there().filter(|(_, record)| !record.draining);
        let missing = self.bounds.max.saturating_sub(there().count() as u32);
        if self.closed || self.finding < missing {
            return false;
        }
        let room: u32 = there().map(|(_, record)| record.room(self.bounds.streams)).sum();
        let leased: u32 = there().map(|(_, record)| record.leases).sum();
        let under_way = self.finding.min(missing) * self.bounds.streams;
        leased + self.waiting() >= room + under_way
    }

    /// Whether the table says what the account says.
    pub(super) fn check(&self) {
        assert_eq!(self.table.census(), self.census(), "INV-10: {:?}", self.table);
        assert_eq!(self.table.is_exhausted(), self.is_exhausted());
        assert_eq!(self.table.is_empty(), self.there().count() == 0);
        assert_eq!(self.table.is_closed(), self.closed);
        assert!(!self.table.is_moving(), "a cell moves, and nobody moves it: {:?}", self.table);
        let count = |id: usize| {
            let callers =
                self.callers.iter().filter(|caller| caller.told == Some(Told::Stream(id)));
            self.leases.iter().filter(|(_, of)| *of == id).count() + callers.count()
        };
        for (id, record) in self.records.iter().enumerate() {
            let fate = &record.fate;
            let went = (fate.rested.load(Relaxed), fate.ended.load(Relaxed));
            let expected = (record.at == Where::Rested, record.at == Where::Ended);
            assert_eq!(went, (expected.0.into(), expected.1.into()), "INV-10: {id} is {record:?}");
            assert_eq!(fate.dropped.load(Relaxed), u32::from(!record.is_there()), "{id}");
            assert_eq!(record.leases as usize, count(id), "INV-10: {id} is {record:?}");
        }
        for caller in &self.callers {
            assert_eq!(
                caller.waiter.is_filled(),
                caller.told.is_some(),
                "INV-5: {}",
                caller.number
            );
        }
        let vacant = self.cells as u32 - self.there().count() as u32;
        let is_to_find = self.lacking() > 0
            && (vacant > self.finding
                || self.there().any(|(_, record)| record.at == Where::Leaving && !record.draining));
        assert!(
            self.waiting() == 0 || !is_to_find || self.bell.0.load(Relaxed) || !self.is_kept(),
            "INV-5: nobody wakes the keeper: {:?}",
            self.table
        );
    }

    /// Whether the keeper has looked once.
    fn is_kept(&self) -> bool {
        Arc::strong_count(&self.bell) > 1
    }
}
