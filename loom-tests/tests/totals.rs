//! The limits of the whole pool, and those on dials: what lacks to one is owed to it by whoever
//! gives it back (INV-5), and never more is out than may be (INV-2).
#![cfg(loom)]

use corepool::model::{CloseReason, Failure, GroupLimits, Outcome, TotalLimits};
use loom::sync::Arc;
use loom_tests::{
    Conn, House, NEVER, NOW, ONE, Party, ROOMY, S0, S1, bounded, model, outcome, sleep_for_lease,
    spawn,
};

const NONE: TotalLimits = TotalLimits { max_live: None, max_idle: None, max_dialing: None };
const ONE_LIVES: TotalLimits = TotalLimits { max_live: Some(1), ..NONE };
const TWO_LIVE: TotalLimits = TotalLimits { max_live: Some(2), ..NONE };
const ONE_DIALS: TotalLimits = TotalLimits { max_dialing: Some(1), ..NONE };
const ONE_RESTS: TotalLimits = TotalLimits { max_idle: Some(1), ..NONE };

/// INV-2, INV-5: the pool's only permit comes back as a caller of another group lines up: its dial
/// begins.
#[test]
fn vacate_vs_wait_of_another_group() {
    bounded(2, || {
        let house = House::with_totals(1, 2, ONE, ONE_LIVES);
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
        assert_eq!(house.engine.total_live(), Some(1), "INV-2, INV-5");
        assert_eq!(house.drive().dials, 1, "INV-5: nobody dials for the caller");
        let lease = sleep_for_lease(&waiter);
        house.engine.give_back(lease, NOW);
        house.finish_with(&[&other]);
    });
}

/// INV-5: the pool's only connection comes to rest as a caller of another group lines up: it makes
/// room.
#[test]
fn return_vs_wait_of_another_group() {
    bounded(2, || {
        let house = House::with_totals(1, 2, ONE, ONE_LIVES);
        let other = Party::new(1, ONE);
        let lease = house.open(S0);
        let user = spawn({
            let house = house.clone();
            move || house.engine.give_back(lease, NOW)
        });
        let waiter = house.line_up(&other, S0);
        user.join().unwrap();
        let done = house.drive();
        assert_eq!((done.dials, done.closes), (1, 1), "INV-5: rests while another group starves");
        let lease = sleep_for_lease(&waiter);
        house.engine.give_back(lease, NOW);
        house.finish_with(&[&other]);
    });
}

/// INV-5: a connection at rest makes room for another group as a caller of its own lines up: both
/// are served, one after the other.
#[test]
fn eviction_for_another_group_vs_wait() {
    bounded(2, || {
        let house = House::with_totals(1, 2, ONE, ONE_LIVES);
        let other = Arc::new(Party::new(1, ONE));
        house.rest_one(S0);
        let stranger = spawn({
            let (house, other) = (house.clone(), other.clone());
            move || house.line_up(&other, S0)
        });
        let ours = house.line_up(&house, S0);
        let theirs = stranger.join().unwrap();
        let mut served = 0;
        for _ in 0..2 {
            house.drive();
            for waiter in [&ours, &theirs] {
                if let Some(found) = outcome(waiter) {
                    let Outcome::Ready(lease) = found else { panic!("INV-5: {found:?}") };
                    served += 1;
                    assert_eq!(house.engine.total_live(), Some(1), "INV-2");
                    house.engine.give_back(lease, NOW);
                }
            }
        }
        assert_eq!(served, 2, "INV-5: left in line");
        house.finish_with(&[&other]);
    });
}

/// INV-2, INV-5: the pool's only permit to dial comes back with a connection as a caller of
/// another group lines up.
#[test]
fn fulfil_vs_wait_of_another_group() {
    bounded(2, || dial_over_vs_wait_of_another_group(true));
}

/// INV-2, INV-5: the same with a dial that fails.
#[test]
fn failed_dial_vs_wait_of_another_group() {
    bounded(2, || dial_over_vs_wait_of_another_group(false));
}

fn dial_over_vs_wait_of_another_group(succeeds: bool) {
    let house = House::with_totals(1, 2, ONE, ONE_DIALS);
    let other = Party::new(1, ONE);
    let first = house.line_up(&house, S0);
    let dial = house.dial(S0);
    let driver = spawn({
        let house = house.clone();
        move || {
            if succeeds {
                assert!(house.engine.fulfil(&dial, Conn::new(), NOW).is_ok());
            } else {
                assert!(house.engine.abandon(&dial, Failure::Peer("refused"), NOW));
            }
        }
    });
    let second = house.line_up(&other, S0);
    driver.join().unwrap();
    assert_eq!(house.drive().dials, 1, "INV-5: nobody dials for the caller");
    for waiter in [first, second] {
        match outcome(&waiter) {
            Some(Outcome::Ready(lease)) => house.engine.give_back(lease, NOW),
            Some(Outcome::Failed(_)) if !succeeds => {}
            found => panic!("INV-5: {found:?}"),
        }
    }
    house.finish_with(&[&other]);
}

