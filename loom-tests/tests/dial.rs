//! Dials: one for every caller that none is under way for, and no more than may live (INV-2).
#![cfg(loom)]

use corepool::model::{CloseReason, Duty, Failure, GroupLimits, NoDial, Outcome};
use loom_tests::{
    Conn, House, NOW, ONE, Party, ROOMY, S0, S1, bounded, model, outcome, sleep_for_lease, spawn,
};

/// INV-1, INV-4: a dial succeeds as it times out: exactly one wins, and its caller hears of it.
#[test]
fn fulfil_vs_abandon() {
    model(|| {
        let house = House::new(1, 1, ONE);
        let waiter = house.line_up(&house, S0);
        let dial = house.dial(S0);
        let timeout = spawn({
            let (house, dial) = (house.clone(), dial.clone());
            move || house.engine.abandon(&dial, Failure::Peer("timed out"), NOW)
        });
        let fulfilled = house.engine.fulfil(&dial, Conn::new(), NOW).is_ok();
        let abandoned = timeout.join().unwrap();
        assert!(fulfilled ^ abandoned, "INV-1: fulfilled={fulfilled} abandoned={abandoned}");
        match outcome(&waiter) {
            Some(Outcome::Ready(lease)) if fulfilled => house.engine.give_back(lease, NOW),
            Some(Outcome::Failed(_)) if abandoned => {}
            other => panic!("INV-5: {other:?}"),
        }
        assert_eq!(house.counts().live, u32::from(fulfilled), "INV-2");
        house.finish();
    });
}

/// INV-1, INV-5: as above without a cause, so that the caller's next dial takes the slot at once:
/// the late completion does not fulfil that one.
#[test]
fn late_fulfil_vs_next_dial() {
    model(|| {
        let house = House::new(1, 1, ONE);
        let waiter = house.line_up(&house, S0);
        let dial = house.dial(S0);
        let timeout = spawn({
            let (house, dial) = (house.clone(), dial.clone());
            move || house.engine.abandon(&dial, Failure::GivenUp, NOW)
        });
        let fulfilled = house.engine.fulfil(&dial, Conn::new(), NOW).is_ok();
        assert!(fulfilled ^ timeout.join().unwrap(), "INV-1");
        assert_eq!(house.drive().dials, usize::from(!fulfilled), "INV-5");
        let lease = sleep_for_lease(&waiter);
        house.engine.give_back(lease, NOW);
        house.finish();
    });
}

/// INV-6: the peer hangs up as the dial succeeds: either the dial is refused, or the lease that
/// its caller gets bears the mark.
#[test]
fn fulfil_vs_hang_up() {
    model(|| {
        let house = House::new(1, 1, ONE);
        let waiter = house.line_up(&house, S0);
        let dial = house.dial(S0);
        let watch = spawn({
            let (house, slot) = (house.clone(), dial.index());
            move || house.engine.hang_up(S0, slot, CloseReason::PeerClosed, NOW)
        });
        let refused = house.engine.fulfil(&dial, Conn::new(), NOW).err();
        watch.join().unwrap();
        match refused {
            Some(conn) => {
                drop(conn);
                assert!(house.engine.abandon(&dial, Failure::Peer("hung up"), NOW));
                assert!(matches!(outcome(&waiter), Some(Outcome::Failed(_))));
            }
            None => {
                let lease = sleep_for_lease(&waiter);
                assert!(house.engine.is_dead(&lease), "INV-6: no mark");
                house.engine.give_back(lease, NOW);
                assert_eq!(house.counts().idle, 0, "INV-6: rests dead");
            }
        }
        house.finish();
    });
}

/// INV-6: the peer hangs up as a connection that nobody waits for comes to rest.
#[test]
fn fulfil_for_nobody_vs_hang_up() {
    model(|| {
        let house = House::new(1, 1, ONE);
        let waiter = house.line_up(&house, S0);
        house.engine.cancel(&waiter, &house.group);
        let dial = house.dial(S0);
        let watch = spawn({
            let (house, slot) = (house.clone(), dial.index());
            move || house.engine.hang_up(S0, slot, CloseReason::PeerClosed, NOW)
        });
        if let Err(conn) = house.engine.fulfil(&dial, Conn::new(), NOW) {
            drop(conn);
            assert!(house.engine.abandon(&dial, Failure::Peer("hung up"), NOW));
        }
        watch.join().unwrap();
        assert_eq!(house.counts().idle, 0, "INV-6: rests dead");
        house.finish();
    });
}

