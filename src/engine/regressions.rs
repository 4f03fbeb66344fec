//! Faults that were found by reading, each kept from coming back.

use super::*;
use crate::{clock::Tick, sync::Arc};

pub(super) type TestEngine = Engine<u32, &'static str>;
pub(super) type TestGroup = Group<u32, &'static str>;
pub(super) type TestSeat = Arc<Seat<u32, &'static str>>;
pub(super) type TestLease = Lease<u32, &'static str>;

const S0: ShardId = ShardId(0);

pub(super) fn at(millis: u32) -> Tick {
    Tick::from_millis(millis)
}

pub(super) fn seats(shards: usize, limits: GroupLimits) -> Box<[TestSeat]> {
    TestGroup::seats(&Arc::new(TestGroup::new(S0, shards, limits)))
}

/// Carries out every duty: dials succeed.
pub(super) fn work(engine: &TestEngine, shards: usize, now: Tick) -> (usize, usize) {
    let (mut dials, mut closes) = (0, 0);
    loop {
        let mut any = false;
        for shard in (0..shards as u16).map(ShardId) {
            while let Some(duty) = engine.next_duty(shard) {
                any = true;
                match duty {
                    Duty::Dial(dial) => {
                        dials += 1;
                        engine.fulfil(&dial, 7, now).unwrap();
                    }
                    Duty::Close(doomed) => {
                        closes += 1;
                        engine.vacate(doomed.place, now);
                    }
                    Duty::Tell(..) => {}
                }
            }
        }
        if !any {
            return (dials, closes);
        }
    }
}

