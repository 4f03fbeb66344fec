//! Rules of the engine that its oracle meets only now and then, each by itself.

use super::{
    regressions::{TestEngine, TestLease, TestSeat, at, leased, seats, take, work},
    *,
};
use crate::{
    clock::Tick,
    sync::{Arc, AtomicU32, Ordering},
};

const S0: ShardId = ShardId(0);

/// An engine of one shard whose groups share limits.
fn limited(max_live: u32, max_idle: u32) -> TestEngine {
    let limits =
        TotalLimits { max_live: Some(max_live), max_idle: Some(max_idle), max_dialing: None };
    TestEngine::with_totals(1, 256, &limits)
}

fn group() -> TestSeat {
    Arc::clone(&seats(1, GroupLimits::DEFAULT)[0])
}

/// A connection of that name, in use.
fn named(engine: &TestEngine, seat: &TestSeat, name: u32, now: Tick) -> TestLease {
    let mut lease = leased(engine, seat, 1, now);
    lease.tenant.conn = name;
    lease
}

fn idle(engine: &TestEngine, seat: &TestSeat) -> u32 {
    engine.counts(seat.group()).idle
}

/// The names of what is to be closed, which is closed.
pub(super) fn closed(engine: &TestEngine, now: Tick) -> Vec<(u32, CloseReason)> {
    let duties = core::iter::from_fn(|| engine.next_duty(S0)).collect::<Vec<_>>();
    let mut names = Vec::new();
    for duty in duties {
        let Duty::Close(doomed) = duty else { panic!("{duty:?}") };
        names.push((doomed.conn.expect("the engine's own"), doomed.place.reason()));
        engine.vacate(doomed.place, now);
    }
    names
}

#[test]
fn the_oldest_of_more_than_a_look_keeps_go_in_the_order_of_their_rest() {
    let limits = GroupLimits { max_live: 200, max_idle: 200, ..GroupLimits::DEFAULT };
    let (engine, seat) = (TestEngine::new(1, 256), Arc::clone(&seats(1, limits)[0]));
    let leases: Vec<_> = (0..150).map(|name| named(&engine, &seat, name, at(0))).collect();
    for lease in leases {
        let rested = at(1 + lease.tenant.conn);
        engine.give_back(lease, rested);
    }
    for name in 0..150 {
        assert!(engine.evict_oldest(CloseReason::Surplus));
        assert_eq!(closed(&engine, at(200)), [(name, CloseReason::Surplus)]);
    }
    assert!(!engine.evict_oldest(CloseReason::Surplus), "nothing rests any more");
}

#[test]
fn a_look_in_vain_is_not_repeated_within_eight_milliseconds() {
    let (engine, seat) = (TestEngine::new(1, 8), group());
    let leases = [1, 2, 3].map(|name| named(&engine, &seat, name, at(0)));
    engine.evict_oldest_soon(at(0));
    leases.into_iter().for_each(|lease| engine.give_back(lease, at(1)));
    engine.evict_oldest_soon(at(7));
    assert_eq!(idle(&engine, &seat), 3, "it was in vain a moment ago");
    engine.evict_oldest_soon(at(8));
    engine.evict_oldest_soon(at(8));
    assert_eq!(idle(&engine, &seat), 1, "and a look that finds one may be repeated");
}

#[test]
fn what_comes_to_rest_makes_room_for_a_group_that_starves() {
    let engine = limited(2, 2);
    let (first, second) = (group(), group());
    let [one, two] = [1, 2].map(|name| named(&engine, &first, name, at(0)));
    let waiter = engine.wait(&second, 1, at(0)).unwrap();
    assert!(engine.next_duty(S0).is_none(), "two live and two may");
    engine.give_back(one, at(1));
    assert_eq!(closed(&engine, at(2)), [(1, CloseReason::Evicted)]);
    assert_eq!(work(&engine, 1, at(3)), (1, 0));
    assert!(matches!(take(&waiter), Some(Outcome::Ready(_))));
    engine.give_back(two, at(4));
    assert_eq!(idle(&engine, &first), 1, "nobody starves any more");
}