/// INV-5: a connection is gone as a caller lines up: exactly one dial begins for it.
#[test]
fn vacate_vs_wait() {
    model(|| {
        let house = House::new(1, 1, ONE);
        let lease = house.open(S0);
        house.engine.discard(lease, CloseReason::Discarded);
        let place = house.closing(S0);
        let driver = spawn({
            let house = house.clone();
            move || house.engine.vacate(place, NOW)
        });
        let waiter = house.line_up(&house, S0);
        driver.join().unwrap();
        assert_eq!(house.counts().live, 1, "INV-5: nobody dials for the caller");
        let dial = house.dial(S0);
        assert!(house.engine.next_duty(S0).is_none(), "INV-2: two dials");
        assert!(house.engine.fulfil(&dial, Conn::new(), NOW).is_ok());
        let lease = sleep_for_lease(&waiter);
        house.engine.give_back(lease, NOW);
        house.finish();
    });
}

/// INV-5: the caller that a permit came free for leaves, and another lines up while the permit is
/// taken for nothing: the other's dial begins when it comes back.
#[test]
fn vacate_vs_cancel_then_wait() {
    bounded(2, || {
        let house = House::new(1, 1, ONE);
        let lease = house.open(S0);
        house.engine.discard(lease, CloseReason::Discarded);
        let place = house.closing(S0);
        let first = house.line_up(&house, S0);
        let driver = spawn({
            let house = house.clone();
            move || house.engine.vacate(place, NOW)
        });
        house.engine.cancel(&first, &house.group);
        let second = house.line_up(&house, S0);
        driver.join().unwrap();
        assert_eq!(house.drive().dials, 1, "INV-5: nobody dials for the caller");
        let lease = sleep_for_lease(&second);
        house.engine.give_back(lease, NOW);
        house.finish();
    });
}

/// INV-2, INV-5: two callers line up and one connection may live: exactly one dial.
#[test]
fn wait_vs_wait_for_one_permit() {
    bounded(2, || assert_eq!(two_waits(ONE), 1, "INV-2"));
}

/// INV-2, INV-5: two callers line up and there is room for two: a dial for each.
#[test]
fn wait_vs_wait_for_two_permits() {
    bounded(1, || assert_eq!(two_waits(ROOMY), 2, "INV-5"));
}

fn two_waits(limits: GroupLimits) -> usize {
    let house = House::new(1, 2, limits);
    let other = spawn({
        let house = house.clone();
        move || house.line_up(&house, S0)
    });
    let ours = house.line_up(&house, S0);
    let theirs = other.join().unwrap();
    let mut dials = 0;
    while let Some(duty) = house.engine.next_duty(S0) {
        let Duty::Dial(dial) = duty else {
            panic!("nothing is to be closed: {duty:?}");
        };
        dials += 1;
        assert!(house.engine.fulfil(&dial, Conn::new(), NOW).is_ok());
    }
    for _ in 0..2 {
        for waiter in [&ours, &theirs] {
            if let Some(Outcome::Ready(lease)) = outcome(waiter) {
                house.engine.give_back(lease, NOW);
            }
        }
    }
    assert_eq!(house.counts().waiting, 0, "INV-5");
    house.finish();
    dials
}

/// INV-5: a dial succeeds with nobody in line as a caller lines up: the caller gets it.
#[test]
fn fulfil_vs_wait() {
    model(|| {
        let house = House::new(1, 1, ONE);
        let left = house.line_up(&house, S0);
        house.engine.cancel(&left, &house.group);
        let dial = house.dial(S0);
        let driver = spawn({
            let house = house.clone();
            move || house.engine.fulfil(&dial, Conn::new(), NOW).is_ok()
        });
        let waiter = house.line_up(&house, S0);
        let lease = sleep_for_lease(&waiter);
        assert!(driver.join().unwrap());
        house.engine.give_back(lease, NOW);
        house.finish();
    });
}

/// INV-5: a dial succeeds for the first in line as another lines up: that one does not count the
/// dial that is over as its own.
#[test]
fn fulfil_for_another_vs_wait() {
    bounded(2, || {
        let house = House::new(1, 2, ROOMY);
        let first = house.line_up(&house, S0);
        let dial = house.dial(S0);
        let driver = spawn({
            let house = house.clone();
            move || house.engine.fulfil(&dial, Conn::new(), NOW).is_ok()
        });
        let second = house.line_up(&house, S0);
        assert!(driver.join().unwrap());
        assert_eq!(house.drive().dials, 1, "INV-5: nobody dials for the second");
        for waiter in [&first, &second] {
            let lease = sleep_for_lease(waiter);
            house.engine.give_back(lease, NOW);
        }
        house.finish();
    });
}

