//! One slot, outside any engine: nothing but its word orders the two threads.
#![cfg(loom)]

use corepool::model::{Generation, State, Tick};
use loom::sync::Arc;
use loom_tests::{Conn, NOW, model, slot_in_use, spawn, took};

/// The idle period that begins when a new slot's connection first comes to rest.
const FIRST: Generation = Generation::from_bits(1);
const FOR_EVER: Tick = NOW.after(u32::MAX);

/// INV-1: who checks a connection out sees all that its last user did to it.
#[test]
fn return_publishes_to_checkout() {
    model(|| {
        let slot = Arc::new(slot_in_use());
        let mut conn = Conn::new();
        let user = spawn({
            let slot = Arc::clone(&slot);
            move || {
                conn.touch();
                assert_eq!(slot.give_back(conn, NOW, FOR_EVER).unwrap(), FIRST);
            }
        });
        // The period as a number: no ring or join orders us after the return.
        if let Some(mut conn) = slot.checkout(FIRST) {
            conn.touch();
            slot.give_back(conn, NOW, FOR_EVER).unwrap();
        }
        user.join().unwrap();
        assert_eq!(slot.state(), State::Idle, "INV-1: neither owner kept it");
    });
}

/// INV-1: the next user of a slot may write the cell as soon as the last one has read it out.
#[test]
fn two_users_in_turn() {
    model(|| {
        let slot = Arc::new(slot_in_use());
        slot.give_back(Conn::new(), NOW, FOR_EVER).unwrap();
        let turn = |slot: &loom_tests::TestSlot, period| {
            slot.checkout(period).map(|mut conn| {
                conn.touch();
                slot.give_back(conn, NOW, FOR_EVER).unwrap();
            })
        };
        let other = spawn({
            let slot = Arc::clone(&slot);
            move || turn(&slot, FIRST).is_some()
        });
        let ours = turn(&slot, Generation::from_bits(2)).or_else(|| turn(&slot, FIRST));
        let theirs = other.join().unwrap();
        assert!(ours.is_some() || theirs, "INV-1: neither owned it");
        assert_eq!(slot.state(), State::Idle);
    });
}

/// INV-1: of two checkouts of one idle period exactly one wins.
#[test]
fn checkout_vs_checkout() {
    model(|| {
        let slot = Arc::new(slot_in_use());
        slot.give_back(Conn::new(), NOW, FOR_EVER).unwrap();
        let other = spawn({
            let slot = Arc::clone(&slot);
            move || slot.checkout(FIRST)
        });
        let ours = slot.checkout(FIRST);
        let theirs = other.join().unwrap();
        assert!(ours.is_some() ^ theirs.is_some(), "INV-1: ours={ours:?} theirs={theirs:?}");
    });
}

/// INV-1, INV-6: a checkout and a hang-up never both own the connection and never neither; a
/// checkout that came first bears the mark and cannot rest again.
#[test]
fn checkout_vs_hang_up() {
    model(|| {
        let slot = Arc::new(slot_in_use());
        slot.give_back(Conn::new(), NOW, FOR_EVER).unwrap();
        let watch = spawn({
            let slot = Arc::clone(&slot);
            move || took(slot.hang_up(0, NOW))
        });
        let ours = slot.checkout(FIRST);
        let theirs = watch.join().unwrap();
        match (ours, theirs) {
            (Some(conn), None) => {
                assert!(slot.is_dead(), "INV-6: no mark");
                assert!(slot.give_back(conn, NOW, FOR_EVER).is_err(), "INV-6: rests dead");
            }
            (None, Some(_)) => assert_eq!(slot.state(), State::Closing),
            both => panic!("INV-1: {both:?}"),
        }
    });
}

/// INV-1, INV-6: a return and a hang-up: either it rested and the hang-up took it, or the return
/// finds the mark. Nothing else orders the hang-up after the return.
#[test]
fn return_vs_hang_up() {
    model(|| {
        let slot = Arc::new(slot_in_use());
        let watch = spawn({
            let slot = Arc::clone(&slot);
            move || took(slot.hang_up(0, NOW))
        });
        let ours = slot.give_back(Conn::new(), NOW, FOR_EVER);
        let theirs = watch.join().unwrap();
        match (ours, theirs) {
            (Ok(_), Some(_)) => assert_eq!(slot.state(), State::Closing),
            (Err(_), None) => assert!(slot.is_dead()),
            both => panic!("INV-1: {both:?}"),
        }
    });
}