/// INV-2, INV-5: a group's only permit to dial comes back as another caller of it lines up.
#[test]
fn fulfil_vs_wait_at_max_dialing() {
    bounded(2, || {
        let house = House::new(1, 2, GroupLimits { max_dialing: 1, ..ROOMY });
        let first = house.line_up(&house, S0);
        let dial = house.dial(S0);
        let driver = spawn({
            let house = house.clone();
            move || assert!(house.engine.fulfil(&dial, Conn::new(), NOW).is_ok())
        });
        let second = house.line_up(&house, S0);
        driver.join().unwrap();
        assert_eq!(house.drive().dials, 1, "INV-5: nobody dials for the caller");
        for waiter in [first, second] {
            let lease = sleep_for_lease(&waiter);
            house.engine.give_back(lease, NOW);
        }
        house.finish();
    });
}

/// INV-5: a caller alone takes the last permit to live, lacks one to dial and rolls back, as that
/// one comes back for a caller in line: the one or the other has a dial.
#[test]
fn rolled_back_permit_vs_fulfil() {
    bounded(2, || {
        let house = House::new(1, 3, GroupLimits { max_dialing: 1, ..ROOMY });
        let first = house.line_up(&house, S0);
        let dial = house.dial(S0);
        let second = house.line_up(&house, S0);
        let caller = spawn({
            let house = house.clone();
            move || house.engine.dial_fresh(&house.seats[0], NOW).ok()
        });
        assert!(house.engine.fulfil(&dial, Conn::new(), NOW).is_ok());
        let alone = caller.join().unwrap();
        assert_eq!(house.counts().live, 2, "INV-5: a permit free and no dial");
        house.drive();
        if let Some(alone) = alone {
            let lease = sleep_for_lease(&alone);
            house.engine.give_back(lease, NOW);
        }
        for waiter in [second, first] {
            let lease = sleep_for_lease(&waiter);
            house.engine.give_back(lease, NOW);
        }
        house.finish();
    });
}

/// INV-5: the same with the pool's permits: whoever gives one back takes the pool for full while
/// the other one is out for a moment.
#[test]
fn rolled_back_total_vs_feed() {
    const BOTH: TotalLimits = TotalLimits { max_dialing: Some(1), ..TWO_LIVE };
    bounded(2, || {
        let house = House::with_totals(1, 3, ROOMY, BOTH);
        let other = Party::new(1, ONE);
        let first = house.line_up(&house, S0);
        let dial = house.dial(S0);
        let second = house.line_up(&other, S0);
        let caller = spawn({
            let house = house.clone();
            move || house.engine.dial_fresh(&house.seats[0], NOW).ok()
        });
        assert!(house.engine.fulfil(&dial, Conn::new(), NOW).is_ok());
        let alone = caller.join().unwrap();
        assert_eq!(house.engine.total_live(), Some(2), "INV-2, INV-5: a permit free and no dial");
        house.drive();
        for waiter in alone.iter().chain([&first]) {
            let lease = sleep_for_lease(waiter);
            house.engine.discard(lease, CloseReason::Discarded);
        }
        house.drive();
        let lease = sleep_for_lease(&second);
        house.engine.give_back(lease, NOW);
        house.finish_with(&[&other]);
    });
}

/// INV-5: a starving group is taken out of the queue for its first caller as its second lines up:
/// it is in the queue again, or was seen to need two.
#[test]
fn feed_vs_wait_of_a_starving_group() {
    bounded(1, || {
        let house = House::with_totals(1, 4, ROOMY, TWO_LIVE);
        let other = Party::new(1, ROOMY);
        let leases = [house.open(S0), house.open(S0)];
        let first = house.line_up(&other, S0);
        let [one, two] = leases.map(|lease| {
            house.engine.discard(lease, CloseReason::Discarded);
            house.closing(S0)
        });
        let driver = spawn({
            let house = house.clone();
            move || house.engine.vacate(one, NOW)
        });
        let second = house.line_up(&other, S0);
        driver.join().unwrap();
        house.engine.vacate(two, NOW);
        assert_eq!(house.engine.total_live(), Some(2), "INV-2, INV-5");
        assert_eq!(house.drive().dials, 2, "INV-5: a permit free and no dial");
        for waiter in [first, second] {
            let lease = sleep_for_lease(&waiter);
            house.engine.give_back(lease, NOW);
        }
        house.finish_with(&[&other]);
    });
}

