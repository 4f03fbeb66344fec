//! Connections that their owner takes out of rest: to end them (evict), to choose among them
//! (retain), to ask them (ping).
#![cfg(loom)]

use corepool::model::{CloseReason, GroupLimits, Tick};
use loom_tests::{
    ALWAYS, Conn, House, NEVER, NOW, ONE, ROOMY, S0, bounded, model, sleep_for_lease, spawn,
};

/// INV-6: an eviction and a return: nobody is handed the connection after the eviction, and it
/// ends.
#[test]
fn evict_vs_return() {
    bounded(2, || {
        let house = House::new(1, 2, ROOMY);
        let lease = house.open(S0);
        let user = spawn({
            let house = house.clone();
            move || house.engine.give_back(lease, NOW)
        });
        house.engine.evict(&house.group);
        assert!(house.checkout(S0, ALWAYS).is_none(), "INV-6: handed out after its eviction");
        user.join().unwrap();
        assert_eq!(house.counts().idle, 0, "INV-6: rests after its eviction");
        assert_eq!(house.drive().closes, 1, "INV-4");
        house.finish();
    });
}

/// INV-6: an eviction and a return, with a caller that lines up after the eviction: what it is
/// handed is new, or bears the mark.
#[test]
fn evict_vs_hand_off() {
    bounded(2, || {
        let house = House::new(1, 2, ONE);
        let lease = house.open(S0);
        let old = lease.tenant.conn.id();
        let user = spawn({
            let house = house.clone();
            move || house.engine.give_back(lease, NOW)
        });
        house.engine.evict(&house.group);
        let waiter = house.line_up(&house, S0);
        user.join().unwrap();
        house.drive();
        let lease = sleep_for_lease(&waiter);
        let is_old = lease.tenant.conn.id() == old;
        assert_eq!(house.engine.is_dead(&lease), is_old, "INV-6: evicted and not marked");
        house.engine.give_back(lease, NOW);
        assert_eq!(house.counts().idle, u32::from(!is_old), "INV-6: rests after its eviction");
        house.finish();
    });
}

/// INV-6: an eviction and a checkout: the connection ends now or when it comes back.
#[test]
fn evict_vs_checkout() {
    model(|| {
        let house = House::new(1, 1, ROOMY);
        house.rest_one(S0);
        let user = spawn({
            let house = house.clone();
            move || {
                if let Some(lease) = house.checkout(S0, NEVER) {
                    house.engine.give_back(lease, NOW);
                }
            }
        });
        house.engine.evict(&house.group);
        user.join().unwrap();
        assert_eq!(house.counts().idle, 0, "INV-6: rests after its eviction");
        assert_eq!(house.drive().closes, 1, "INV-4");
        house.finish();
    });
}

/// INV-6: an eviction and a dial that succeeds: the connection is new, or bears the mark and ends
/// when it comes back.
#[test]
fn evict_vs_fulfil() {
    bounded(2, || {
        let house = House::new(1, 1, ONE);
        let waiter = house.line_up(&house, S0);
        let dial = house.dial(S0);
        let driver = spawn({
            let house = house.clone();
            move || assert!(house.engine.fulfil(&dial, Conn::new(), NOW).is_ok())
        });
        house.engine.evict(&house.group);
        driver.join().unwrap();
        let lease = sleep_for_lease(&waiter);
        let is_old = house.engine.is_dead(&lease);
        house.engine.give_back(lease, NOW);
        assert_eq!(house.counts().idle, u32::from(!is_old), "INV-6: rests after its eviction");
        house.finish();
    });
}

/// INV-5: an eviction and a caller that lines up for what is evicted: it is dialled for.
#[test]
fn evict_vs_wait() {
    bounded(2, || {
        let house = House::new(1, 1, ONE);
        house.rest_one(S0);
        let owner = spawn({
            let house = house.clone();
            move || house.engine.evict(&house.group)
        });
        let waiter = house.line_up(&house, S0);
        owner.join().unwrap();
        house.drive();
        let lease = sleep_for_lease(&waiter);
        house.engine.give_back(lease, NOW);
        house.finish();
    });
}