#[test]
fn a_look_in_vain_keeps_nothing_that_comes_to_rest_from_making_room() {
    let engine = limited(1, 1);
    let (first, second) = (group(), group());
    let lease = named(&engine, &first, 1, at(0));
    let _waiter = engine.wait(&second, 1, at(0)).unwrap();
    engine.evict_oldest_soon(at(0));
    engine.give_back(lease, at(0));
    assert_eq!(closed(&engine, at(0)), [(1, CloseReason::Evicted)]);
}

#[test]
fn at_the_pools_cap_the_oldest_at_rest_makes_way() {
    let engine = limited(8, 1);
    let (first, second) = (group(), group());
    let one = named(&engine, &first, 1, at(0));
    let two = named(&engine, &second, 2, at(0));
    engine.give_back(one, at(1));
    engine.give_back(two, at(2));
    assert_eq!(closed(&engine, at(3)), [(1, CloseReason::Evicted)]);
    assert_eq!((idle(&engine, &first), idle(&engine, &second)), (0, 1));
}

#[test]
fn a_reset_makes_siblings_suspect_and_a_fin_does_not() {
    for (reason, suspicious) in [(CloseReason::PeerReset, true), (CloseReason::PeerClosed, false)] {
        // One that rests, and one that is in use and comes back.
        for in_use in [false, true] {
            let (engine, seat) = (TestEngine::new(1, 8), group());
            let [dies, sibling] = [1, 2].map(|name| named(&engine, &seat, name, at(10)));
            let index = dies.index();
            engine.give_back(sibling, at(20));
            if in_use {
                engine.hang_up(S0, index, reason, at(30));
                engine.give_back(dies, at(31));
            } else {
                engine.give_back(dies, at(21));
                engine.hang_up(S0, index, reason, at(30));
            }
            assert_eq!(closed(&engine, at(32)), [(1, reason)]);
            let sibling = engine.checkout(seat.group(), S0, 1).expect("it rests");
            assert_eq!(seat.group().suspects(&sibling), suspicious, "{reason:?} in use: {in_use}");
        }
    }
}

#[test]
fn so_many_unanswered_pings_in_a_row_end_a_connection() {
    let limits =
        GroupLimits { ping_interval_ms: 100, ping_max_failures: 2, ..GroupLimits::DEFAULT };
    let (engine, seat) = (TestEngine::new(1, 8), Arc::clone(&seats(1, limits)[0]));
    let lease = named(&engine, &seat, 1, at(0));
    engine.give_back(lease, at(0));
    let asked = |now| {
        let mut quiet = Vec::new();
        assert_eq!(engine.sweep(S0, at(now), &mut quiet), 0);
        assert!(quiet.len() <= 1);
        quiet.pop()
    };
    assert!(asked(99).is_none());
    engine.unanswered(asked(100).expect("it was quiet"), at(110));
    engine.answered(asked(250).expect("it rests on"), at(260));
    engine.unanswered(asked(400).expect("it rests on"), at(410));
    assert_eq!((idle(&engine, &seat), closed(&engine, at(410))), (1, vec![]));
    engine.unanswered(asked(550).expect("it rests on"), at(560));
    assert_eq!(closed(&engine, at(560)), [(1, CloseReason::PingFailed)]);
}

