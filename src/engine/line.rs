//! Waiting in line, and how a connection gets to the one that waits longest.

use super::{
    Cancelled, CloseReason, Engine, Group, GroupWaiter, Lease, Outcome, Refused, Seat, ShardId,
    Waiter, totals::Lack,
};
use crate::{
    clock::Tick,
    sync::{Arc, Ordering, fence},
};

impl<T, E, K> Engine<T, E, K> {
    /// Waits in line, and sees to it that a connection is under way: an idle one within reach (as
    /// for [`Self::checkout_elsewhere`]), or a dial, or, where no dial may start, an idle one
    /// anywhere.
    ///
    /// # Errors
    /// When the group is closed, `max_waiters` callers wait already, or its breaker is open and
    /// nothing rests.
    pub fn wait(
        &self,
        seat: &Arc<Seat<T, E, K>>,
        steal_min: u32,
        now: Tick,
    ) -> Result<Arc<GroupWaiter<T, E, K>>, Refused> {
        self.line_up(seat, steal_min, now).map(|(waiter, _)| waiter)
    }

    /// As [`Self::wait`], but not for a return: leaves again when it takes a permit that somebody
    /// else has.
    ///
    /// # Errors
    /// As for [`Self::wait`], and when as many connections live as may.
    pub fn wait_for_dial(
        &self,
        seat: &Arc<Seat<T, E, K>>,
        steal_min: u32,
        now: Tick,
    ) -> Result<Arc<GroupWaiter<T, E, K>>, Refused> {
        let group = &*seat.group;
        let (mut waiter, mut lack) = self.line_up(seat, steal_min, now)?;
        // What lacks may lack for one that lined up beside this one. Of as many as dials are under
        // way none leaves, whoever it was that began them.
        while matches!(lack, Some(Lack::Live | Lack::Total)) && !waiter.is_filled() {
            match waiter.cancel() {
                Cancelled::InTime => {
                    group.waiters.note_cancelled();
                    if group.demand.leave_undialed() {
                        return Err(Refused::AtLimit);
                    }
                    (waiter, lack) = self.take_place(seat, steal_min, now);
                }
                Cancelled::TooLate(outcome) => {
                    waiter = Arc::new(Waiter::alone());
                    if let Some(outcome) = outcome {
                        let filled = waiter.fill(outcome);
                        debug_assert!(filled.is_ok(), "nobody has cancelled it");
                    }
                    break;
                }
            }
        }
        Ok(waiter)
    }

    /// Takes a place in line and looks after it. Says what keeps callers from their dials.
    fn line_up(
        &self,
        seat: &Arc<Seat<T, E, K>>,
        steal_min: u32,
        now: Tick,
    ) -> Result<Placed<T, E, K>, Refused> {
        let group = &*seat.group;
        let limit = group.limits.max_waiters();
        // While the group is held nobody dials, and by the end of that the breaker may be closed.
        if !group.demand.wanted().held
            && let Some(left) = group.rejects(now)
        {
            return Err(Refused::Open(left));
        }
        if group.waiters.is_clogged(may_stand(limit)) {
            group.waiters.purge();
            // SeqCst: as below, for the one that was first in line. Who came to serve or to fail
            // it while the purge held it found nobody, and we may be refused.
            fence(Ordering::SeqCst);
            self.settle(group, seat.shard, ANYWHERE);
            self.dial_if_needed(seat, now);
            if group.waiters.is_clogged(may_stand(limit)) {
                return Err(Refused::Full);
            }
        }
        group.demand.register(limit)?;
        let placed = self.take_place(seat, steal_min, now);
        self.dial_ahead(seat, now);
        Ok(placed)
    }

    /// The last place in line, for a caller that is counted.
    fn take_place(&self, seat: &Arc<Seat<T, E, K>>, steal_min: u32, now: Tick) -> Placed<T, E, K> {
        let group = &*seat.group;
        let waiter = group.waiters.enter();
        // SeqCst: pairs with the fences in `come_back`, `dial_if_needed` and `close`, INV-5. What
        // came to rest, came free or closed before it, we see below; what comes after sees us.
        fence(Ordering::SeqCst);
        self.settle(group, seat.shard, steal_min);
        let lack = self.dial_if_needed(seat, now);
        (waiter, lack)
    }

    /// A waiting caller leaves. What had been handed to it goes back (INV-7).
    pub fn cancel(&self, waiter: &GroupWaiter<T, E, K>, group: &Group<T, E, K>) {
        match waiter.cancel() {
            Cancelled::InTime if waiter.is_in_line() => self.note_left(group),
            Cancelled::InTime => {}
            Cancelled::TooLate(Some(Outcome::Ready(lease))) => self.put_back(lease),
            Cancelled::TooLate(_) => {}
        }
    }