/// INV-5: a dial fails as a caller lines up: either that caller learns the cause, or a new dial
/// is under way for it.
#[test]
fn failed_dial_vs_wait() {
    model(|| newcomer_after(Some("refused")));
}

/// INV-5: a dial is given up without a cause as a caller lines up: a new one is under way.
#[test]
fn given_up_dial_vs_wait() {
    model(|| newcomer_after(None));
}

fn newcomer_after(cause: Option<&'static str>) {
    let house = House::new(1, 1, ONE);
    let left = house.line_up(&house, S0);
    house.engine.cancel(&left, &house.group);
    let dial = house.dial(S0);
    let driver = spawn({
        let house = house.clone();
        let failure = cause.map_or(Failure::GivenUp, Failure::Peer);
        move || house.engine.abandon(&dial, failure, NOW)
    });
    let waiter = house.line_up(&house, S0);
    assert!(driver.join().unwrap());
    match (outcome(&waiter), house.drive().dials) {
        (Some(Outcome::Failed(_)), 0) if cause.is_some() => {}
        (None, 1) => {
            let lease = sleep_for_lease(&waiter);
            house.engine.give_back(lease, NOW);
        }
        other => panic!("INV-5: neither told nor dialled for: {other:?}"),
    }
    house.finish();
}

/// INV-5: a dial fails as the only idle connection of another shard comes back: the caller in
/// line is served or told, never neither.
#[test]
fn failed_dial_vs_return() {
    bounded(2, || {
        let house = House::new(2, 1, ROOMY);
        let lease = house.open(S1);
        let waiter = house.line_up(&house, S0);
        let dial = house.dial(S0);
        let driver = spawn({
            let house = house.clone();
            move || house.engine.abandon(&dial, Failure::Peer("refused"), NOW)
        });
        house.engine.give_back(lease, NOW);
        assert!(driver.join().unwrap());
        match outcome(&waiter) {
            Some(Outcome::Ready(lease)) => house.engine.give_back(lease, NOW),
            Some(Outcome::Failed(_)) => {}
            other => panic!("INV-5: {other:?}"),
        }
        // A dial in the caller's stead may have begun before the return had counted it out.
        assert!(house.drive().dials <= 1);
        assert_eq!((house.counts().waiting, house.counts().dialing), (0, 0));
        house.finish();
    });
}

/// INV-5: two groups share a shard with one slot. A caller that finds the table full is told so,
/// unless the slot comes free in time for its dial.
#[test]
fn full_table_vs_vacate() {
    bounded(2, || {
        let house = House::new(1, 1, ONE);
        let other = Party::new(1, ONE);
        let lease = house.open(S0);
        house.engine.discard(lease, CloseReason::Discarded);
        let place = house.closing(S0);
        let driver = spawn({
            let house = house.clone();
            move || house.engine.vacate(place, NOW)
        });
        let waiter = house.line_up(&other, S0);
        driver.join().unwrap();
        match outcome(&waiter) {
            Some(Outcome::Exhausted) => assert_eq!(house.drive().dials, 0),
            None => {
                assert_eq!(house.drive().dials, 1, "INV-5");
                let lease = sleep_for_lease(&waiter);
                house.engine.give_back(lease, NOW);
            }
            found => panic!("INV-5: {found:?}"),
        }
        house.finish_with(&[&other]);
    });
}

/// INV-5: two callers find the table full at once: both are told, and neither spins until the
/// other, counted already, has lined up.
#[test]
fn full_table_vs_wait() {
    bounded(2, || {
        let house = House::new(1, 1, ONE);
        let other = loom::sync::Arc::new(Party::new(1, ROOMY));
        let lease = house.open(S0);
        let caller = spawn({
            let (house, other) = (house.clone(), other.clone());
            move || house.line_up(&other, S0)
        });
        let ours = house.line_up(&other, S0);
        let theirs = caller.join().unwrap();
        for waiter in [ours, theirs] {
            assert!(matches!(outcome(&waiter), Some(Outcome::Exhausted)), "INV-5: left in line");
        }
        house.engine.give_back(lease, NOW);
        house.finish_with(&[&other]);
    });
}