#[test]
fn a_pass_dials_ahead_for_those_in_use_and_those_that_wait() {
    let limits = GroupLimits { preconnect_percent: 200, max_live: 6, ..GroupLimits::DEFAULT };
    let (engine, seats) = (TestEngine::new(1, 16), seats(1, limits));
    let leases = [1, 2].map(|name| named(&engine, &seats[0], name, at(0)));
    leases.into_iter().for_each(|lease| engine.give_back(lease, at(0)));
    assert!(engine.evict_oldest(CloseReason::Surplus), "what was dialled ahead rests too");
    while engine.evict_oldest(CloseReason::Surplus) {}
    closed(&engine, at(1));
    let _in_use = [1, 2].map(|name| named(&engine, &seats[0], name, at(2)));
    while engine.evict_oldest(CloseReason::Surplus) {}
    closed(&engine, at(3));
    engine.tend(&seats, at(4));
    assert_eq!(work(&engine, 1, at(5)), (2, 0), "two are in use, and two more shall be there");
}

#[test]
fn a_pass_remembers_what_was_in_use_for_the_rest_of_its_period() {
    let limits = GroupLimits { retention_period_ms: 1_000, ..GroupLimits::DEFAULT };
    let (engine, seats) = (TestEngine::new(1, 16), seats(1, limits));
    let leases = [1, 2, 3, 4].map(|name| named(&engine, &seats[0], name, at(0)));
    engine.tend(&seats, at(100));
    leases.into_iter().for_each(|lease| engine.give_back(lease, at(200)));
    engine.tend(&seats, at(1_100));
    assert_eq!(idle(&engine, &seats[0]), 4, "four were in use in this period");
    engine.tend(&seats, at(2_200));
    assert_eq!(idle(&engine, &seats[0]), 3, "and none in the next: half of the two too many");
}

#[test]
fn a_pass_counts_what_rests_and_what_is_being_dialled() {
    let limits = GroupLimits { min_idle: 4, ..GroupLimits::DEFAULT };
    let (engine, seats) = (TestEngine::new(1, 16), seats(1, limits));
    let lease = named(&engine, &seats[0], 1, at(0));
    engine.give_back(lease, at(0));
    engine.tend(&seats, at(1));
    let dials: Vec<_> = core::iter::from_fn(|| engine.next_duty(S0)).collect();
    assert_eq!(dials.len(), 3);
    engine.tend(&seats, at(2));
    assert!(engine.next_duty(S0).is_none(), "three are under way");
}

#[test]
fn a_group_wants_tending_while_it_has_or_wants_something() {
    let engine = TestEngine::new(1, 8);
    let seat = group();
    assert!(!engine.wants_tending(seat.group()));
    let lease = named(&engine, &seat, 1, at(0));
    assert!(engine.wants_tending(seat.group()));
    engine.discard(lease, CloseReason::Surplus);
    closed(&engine, at(1));
    assert!(!engine.wants_tending(seat.group()));
    let filled = seats(1, GroupLimits { min_idle: 1, ..GroupLimits::DEFAULT });
    assert!(engine.wants_tending(filled[0].group()));
    engine.close(filled[0].group());
    assert!(!engine.wants_tending(filled[0].group()));
}

/// The dials that are to be begun, by shard.
fn dials<const N: usize>(engine: &TestEngine) -> [Vec<Reservation<u32, &'static str>>; N] {
    core::array::from_fn(|shard| {
        let duties = core::iter::from_fn(|| engine.next_duty(ShardId(shard as u16)));
        let dials = duties.filter_map(|duty| match duty {
            Duty::Dial(dial) => Some(dial),
            _ => None,
        });
        dials.collect()
    })
}

#[test]
fn owed_dials_go_round_the_shards_and_begin_once() {
    let engine = TestEngine::new(2, 8);
    let seats = seats(2, GroupLimits::DEFAULT);
    seats[0].group().begin(5);
    assert!(engine.wants_tending(seats[0].group()));
    engine.dial_owed(&seats, at(0));
    let begun = dials::<2>(&engine);
    assert_eq!(begun.map(|dials| dials.len()), [3, 2]);
    engine.dial_owed(&seats, at(1));
    assert_eq!(dials::<2>(&engine).map(|dials| dials.len()), [0, 0]);
}