/// INV-1: an expiry names an idle period; one that passed meanwhile is not ended.
#[test]
fn expire_vs_next_period() {
    model(|| {
        let slot = Arc::new(slot_in_use());
        slot.give_back(Conn::new(), NOW, FOR_EVER).unwrap();
        let sweep = spawn({
            let slot = Arc::clone(&slot);
            move || slot.expire(FIRST)
        });
        let used = slot.checkout(FIRST).map(|conn| {
            slot.give_back(conn, NOW, FOR_EVER).unwrap();
        });
        let expired = sweep.join().unwrap();
        assert!(used.is_some() ^ expired.is_some(), "INV-1: used={used:?} expired={expired:?}");
    });
}

/// INV-6: the sweep sees the deadline of the period that it sees, or of a later one.
#[test]
fn return_publishes_the_deadline() {
    model(|| {
        let slot = Arc::new(slot_in_use());
        let user = spawn({
            let slot = Arc::clone(&slot);
            move || slot.give_back(Conn::new(), NOW, Tick::from_millis(50)).unwrap()
        });
        if let Some((_, deadline)) = slot.resting() {
            assert_eq!(deadline.as_millis(), 50, "a deadline from before the return");
        }
        user.join().unwrap();
    });
}

/// INV-1: of fulfilling and abandoning a dial exactly one wins.
#[test]
fn fulfil_vs_abandon() {
    model(|| {
        let slot = Arc::new(loom_tests::TestSlot::new());
        let ticket = slot.reserve().unwrap();
        let timeout = spawn({
            let slot = Arc::clone(&slot);
            move || slot.abandon(ticket)
        });
        let fulfilled = slot.fulfil(ticket);
        let abandoned = timeout.join().unwrap();
        assert!(fulfilled ^ abandoned, "fulfilled={fulfilled} abandoned={abandoned}");
    });
}

/// INV-1: a completion that comes late never fulfils the dial that has the slot now.
#[test]
fn late_fulfil_vs_next_dial() {
    model(|| {
        let slot = Arc::new(loom_tests::TestSlot::new());
        let ticket = slot.reserve().unwrap();
        let late = spawn({
            let slot = Arc::clone(&slot);
            move || slot.fulfil(ticket)
        });
        let abandoned = slot.abandon(ticket);
        let next = abandoned.then(|| slot.reserve().unwrap());
        let fulfilled = late.join().unwrap();
        assert!(fulfilled ^ abandoned);
        if let Some(next) = next {
            assert!(slot.fulfil(next), "INV-1: the late completion took the slot");
        }
    });
}

/// INV-1: a timeout that comes late never abandons the dial that has the slot now, though no idle
/// period lay between the two dials.
#[test]
fn late_abandon_vs_next_dial() {
    model(|| {
        let slot = Arc::new(slot_in_use());
        let late = spawn({
            let slot = Arc::clone(&slot);
            move || slot.abandon(Generation::from_bits(0))
        });
        slot.discard();
        slot.vacate();
        let next = slot.reserve().unwrap();
        assert!(!late.join().unwrap(), "INV-1: the late timeout took the slot");
        assert!(slot.fulfil(next));
    });
}

/// INV-6: a peer that hangs up while it is dialled is never handed out: either the dial is
/// refused, or the lease bears the mark.
#[test]
fn fulfil_vs_hang_up() {
    model(|| {
        let slot = Arc::new(loom_tests::TestSlot::new());
        let ticket = slot.reserve().unwrap();
        let watch = spawn({
            let slot = Arc::clone(&slot);
            move || took(slot.hang_up(0, NOW)).is_none()
        });
        let fulfilled = slot.fulfil(ticket);
        assert!(watch.join().unwrap(), "nothing was at rest");
        assert!(slot.is_dead(), "INV-6: fulfilled={fulfilled} without a mark");
        assert_eq!(slot.abandon(ticket), !fulfilled);
    });
}