/// INV-1: a choice among those at rest and a checkout: it finds the connection or nothing, and
/// what is kept rests on.
#[test]
fn retain_vs_checkout() {
    model(|| {
        let house = House::new(1, 1, ROOMY);
        house.rest_one(S0);
        let owner = spawn({
            let house = house.clone();
            move || {
                house.engine.retain(&house.group, |tenant| {
                    tenant.conn.touch();
                    true
                })
            }
        });
        if let Some(lease) = house.checkout(S0, NEVER) {
            house.engine.give_back(lease, NOW);
        }
        assert_eq!(owner.join().unwrap(), 0);
        assert_eq!(house.counts().idle, 1, "INV-1: lost");
        house.finish();
    });
}

/// INV-5: a choice among those at rest and a caller that lines up: what is kept serves it.
#[test]
fn retain_vs_wait() {
    bounded(2, || {
        let house = House::new(1, 1, ONE);
        house.rest_one(S0);
        let owner = spawn({
            let house = house.clone();
            move || house.engine.retain(&house.group, |_| true)
        });
        let waiter = house.line_up(&house, S0);
        owner.join().unwrap();
        house.expect_served(&waiter, NOW);
        house.finish();
    });
}

/// INV-5: the same, and nothing is kept: the caller is dialled for.
#[test]
fn refused_by_retain_vs_wait() {
    bounded(2, || {
        let house = House::new(1, 1, ONE);
        house.rest_one(S0);
        let owner = spawn({
            let house = house.clone();
            move || house.engine.retain(&house.group, |_| false)
        });
        let waiter = house.line_up(&house, S0);
        let ended = owner.join().unwrap();
        let done = house.drive();
        assert_eq!((done.dials, done.closes), (ended, ended), "INV-5");
        let lease = sleep_for_lease(&waiter);
        house.engine.give_back(lease, NOW);
        house.finish();
    });
}

/// INV-9: a choice among those at rest and a close: what is kept ends.
#[test]
fn retain_vs_close() {
    bounded(2, || {
        let house = House::new(1, 1, ROOMY);
        house.rest_one(S0);
        let owner = spawn({
            let house = house.clone();
            move || house.engine.retain(&house.group, |_| true)
        });
        house.engine.close(&house.group);
        owner.join().unwrap();
        assert_eq!(house.counts().idle, 0, "INV-9: idle in a closed group");
        assert_eq!(house.drive().closes, 1, "INV-4");
        house.finish();
    });
}

/// What a connection that was asked does.
#[derive(Clone, Copy)]
enum Ping {
    Answers,
    IsSilent,
}

/// INV-5: a connection is taken out to be asked as a caller lines up: its answer serves the
/// caller.
#[test]
fn answered_ping_vs_wait() {
    bounded(2, || ping_vs_wait(Ping::Answers));
}

/// INV-5: the same without an answer: the caller is dialled for.
#[test]
fn unanswered_ping_vs_wait() {
    bounded(2, || ping_vs_wait(Ping::IsSilent));
}

fn ping_vs_wait(ping: Ping) {
    const LATER: Tick = Tick::from_millis(10);
    let house = House::new(1, 1, GroupLimits { ping_interval_ms: 10, ..ONE });
    house.rest_one(S0);
    let worker = spawn({
        let house = house.clone();
        move || {
            let mut quiet = Vec::new();
            assert_eq!(house.engine.sweep(S0, LATER, &mut quiet), 0, "nothing is to end");
            for mut lease in quiet {
                lease.tenant.conn.touch();
                match ping {
                    Ping::Answers => house.engine.answered(lease, LATER),
                    Ping::IsSilent => house.engine.unanswered(lease, LATER),
                }
            }
        }
    });
    let waiter = house.engine.wait(&house.seats[0], NEVER, LATER).unwrap();
    worker.join().unwrap();
    let done = house.drive();
    assert_eq!(done.dials, done.closes);
    house.expect_served(&waiter, LATER);
    let failed = house.counts().closed[CloseReason::PingFailed as usize] as usize;
    assert_eq!(done.closes, failed);
    house.finish();
}