#[test]
fn dials_that_are_owed_wait_for_the_breaker() {
    let engine = TestEngine::new(1, 8);
    let seats = seats(1, GroupLimits { breaker: 1, ..GroupLimits::DEFAULT });
    seats[0].group().begin(2);
    engine.force_breaker(&seats[0], BreakerMode::ForcedOpen, at(0));
    engine.dial_owed(&seats, at(0));
    assert_eq!(dials::<1>(&engine)[0].len(), 0);
    engine.force_breaker(&seats[0], BreakerMode::ForcedClosed, at(1));
    engine.tend(&seats, at(1));
    assert_eq!(dials::<1>(&engine)[0].len(), 2);
}

#[test]
fn what_is_owed_is_forgotten_where_as_many_live_as_may() {
    let engine = TestEngine::new(1, 8);
    let seats = seats(1, GroupLimits { max_live: 2, ..GroupLimits::DEFAULT });
    seats[0].group().begin(3);
    engine.dial_owed(&seats, at(0));
    let [begun] = dials::<1>(&engine);
    assert_eq!(begun.len(), 2);
    for dial in &begun {
        assert!(engine.abandon(dial, Failure::GivenUp, at(1)));
    }
    engine.dial_owed(&seats, at(2));
    assert_eq!(dials::<1>(&engine)[0].len(), 0);
}

#[test]
fn a_caller_has_as_many_dialled_ahead_as_the_ratio_says_and_three_at_most() {
    for (percent, callers, begun) in
        [(100, 1, 1), (101, 1, 2), (200, 2, 4), (250, 1, 3), (900, 1, 4)]
    {
        let engine = TestEngine::new(1, 32);
        let limits = GroupLimits { preconnect_percent: percent, ..GroupLimits::DEFAULT };
        let seats = seats(1, limits);
        let waiting = (0..callers).map(|_| engine.wait(&seats[0], 1, at(0)).unwrap());
        let _waiting: Vec<_> = waiting.collect();
        assert_eq!(dials::<1>(&engine)[0].len(), begun, "{percent} %, {callers}");
    }
}

#[test]
fn the_pools_limits_sink_and_what_rests_above_them_is_closed() {
    let engine = limited(6, 6);
    let seat = group();
    let leases = [1, 2, 3, 4, 5].map(|name| named(&engine, &seat, name, at(0)));
    for lease in leases {
        let rested = at(lease.tenant.conn);
        engine.give_back(lease, rested);
    }
    assert_eq!((engine.total_live(), engine.total_idle()), (Some(5), Some(5)));
    let limits = TotalLimits { max_live: Some(6), max_idle: Some(4), max_dialing: None };
    engine.resize_totals(&limits, at(10));
    assert_eq!(closed(&engine, at(10)), [(1, CloseReason::Shrunk)]);
    let limits = TotalLimits { max_live: Some(2), max_idle: Some(4), max_dialing: None };
    engine.resize_totals(&limits, at(11));
    assert_eq!(closed(&engine, at(11)), [(2, CloseReason::Shrunk), (3, CloseReason::Shrunk)]);
    assert_eq!((engine.total_live(), engine.total_idle()), (Some(2), Some(2)));
    engine.tend_totals(at(12));
    assert_eq!(closed(&engine, at(12)), []);
}

#[test]
fn a_raised_limit_of_the_pool_serves_who_starves() {
    let engine = limited(1, 1);
    let (first, second) = (group(), group());
    let _held = named(&engine, &first, 1, at(0));
    let _waiter = engine.wait(&second, 1, at(0)).unwrap();
    let limits = TotalLimits { max_live: Some(2), max_idle: Some(1), max_dialing: None };
    engine.resize_totals(&limits, at(1));
    assert_eq!(dials::<1>(&engine)[0].len(), 1);
}