pub(super) fn take(waiter: &GroupWaiter<u32, &'static str>) -> Option<Outcome<u32, &'static str>> {
    let mut cx = core::task::Context::from_waker(Waker::noop());
    match waiter.poll(&mut cx) {
        core::task::Poll::Ready(outcome) => Some(outcome),
        core::task::Poll::Pending => None,
    }
}

pub(super) fn leased(engine: &TestEngine, seat: &TestSeat, shards: usize, now: Tick) -> TestLease {
    let waiter = engine.wait(seat, 1, now).unwrap();
    work(engine, shards, now);
    match take(&waiter) {
        Some(Outcome::Ready(lease)) => lease,
        other => panic!("{other:?}"),
    }
}

fn rest(engine: &TestEngine, seat: &TestSeat, count: usize, now: Tick) {
    let leases: Vec<_> = (0..count).map(|_| leased(engine, seat, 2, now)).collect();
    for lease in leases {
        engine.give_back(lease, now);
    }
}

#[test]
fn feeding_the_starving_does_not_recurse() {
    let limits = TotalLimits { max_dialing: Some(1), ..TotalLimits::default() };
    let engine = TestEngine::with_totals(1, 8, &limits);
    let first = seats(1, GroupLimits::DEFAULT);
    let _waiter = engine.wait(&first[0], 1, at(0)).unwrap();
    let Some(Duty::Dial(dial)) = engine.next_duty(S0) else { panic!() };
    let others: Vec<_> = (0..20_000)
        .map(|_| {
            let seats = seats(1, GroupLimits { max_idle: 0, ..GroupLimits::DEFAULT });
            let waiter = engine.wait(&seats[0], 1, at(0)).unwrap();
            engine.force_breaker(&seats[0], BreakerMode::ForcedOpen, at(0));
            (seats, waiter)
        })
        .collect();
    assert!(engine.abandon(&dial, Failure::Peer("refused"), at(1)));
    drop(others);
}

#[test]
fn one_permit_feeds_the_one_that_needs_it_past_those_that_left() {
    let limits = TotalLimits { max_dialing: Some(1), ..TotalLimits::default() };
    let engine = TestEngine::with_totals(1, 8, &limits);
    let first = seats(1, GroupLimits::DEFAULT);
    let _waiter = engine.wait(&first[0], 1, at(0)).unwrap();
    let Some(Duty::Dial(dial)) = engine.next_duty(S0) else { panic!() };
    for _ in 0..200 {
        let seats = seats(1, GroupLimits::DEFAULT);
        let waiter = engine.wait(&seats[0], 1, at(0)).unwrap();
        engine.cancel(&waiter, seats[0].group());
    }
    let last = seats(1, GroupLimits::DEFAULT);
    let _needs = engine.wait(&last[0], 1, at(0)).unwrap();
    engine.fulfil(&dial, 1, at(1)).unwrap();
    assert!(matches!(engine.next_duty(S0), Some(Duty::Dial(_))), "the permit is free, one waits");
}

#[test]
fn a_breaker_that_opens_tells_those_that_the_pool_keeps_from_their_dials() {
    let limits = TotalLimits { max_live: Some(1), ..TotalLimits::default() };
    let engine = TestEngine::with_totals(1, 8, &limits);
    let (first, second) = (seats(1, GroupLimits::DEFAULT), seats(1, GroupLimits::DEFAULT));
    let _held = leased(&engine, &first[0], 1, at(0));
    let waiter = engine.wait(&second[0], 1, at(0)).unwrap();
    engine.force_breaker(&second[0], BreakerMode::ForcedOpen, at(0));
    assert!(engine.wait(&second[0], 1, at(0)).is_err(), "newcomers are refused");
    assert!(waiter.is_filled(), "and who waits already is left to its timeout");
}

#[test]
fn a_young_group_keeps_what_it_was_warmed_up_with() {
    let engine = TestEngine::new(2, 64);
    let limits = GroupLimits { retention_period_ms: 30_000, ..GroupLimits::DEFAULT };
    let now = at(60_000); // the pool is a minute old, the group is made now
    let seats = TestGroup::seats(&Arc::new(TestGroup::with_key((), S0, 2, limits, now)));
    rest(&engine, &seats[0], 10, now);
    engine.tend(&seats, now.after(100));
    assert_eq!(engine.counts(seats[0].group()).idle, 10);
}

#[test]
fn what_says_nothing_of_the_endpoint_leaves_its_backoff_alone() {
    let engine = TestEngine::new(1, 8);
    let limits = GroupLimits { breaker: 1, ..GroupLimits::DEFAULT };
    let seats = seats(1, limits);
    let _waiter = engine.dial_direct(&seats[0], at(0)).unwrap();
    let Some(Duty::Dial(dial)) = engine.next_duty(S0) else { panic!() };
    engine.abandon(&dial, Failure::Peer("refused"), at(1));
    assert!(engine.dial_spare(&seats[0], at(1)).is_ok(), "a direct dial was held against it");
}

#[test]
fn an_adoption_that_fails_is_not_held_against_the_endpoint() {
    let engine = TestEngine::new(1, 8);
    let seats = seats(1, GroupLimits::DEFAULT);
    let dial = engine.adopt(&seats[0], at(0)).unwrap();
    engine.abandon(&dial, Failure::Peer("no such protocol"), at(1));
    assert!(engine.dial_spare(&seats[0], at(1)).is_ok());
}

#[test]
fn a_held_group_hands_out_no_overflow_connection() {
    let engine = TestEngine::new(1, 8);
    let limits = GroupLimits { max_live: 1, max_overflow: 1, ..GroupLimits::DEFAULT };
    let seats = seats(1, limits);
    let _first = leased(&engine, &seats[0], 1, at(0));
    let waiter = engine.dial_overflow(&seats[0], at(0)).unwrap();
    work(&engine, 1, at(0));
    let Some(Outcome::Ready(over)) = take(&waiter) else { panic!() };
    assert!(engine.hold(seats[0].group()));
    let waiter = engine.wait(&seats[0], 1, at(0)).unwrap();
    engine.give_back(over, at(1));
    assert!(!waiter.is_filled(), "served although the group is held");
}

#[test]
fn retain_keeps_the_order_of_a_lifo_lane() {
    let engine = TestEngine::new(1, 64);
    let seats = seats(1, GroupLimits { lifo: 1, ..GroupLimits::DEFAULT });
    let leases: Vec<_> = (0..3).map(|_| leased(&engine, &seats[0], 1, at(0))).collect();
    for (n, mut lease) in leases.into_iter().enumerate() {
        lease.tenant.conn = n as u32;
        engine.give_back(lease, at(n as u32));
    }
    engine.retain(seats[0].group(), |_| true);
    let lease = engine.checkout(seats[0].group(), S0, 1).unwrap();
    assert_eq!(lease.tenant.conn, 2, "the one that came back last");
}

#[test]
fn one_full_shard_does_not_keep_a_group_from_its_minimum() {
    let engine = TestEngine::new(2, 1);
    let blocking = seats(2, GroupLimits::DEFAULT);
    let _held = leased(&engine, &blocking[0], 2, at(0));
    let seats = seats(2, GroupLimits { min_idle: 1, ..GroupLimits::DEFAULT });
    for tick in 1..10 {
        engine.tend(&seats, at(tick * 250));
        work(&engine, 2, at(tick * 250));
    }
    assert_eq!(engine.counts(seats[0].group()).idle, 1, "the other shard has a slot");
}

#[test]
fn a_waiter_is_not_told_that_another_shard_is_full() {
    let engine = TestEngine::new(2, 1);
    let seats = seats(2, GroupLimits { max_dialing: 1, ..GroupLimits::DEFAULT });
    let _first = engine.wait(&seats[0], 9, at(0)).unwrap();
    let second = engine.wait(&seats[1], 9, at(0)).unwrap();
    work(&engine, 2, at(0));
    let outcome = take(&second);
    assert!(matches!(outcome, Some(Outcome::Ready(_))), "{outcome:?}");
}

#[test]
fn a_large_group_is_warmed_up_again_as_a_whole() {
    let engine = TestEngine::new(1, 256);
    let limits = GroupLimits { max_live: 200, max_idle: 200, warm_up: 100, ..GroupLimits::DEFAULT };
    let seats = seats(1, limits);
    for tick in 1..10 {
        engine.tend(&seats, at(tick * 250));
        work(&engine, 1, at(tick * 250));
    }
    assert_eq!(engine.counts(seats[0].group()).idle, 100);
}

#[test]
fn one_waiter_costs_one_eviction() {
    let limits = TotalLimits { max_live: Some(8), ..TotalLimits::default() };
    let engine = TestEngine::with_totals(2, 16, &limits);
    let (rich, poor) = (seats(2, GroupLimits::DEFAULT), seats(2, GroupLimits::DEFAULT));
    rest(&engine, &rich[0], 8, at(0));
    let _waiter = engine.wait(&poor[0], 1, at(0)).unwrap();
    // The driver is busy closing; meanwhile the group is looked after.
    for tick in 0..4 {
        engine.tend(&poor, at(tick));
    }
    assert_eq!(engine.counts(rich[0].group()).idle, 7);
}

#[test]
fn who_is_refused_at_the_limit_evicts_nobody() {
    let limits = TotalLimits { max_live: Some(8), ..TotalLimits::default() };
    let engine = TestEngine::with_totals(2, 16, &limits);
    let (rich, poor) = (seats(2, GroupLimits::DEFAULT), seats(2, GroupLimits::DEFAULT));
    rest(&engine, &rich[0], 8, at(0));
    for _ in 0..8 {
        assert!(engine.wait_for_dial(&poor[0], 1, at(0)).is_err());
    }
    assert!(engine.counts(rich[0].group()).idle >= 7, "eight refusals, eight evictions");
}

#[test]
fn minima_above_the_cap_of_the_pool_do_not_dial_for_ever() {
    let limits = TotalLimits { max_idle: Some(1), ..TotalLimits::default() };
    let engine = TestEngine::with_totals(2, 16, &limits);
    let min = GroupLimits { min_idle: 1, ..GroupLimits::DEFAULT };
    let groups = [seats(2, min), seats(2, min)];
    let mut dials = 0;
    for tick in 0..100 {
        for seats in &groups {
            engine.tend(seats, at(tick * 250));
        }
        dials += work(&engine, 2, at(tick * 250)).0;
    }
    assert!(dials <= 4, "{dials} dials in 25 s of rest");
}

#[test]
fn preconnecting_stops_where_nothing_may_rest() {
    let engine = TestEngine::new(2, 16);
    let limits = GroupLimits { max_idle: 0, preconnect_percent: 150, ..GroupLimits::DEFAULT };
    let seats = seats(2, limits);
    let _in_use = [leased(&engine, &seats[0], 2, at(0)), leased(&engine, &seats[0], 2, at(0))];
    let mut dials = 0;
    for tick in 0..100 {
        engine.tend(&seats, at(tick * 250));
        dials += work(&engine, 2, at(tick * 250)).0;
    }
    assert!(dials <= 4, "{dials} dials in 25 s, each closed at once");
}

#[test]
fn a_reset_of_last_month_makes_nobody_suspect() {
    let engine = TestEngine::new(1, 4);
    let seats = seats(1, GroupLimits::DEFAULT);
    let mut lease = leased(&engine, &seats[0], 1, at(5));
    seats[0].group().suspect(at(10));
    engine.tend(&seats, at(100 + (1 << 30)));
    let now = at(1_000 + (1 << 31)); // 24.9 days later
    (lease.tenant.rested, lease.tenant.vouched) = (now, now);
    assert!(!seats[0].group().suspects(&lease));
}

#[test]
fn a_held_group_lines_up_callers_whatever_its_breaker_says() {
    let engine = TestEngine::new(1, 4);
    let seats = seats(1, GroupLimits::DEFAULT);
    engine.force_breaker(&seats[0], BreakerMode::ForcedOpen, at(0));
    engine.hold(seats[0].group());
    assert!(engine.wait(&seats[0], 1, at(0)).is_ok());
}