/// INV-1, INV-7: a dial for one caller alone succeeds as that caller leaves: the connection is
/// the caller's to put back, or rests; it is never lost.
#[test]
fn fulfil_alone_vs_cancel() {
    model(|| {
        let house = House::new(1, 1, ONE);
        let caller = house.engine.dial_fresh(&house.seats[0], NOW).unwrap();
        let dial = house.dial(S0);
        let driver = spawn({
            let house = house.clone();
            move || house.engine.fulfil(&dial, Conn::new(), NOW).is_ok()
        });
        house.engine.cancel(&caller, &house.group);
        assert!(driver.join().unwrap());
        let counts = house.counts();
        assert_eq!(
            (counts.idle, counts.dialing, counts.waiting),
            (1, 0, 0),
            "INV-7: lost on the way"
        );
        house.finish();
    });
}

/// INV-5: a dial for one caller alone fails as another lines up: that one's dial follows.
#[test]
fn failed_dial_alone_vs_wait() {
    model(|| {
        let house = House::new(1, 1, ONE);
        let caller = house.engine.dial_fresh(&house.seats[0], NOW).unwrap();
        let dial = house.dial(S0);
        let driver = spawn({
            let house = house.clone();
            move || house.engine.abandon(&dial, Failure::Peer("refused"), NOW)
        });
        let waiter = house.line_up(&house, S0);
        assert!(driver.join().unwrap());
        assert!(matches!(outcome(&caller), Some(Outcome::Failed(_))));
        assert_eq!(house.drive().dials, 1, "INV-5: nobody dials for the caller");
        let lease = sleep_for_lease(&waiter);
        house.engine.give_back(lease, NOW);
        house.finish();
    });
}

/// INV-5: a caller alone is refused because the table of its shard is full, as another lines up on
/// a shard that has room: that one is dialled for. The refused one must not have had the permit.
#[test]
fn refused_dial_alone_vs_wait() {
    bounded(2, || {
        let house = House::new(2, 1, ONE);
        // Another group fills shard 0.
        let other = Party::new(1, ONE);
        let blocker = house.open_for(&other, S0);
        let caller = spawn({
            let house = house.clone();
            move || house.engine.dial_fresh(&house.seats[0], NOW).err()
        });
        let waiter = house.line_up(&house, S1);
        let refused = caller.join().unwrap();
        assert!(matches!(refused, Some(NoDial::Exhausted | NoDial::NoPermit)));
        assert!(outcome(&waiter).is_none());
        assert_eq!(house.drive().dials, 1, "INV-5: nobody dials for the caller");
        let lease = sleep_for_lease(&waiter);
        house.engine.give_back(lease, NOW);
        house.engine.give_back(blocker, NOW);
        house.finish_with(&[&other]);
    });
}

/// INV-2: two callers dial alone for one permit: one is refused, and its slot comes back.
#[test]
fn dial_alone_vs_dial_alone() {
    model(|| {
        let house = House::new(1, 2, ONE);
        let other = spawn({
            let house = house.clone();
            move || house.engine.dial_fresh(&house.seats[0], NOW)
        });
        let ours = house.engine.dial_fresh(&house.seats[0], NOW);
        let theirs = other.join().unwrap();
        assert!(ours.is_ok() ^ theirs.is_ok(), "INV-2: ours={ours:?} theirs={theirs:?}");
        assert_eq!(house.engine.slots_in_use(S0), 1, "INV-2");
        house.drive();
        let lease = sleep_for_lease(&ours.or(theirs).unwrap());
        house.engine.give_back(lease, NOW);
        house.finish();
    });
}

/// INV-2, INV-5: a caller replaces its connection by a fresh one as another lines up: the permit
/// passes on, so the other gets the fresh one when it comes back, and no second dial begins.
#[test]
fn redial_vs_wait() {
    bounded(2, || {
        let house = House::new(1, 2, ONE);
        let lease = house.open(S0);
        let user = spawn({
            let house = house.clone();
            move || house.engine.redial(lease, NOW).unwrap()
        });
        let waiter = house.line_up(&house, S0);
        let caller = user.join().unwrap();
        assert_eq!(house.counts().live, 1, "INV-2");
        let done = house.drive();
        assert_eq!((done.dials, done.closes), (1, 1), "INV-2");
        assert!(outcome(&waiter).is_none(), "came between");
        let lease = sleep_for_lease(&caller);
        house.engine.give_back(lease, NOW);
        let lease = sleep_for_lease(&waiter);
        house.engine.give_back(lease, NOW);
        house.finish();
    });
}