/// INV-5: two permits come back at once and two groups starve: each has a dial.
#[test]
fn feed_vs_feed() {
    bounded(2, || {
        let house = House::with_totals(1, 4, ROOMY, TWO_LIVE);
        let others = [Party::new(1, ONE), Party::new(1, ONE)];
        let leases = [house.open(S0), house.open(S0)];
        let waiters = [0, 1].map(|at| house.line_up(&others[at], S0));
        let [one, two] = leases.map(|lease| {
            house.engine.discard(lease, CloseReason::Discarded);
            house.closing(S0)
        });
        let driver = spawn({
            let house = house.clone();
            move || house.engine.vacate(one, NOW)
        });
        house.engine.vacate(two, NOW);
        driver.join().unwrap();
        assert_eq!(house.drive().dials, 2, "INV-5: a permit free and no dial");
        for waiter in waiters {
            let lease = sleep_for_lease(&waiter);
            house.engine.give_back(lease, NOW);
        }
        house.finish_with(&[&others[0], &others[1]]);
    });
}

/// INV-5: one connection ends to make room and another comes to rest, and two groups starve: the
/// second makes room for the second, although it was not wanted before the first had ended.
#[test]
fn return_vs_vacate_with_two_starving() {
    bounded(1, || {
        let house = House::with_totals(1, 4, ROOMY, TWO_LIVE);
        let others = [Party::new(1, ONE), Party::new(1, ONE)];
        let [one, two] = [house.open(S0), house.open(S0)];
        let waiters = [0, 1].map(|at| house.line_up(&others[at], S0));
        house.engine.give_back(one, NOW);
        let place = house.closing(S0);
        let user = spawn({
            let house = house.clone();
            move || house.engine.give_back(two, NOW)
        });
        house.engine.vacate(place, NOW);
        user.join().unwrap();
        assert_eq!(house.drive().dials, 2, "INV-5: rests while another group starves");
        for waiter in waiters {
            let lease = sleep_for_lease(&waiter);
            house.engine.give_back(lease, NOW);
        }
        house.finish_with(&[&others[0], &others[1]]);
    });
}

/// INV-2: two returns on two shards where one connection of the whole pool may rest: one does.
#[test]
fn return_vs_return_at_the_total_idle_cap() {
    bounded(2, || {
        let house = House::with_totals(2, 1, ROOMY, ONE_RESTS);
        let (one, two) = (house.open(S0), house.open(S1));
        let other = spawn({
            let house = house.clone();
            move || house.engine.give_back(one, NOW)
        });
        house.engine.give_back(two, NOW);
        other.join().unwrap();
        assert_eq!((house.engine.total_idle(), house.counts().idle), (Some(1), 1), "INV-2");
        assert_eq!(house.drive().closes, 1, "INV-4");
        house.finish();
    });
}

/// INV-1: the connection that rests longest makes room as it is checked out: one of the two.
#[test]
fn eviction_vs_checkout() {
    model(|| {
        let house = House::new(1, 1, ONE);
        house.rest_one(S0);
        let evictor = spawn({
            let house = house.clone();
            move || house.engine.evict_oldest(CloseReason::Evicted)
        });
        let lease = house.checkout(S0, NEVER);
        let evicted = evictor.join().unwrap();
        assert!(lease.is_some() ^ evicted, "INV-1: leased={lease:?} evicted={evicted}");
        assert_eq!(house.counts().idle, 0, "INV-2");
        if let Some(lease) = lease {
            house.engine.give_back(lease, NOW);
        }
        assert_eq!(house.drive().closes, usize::from(evicted), "INV-4");
        house.finish();
    });
}

/// INV-1, INV-2: two evictions of two that rest: each ends one.
#[test]
fn eviction_vs_eviction() {
    bounded(2, || {
        let house = House::new(1, 2, ROOMY);
        let leases = [house.open(S0), house.open(S0)];
        for lease in leases {
            house.engine.give_back(lease, NOW);
        }
        let other = spawn({
            let house = house.clone();
            move || house.engine.evict_oldest(CloseReason::Evicted)
        });
        let ours = house.engine.evict_oldest(CloseReason::Evicted);
        let theirs = other.join().unwrap();
        let ended = usize::from(ours) + usize::from(theirs);
        assert!(ended > 0, "two rest and none was found");
        assert_eq!(house.counts().idle as usize, 2 - ended, "INV-2");
        assert_eq!(house.drive().closes, ended, "INV-4");
        house.finish();
    });
}