#[test]
fn relief_closes_as_many_as_rest_and_says_how_many() {
    let (engine, seat) = (TestEngine::new(1, 8), group());
    let leases = [1, 2, 3].map(|name| named(&engine, &seat, name, at(0)));
    leases.into_iter().for_each(|lease| engine.give_back(lease, at(1)));
    assert_eq!((engine.relieve(0), engine.relieve(2), engine.relieve(2)), (0, 2, 1));
    assert_eq!((engine.total_live(), engine.total_idle()), (None, None));
}

#[test]
fn a_group_is_held_once_and_resumed_once() {
    let (engine, seat) = (TestEngine::new(1, 8), group());
    let lease = named(&engine, &seat, 1, at(0));
    assert!(!engine.resume(&seat, at(0)), "it is not held");
    assert!(engine.hold(seat.group()) && !engine.hold(seat.group()));
    let [one, two] = [(), ()].map(|()| engine.wait(&seat, 1, at(0)).unwrap());
    engine.give_back(lease, at(1));
    assert_eq!((one.is_filled(), work(&engine, 1, at(1))), (false, (0, 0)));
    assert!(engine.resume(&seat, at(2)) && !engine.resume(&seat, at(2)));
    assert!(one.is_filled() && !two.is_filled());
    assert_eq!(work(&engine, 1, at(2)), (1, 0));
    assert!(two.is_filled());
}

#[test]
fn an_evicted_group_ends_what_it_had_and_nothing_that_comes() {
    let (engine, seat) = (TestEngine::new(1, 8), group());
    let [rests, used] = [1, 2].map(|name| named(&engine, &seat, name, at(0)));
    engine.give_back(rests, at(1));
    engine.evict(seat.group());
    assert_eq!(closed(&engine, at(2)), [(1, CloseReason::Purged)]);
    assert!(engine.is_dead(&used));
    engine.give_back(used, at(3));
    assert_eq!(closed(&engine, at(3)), [(2, CloseReason::Purged)]);
    let lease = named(&engine, &seat, 3, at(4));
    assert!(!engine.is_dead(&lease));
    engine.give_back(lease, at(5));
    assert_eq!((idle(&engine, &seat), closed(&engine, at(5))), (1, vec![]));
}

#[test]
fn a_ping_is_due_after_its_interval_and_never_without_one() {
    for (interval, due) in [(100, [0, 1]), (u32::MAX, [0, 0])] {
        let limits = GroupLimits { ping_interval_ms: interval, ..GroupLimits::DEFAULT };
        let (engine, seats) = (TestEngine::new(1, 8), seats(1, limits));
        let lease = named(&engine, &seats[0], 1, at(0));
        engine.give_back(lease, at(0));
        for (now, due) in [50, 150].into_iter().zip(due) {
            // The sweep that follows looks at everything.
            engine.resize(&seats, &limits, at(now));
            let mut quiet = Vec::new();
            engine.sweep(S0, at(now), &mut quiet);
            assert_eq!(quiet.len(), due, "{interval} at {now}");
            quiet.into_iter().for_each(|lease| engine.answered(lease, at(now)));
        }
    }
}

#[test]
fn what_has_answered_a_ping_is_counted_once_among_the_idle() {
    let limits = GroupLimits { ping_interval_ms: 100, min_idle: 2, ..GroupLimits::DEFAULT };
    let (engine, seats) = (TestEngine::new(1, 8), seats(1, limits));
    let lease = named(&engine, &seats[0], 1, at(0));
    engine.give_back(lease, at(0));
    let mut quiet = Vec::new();
    engine.sweep(S0, at(100), &mut quiet);
    engine.answered(quiet.pop().expect("it was quiet"), at(101));
    engine.tend(&seats, at(102));
    assert_eq!(dials::<1>(&engine)[0].len(), 1);
}

