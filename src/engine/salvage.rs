//! What is left of a shard whose driver or worker is gone, without a warning, and starts anew.

use super::{CloseReason, Engine, ShardId, SlotIndex, State};
use crate::clock::Tick;

impl<T, E, K> Engine<T, E, K> {
    /// Nobody watches a shard's connections any more: ends those at rest, and marks those in use,
    /// so that they are closed when they come back. To be called on the shard's own thread.
    ///
    /// A dial is left alone: one that waits for its turn has no connection yet, and one that the
    /// shard had begun is the worker's to abandon.
    pub fn hang_up_all(&self, shard: ShardId, now: Tick) {
        for (index, slot) in self.shards[shard.get()].slab.iter() {
            // Only the shard's own thread takes a slot out of Dialing with a connection, so none
            // that is passed over here comes to rest unwatched.
            if slot.state() != State::Dialing {
                self.hang_up(shard, index, CloseReason::Unwatched, now);
            }
        }
    }

    /// The slots of a shard that have a connection, at rest, in use or on its way out. Exact on the
    /// shard's own thread, because nobody else fulfils a dial or vacates a slot.
    pub fn connections(&self, shard: ShardId) -> impl Iterator<Item = SlotIndex> {
        let held = |state| matches!(state, State::Idle | State::InUse | State::Closing);
        let slots = self.shards[shard.get()].slab.iter();
        slots.filter(move |(_, slot)| held(slot.state())).map(|(index, _)| index)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::{
        engine::{Doomed, Duty, Failure, Group, GroupLimits, Lease, Reservation, Seat},
        sync::Arc,
    };

    const SHARD: ShardId = ShardId(0);

    struct World {
        engine: Engine<u32, u32>,
        seat: Arc<Seat<u32, u32>>,
    }

    impl World {
        fn new() -> Self {
            let engine = Engine::new(1, 8);
            let group = Arc::new(Group::new(SHARD, 1, GroupLimits::default()));
            let seat = Arc::clone(&Group::seats(&group)[0]);
            Self { engine, seat }
        }

        fn dial(&self) -> Reservation<u32, u32> {
            self.engine.dial_spare(&self.seat, Tick::ZERO).unwrap();
            match self.engine.next_duty(SHARD) {
                Some(Duty::Dial(dial)) => dial,
                other => panic!("{other:?}"),
            }
        }

        fn rest(&self, conn: u32) {
            assert!(self.engine.fulfil(&self.dial(), conn, Tick::ZERO).is_ok());
        }

        fn check_out(&self) -> Lease<u32, u32> {
            self.engine.checkout(&self.seat.group, SHARD, 1).expect("one rests")
        }

        fn close_next(&self) -> CloseReason {
            let Some(Duty::Close(Doomed { place, .. })) = self.engine.next_duty(SHARD) else {
                panic!("nothing to close");
            };
            let reason = place.reason();
            self.engine.vacate(place, Tick::ZERO);
            reason
        }
    }

    #[test]
    fn what_rests_is_closed_and_what_is_in_use_when_it_comes_back() {
        let world = World::new();
        world.rest(1);
        world.rest(2);
        let lease = world.check_out();
        assert_eq!(world.engine.connections(SHARD).count(), 2);
        world.engine.hang_up_all(SHARD, Tick::ZERO);
        assert_eq!(world.engine.connections(SHARD).count(), 2, "closing ones count");
        assert_eq!(world.close_next(), CloseReason::Unwatched);
        assert!(world.engine.next_duty(SHARD).is_none());
        world.engine.give_back(lease, Tick::ZERO);
        assert_eq!(world.close_next(), CloseReason::Unwatched);
        let counts = world.engine.counts(&world.seat.group);
        assert_eq!((counts.live, counts.idle, counts.opened), (0, 0, 2));
        assert_eq!(world.engine.connections(SHARD).count(), 0);
    }

    #[test]
    fn a_dial_that_has_not_begun_may_still_succeed() {
        let world = World::new();
        let dial = world.dial();
        world.engine.hang_up_all(SHARD, Tick::ZERO);
        assert_eq!(world.engine.connections(SHARD).count(), 0, "a dial is no connection yet");
        assert!(world.engine.fulfil(&dial, 7, Tick::ZERO).is_ok(), "nothing was lost of it");
        assert_eq!(world.check_out().tenant.conn, 7);
    }

    #[test]
    fn a_dial_that_was_served_cannot_be_abandoned_once_more() {
        let world = World::new();
        let dial = world.dial();
        assert!(world.engine.fulfil(&dial, 7, Tick::ZERO).is_ok());
        assert!(!world.engine.abandon(&dial, Failure::Local(1), Tick::ZERO));
        let counts = world.engine.counts(&world.seat.group);
        assert_eq!((counts.live, counts.dialing, counts.idle), (1, 0, 1));
    }
}