    fn note_left(&self, group: &Group<T, E, K>) {
        group.waiters.note_cancelled();
        group.demand.left();
    }

    /// Leaves no idle connection and waiter together, and neither behind in a closed group.
    ///
    /// Ends without spinning: a caller that is counted but not yet in line looks for itself
    /// after it has lined up.
    #[cold]
    #[inline(never)]
    pub(super) fn settle(&self, group: &Group<T, E, K>, first: ShardId, steal_min: u32) {
        while !group.waiters.is_empty() && group.demand.wanted().is_open() {
            let Some(lease) = self.take_within(group, first, steal_min) else {
                break;
            };
            if self.is_marked(&lease) {
                self.discard(lease, CloseReason::PeerClosed);
            } else if let Err(lease) = self.hand_off(lease, Served::ByReturn) {
                let seat = Arc::clone(&lease.tenant.seat);
                // Its rest goes on: nobody has used it.
                let rested = lease.tenant.rested;
                // Who lined up before its fence is seen by the next turn.
                self.rest_in_sight(lease, &seat, rested);
            }
        }
        if group.demand.wanted().closed {
            while let Some(lease) = self.take_within(group, first, ANYWHERE) {
                self.discard(lease, CloseReason::PoolClosed);
            }
            while let Some(waiter) = group.waiters.next() {
                match waiter.fill(Outcome::Closed) {
                    Ok(()) => {
                        group.demand.left();
                        waiter.wake();
                    }
                    Err(_) => group.waiters.forget_one(),
                }
            }
        }
    }

    /// Gives a connection to the caller that waits longest.
    ///
    /// # Errors
    /// Gives it back when nobody waits.
    pub(super) fn hand_off(
        &self,
        mut lease: Lease<T, E, K>,
        how: Served,
    ) -> Result<(), Lease<T, E, K>> {
        let seat = Arc::clone(&lease.tenant.seat);
        let group = &*seat.group;
        while let Some(waiter) = group.waiters.next() {
            match waiter.fill(Outcome::Ready(lease)) {
                Ok(()) => {
                    match how {
                        Served::ByDial => group.demand.served_by_dial(),
                        Served::ByReturn => {
                            group.demand.left();
                            seat.lane.reused.add();
                        }
                    }
                    waiter.wake();
                    return Ok(());
                }
                Err(Outcome::Ready(back)) => {
                    group.waiters.forget_one();
                    lease = back;
                }
                Err(_) => unreachable!("a waiter gives back what it was filled with"),
            }
        }
        Err(lease)
    }

    /// The breaker is open: tells all that wait and that no dial is under way for. Idle connections
    /// serve first.
    pub(super) fn fail_excess(&self, group: &Group<T, E, K>, first: ShardId, left_ms: u32) {
        self.settle(group, first, ANYWHERE);
        while group.demand.wanted().needs_dial() {
            // One that is counted but not in line yet looks for itself.
            let Some(waiter) = group.waiters.next() else {
                return;
            };
            match waiter.fill(Outcome::Open(left_ms)) {
                Ok(()) => {
                    group.demand.left();
                    waiter.wake();
                }
                Err(_) => group.waiters.forget_one(),
            }
        }
    }

    /// A dial ended without a connection: tells one waiter, if there is one.
    pub(super) fn fail_one(&self, group: &Group<T, E, K>, mut outcome: Outcome<T, E, K>) -> bool {
        while let Some(waiter) = group.waiters.next() {
            match waiter.fill(outcome) {
                Ok(()) => {
                    group.demand.served_by_dial();
                    waiter.wake();
                    return true;
                }
                Err(back) => {
                    group.waiters.forget_one();
                    outcome = back;
                }
            }
        }
        group.demand.dial_over();
        false
    }
}

/// A caller's place in line, and what keeps callers from their dials.
type Placed<T, E, K> = (Arc<GroupWaiter<T, E, K>>, Option<Lack>);

/// How many that left may stand in line where `limit` may wait; few in models and op sequences,
/// so that they get there.
pub(super) const fn may_stand(limit: u32) -> u32 {
    if cfg!(any(test, loom, model, fuzzing)) {
        return limit;
    }
    let four_times = limit.saturating_mul(4);
    if four_times > 64 { four_times } else { 64 }
}

/// The stealing threshold of those that may take from any lane.
pub(super) const ANYWHERE: u32 = 1;

/// Which count a hand-off settles.
#[derive(Clone, Copy, Debug)]
pub(super) enum Served {
    ByDial,
    ByReturn,
}