#[test]
fn a_reset_lets_dials_go_that_the_backoff_held() {
    let limits = GroupLimits { breaker: 1, ..GroupLimits::DEFAULT };
    let (engine, seat) = (TestEngine::new(1, 8), Arc::clone(&seats(1, limits)[0]));
    engine.dial_spare(&seat, at(0)).unwrap();
    let [mut begun] = dials::<1>(&engine);
    let dial = begun.pop().expect("one dial");
    engine.abandon(&dial, Failure::Peer("refused"), at(1));
    assert!(engine.dial_spare(&seat, at(2)).is_err());
    engine.reset_breaker(&seat, at(2));
    assert!(engine.dial_spare(&seat, at(2)).is_ok());
}

#[test]
fn what_was_dialled_for_the_line_is_fresh_and_what_comes_back_is_not() {
    let (engine, seat) = (TestEngine::new(1, 8), group());
    let lease = leased(&engine, &seat, 1, at(0));
    assert!(!lease.is_reused() && lease.tenant.is_fresh());
    engine.give_back(lease, at(1));
    let lease = engine.checkout(seat.group(), S0, 1).expect("it rests");
    assert!(lease.is_reused() && !lease.tenant.is_fresh());
    let waiter = engine.wait(&seat, 1, at(2)).unwrap();
    engine.give_back(lease, at(3));
    assert!(matches!(take(&waiter), Some(Outcome::Ready(lease)) if lease.is_reused()));
}

#[test]
fn who_starves_is_forgotten_with_the_engine() {
    let engine = limited(1, 1);
    let (first, second) = (group(), group());
    let _held = named(&engine, &first, 1, at(0));
    let _waiter = engine.wait(&second, 1, at(0)).unwrap();
    let alive = Arc::downgrade(&second);
    engine.forget_starving();
    drop(second);
    assert_eq!(alive.strong_count(), 0, "the queue keeps nobody alive");
}

#[test]
fn a_raised_limit_feeds_so_many_groups_and_the_next_pass_the_others() {
    let limits = TotalLimits { max_dialing: Some(1), ..TotalLimits::default() };
    let engine = TestEngine::with_totals(1, 256, &limits);
    let groups: Vec<_> = (0..101).map(|_| group()).collect();
    let waiting: Vec<_> = groups.iter().map(|seat| engine.wait(seat, 1, at(0)).unwrap()).collect();
    assert_eq!(dials::<1>(&engine)[0].len(), 1);
    let limits = TotalLimits { max_dialing: Some(200), ..TotalLimits::default() };
    engine.resize_totals(&limits, at(1));
    assert_eq!(dials::<1>(&engine)[0].len(), 64);
    engine.tend_totals(at(2));
    assert_eq!(dials::<1>(&engine)[0].len(), 36);
    assert!(waiting.iter().all(|waiter| !waiter.is_filled()));
}

#[derive(Default)]
struct Woken(AtomicU32);

impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Woken {
    fn times(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

#[test]
fn whoever_is_served_is_woken() {
    let (engine, seat) = (TestEngine::new(1, 8), group());
    let lease = leased(&engine, &seat, 1, at(0));
    let waiter = engine.wait(&seat, 1, at(0)).unwrap();
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    assert!(waiter.poll(&mut core::task::Context::from_waker(&waker)).is_pending());
    engine.give_back(lease, at(1));
    assert_eq!(woken.times(), 1);
    assert!(take(&waiter).is_some());
}

#[test]
fn a_shards_driver_is_woken_for_its_own_duties() {
    let engine = TestEngine::new(2, 8);
    let seats = seats(2, GroupLimits::DEFAULT);
    let drivers = [Arc::new(Woken::default()), Arc::new(Woken::default())];
    let register = |shard: usize| {
        let waker = Waker::from(Arc::clone(&drivers[shard]));
        engine.register_driver(ShardId(shard as u16), &waker);
    };
    (0..2).for_each(register);
    let _waiter = engine.wait(&seats[1], 1, at(0)).unwrap();
    assert_eq!([0, 1].map(|shard: usize| drivers[shard].times()), [0, 1]);
    (0..2).for_each(register);
    engine.wake_driver(S0);
    assert_eq!([0, 1].map(|shard: usize| drivers[shard].times()), [1, 1]);
}

#[test]
fn slots_are_counted_by_shard_and_connections_by_group() {
    let engine = TestEngine::new(2, 8);
    let seats = seats(2, GroupLimits::DEFAULT);
    let lease = leased(&engine, &seats[1], 2, at(0));
    let _other = leased(&engine, &group(), 2, at(0));
    assert_eq!(engine.slots_per_shard(), 8);
    assert_eq!([0, 1].map(|shard| engine.slots_in_use(ShardId(shard))), [1, 1]);
    engine.give_back(lease, at(1));
    let _waiter = engine.wait(&seats[0], u32::MAX, at(1)).unwrap();
    let counts = engine.counts(seats[0].group());
    assert_eq!((counts.opened, counts.idle, counts.waiting, counts.dialing), (1, 1, 1, 1));
    assert_eq!([0, 1].map(|shard| engine.slots_in_use(ShardId(shard))), [2, 1]);
}

#[test]
fn a_breaker_that_closes_starts_slowly_unless_it_was_forced_closed() {
    let limits =
        GroupLimits { breaker: 1, slow_start_ms: 1000, max_live: 100, ..GroupLimits::DEFAULT };
    let (engine, seat) = (TestEngine::new(1, 8), Arc::clone(&seats(1, limits)[0]));
    let allowed = |now| seat.group().allowed(at(now));
    engine.force_breaker(&seat, BreakerMode::ForcedClosed, at(10));
    engine.force_breaker(&seat, BreakerMode::Auto, at(10));
    assert_eq!(allowed(11), 100);
    engine.force_breaker(&seat, BreakerMode::ForcedOpen, at(20));
    assert_eq!(allowed(21), 100, "it has not closed yet");
    engine.force_breaker(&seat, BreakerMode::Auto, at(30));
    assert!(allowed(31) < 50, "{}", allowed(31));
    assert_eq!(allowed(2000), 100);
}

#[test]
fn lives_end_at_random_within_the_jitter_before_their_full_length() {
    for (percent, random, lived) in [
        (20, 0, 1000),
        (20, 1 << 31, 900),
        (20, u32::MAX, 801),
        (0, u32::MAX, 1000),
        (100, 1 << 30, 750),
    ] {
        let limits = GroupLimits {
            max_lifetime_ms: 1000,
            lifetime_jitter_percent: percent,
            ..GroupLimits::DEFAULT
        };
        let seats = seats(1, limits);
        let ends = seats[0].group().end_of_life(Moment { now: at(7), random });
        assert_eq!(ends.since(at(7)), lived, "{percent} %, {random}");
    }
}

#[test]
fn the_end_of_a_connection_tells_when_it_began_and_how_often_it_served() {
    let (engine, seat) = (TestEngine::new(1, 8), group());
    let mut lease = leased(&engine, &seat, 1, at(5));
    for now in [6, 7] {
        engine.give_back(lease, at(now));
        lease = engine.checkout(seat.group(), S0, 1).expect("it rests");
    }
    engine.discard(lease, CloseReason::Dirty);
    let Some(Duty::Close(doomed)) = engine.next_duty(S0) else { panic!() };
    assert_eq!((doomed.place.life(), doomed.place.reason()), ((at(5), 2), CloseReason::Dirty));
    engine.vacate(doomed.place, at(8));
}

#[test]
fn an_adoption_is_no_dial() {
    let (engine, seat) = (TestEngine::new(1, 8), group());
    assert!(engine.adopt(&seat, at(0)).unwrap().is_adoption());
    let _waiter = engine.wait(&seat, 1, at(0)).unwrap();
    assert!(!dials::<1>(&engine)[0][0].is_adoption());
}
