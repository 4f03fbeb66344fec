//! The wait by its formula, and the word by a table.

use super::*;

const PLAIN: BackoffRules =
    BackoffRules { base_ms: 1000, multiplier_percent: 200, jitter_percent: 0, max_ms: 60_000 };
/// The middle of the range of a random number.
const MIDDLE: u32 = 1 << 31;

fn at(millis: u32) -> Tick {
    Tick::from_millis(millis)
}

#[test]
fn the_default_is_grpcs() {
    let rules = BackoffRules::default();
    let waits: Vec<_> = (0..13).map(|attempt| rules.delay(attempt, MIDDLE)).collect();
    assert_eq!(
        waits,
        [
            1000, 1600, 2560, 4096, 6553, 10_485, 16_777, 26_843, 42_949, 68_719, 109_951, 120_000,
            120_000
        ]
    );
    assert_eq!((rules.delay(0, 0), rules.delay(0, u32::MAX)), (800, 1200));
    assert_eq!((rules.delay(200, 0), rules.delay(200, u32::MAX)), (96_000, 144_000));
}

#[test]
fn a_wait_is_varied_evenly() {
    let rules = BackoffRules { base_ms: 10, jitter_percent: 20, ..PLAIN };
    let mut met = [0; 5];
    for step in 0..1000_u32 {
        met[rules.delay(0, step * (u32::MAX / 1000)) as usize - 8] += 1;
    }
    assert!(met.iter().all(|count| (199..=201).contains(count)), "8 to 12: {met:?}");
}

#[test]
fn no_rule_makes_a_wait_overflow_or_vanish() {
    let extremes = [0, 1, 2, 99, 100, 101, 1000, i32::MAX as u32, u32::MAX];
    for base_ms in extremes {
        for multiplier_percent in extremes {
            for jitter_percent in extremes {
                for max_ms in extremes {
                    let rules =
                        BackoffRules { base_ms, multiplier_percent, jitter_percent, max_ms };
                    for (attempt, random) in [(0, 0), (1, u32::MAX), (255, 0), (255, u32::MAX)] {
                        let wait = rules.delay(attempt, random);
                        assert_eq!(wait == 0, base_ms == 0, "{rules:?}");
                        assert!(wait <= Tick::FAR, "{rules:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_wait_of_a_millisecond_grows() {
    let rules = BackoffRules { base_ms: 1, multiplier_percent: 150, ..PLAIN };
    assert_eq!([0, 1, 2, 4, 8].map(|attempt| rules.delay(attempt, 0)), [1, 1, 2, 5, 25]);
}

/// Every state against every event.
#[test]
fn the_transition_table() {
    let clear = Word::CLEAR;
    let waits = clear.failed(at(0), at(0), &PLAIN, 0);
    let last = Word { attempt: u8::MAX, ..waits };
    let mut table = String::new();
    for (name, word, now) in [
        ("clear", clear, 500),
        ("waits", waits, 500),
        ("due", waits, 1000),
        ("due", waits, 5000),
        ("long due", waits, u32::MAX - 100_000),
        ("last", last, 1000),
    ] {
        let try_it = match word.left(at(now)) {
            0 => "may".to_owned(),
            left => format!("{left} left"),
        };
        table += &format!("{name} at {now}: try {try_it}");
        for ago in [500, 0] {
            let next = word.failed(at(now - ago), at(now), &PLAIN, 0);
            table += &format!(", fail({ago}) {} {}", next.attempt, next.left(at(now)));
        }
        table += "\n";
    }
    assert_eq!(table, TABLE);
}

const TABLE: &str = "\
clear at 500: try may, fail(500) 1 500, fail(0) 1 1000
waits at 500: try 500 left, fail(500) 1 500, fail(0) 1 500
due at 1000: try may, fail(500) 1 0, fail(0) 2 2000
due at 5000: try may, fail(500) 2 1500, fail(0) 2 2000
long due at 4294867295: try may, fail(500) 2 1500, fail(0) 2 2000
last at 1000: try may, fail(500) 255 0, fail(0) 255 60000
";

#[test]
fn a_word_survives_packing() {
    for attempt in [0, 1, 77, u8::MAX] {
        for until in [0, 1, i32::MAX as u32, u32::MAX] {
            for reach in [0, 13, 31] {
                let word = Word { attempt, until: Deadline { at: at(until), reach } };
                assert_eq!(Word::unpack(word.pack()), word);
            }
        }
    }
}

#[test]
fn dials_of_one_step_count_once() {
    let backoff = Backoff::new();
    assert_eq!(backoff.failed(at(0), at(10), &PLAIN, 0), 990);
    assert_eq!(backoff.failed(at(5), at(30), &PLAIN, 0), 970, "begun before the first failed");
    assert_eq!(backoff.attempt(), 1);
    assert_eq!(backoff.may_try(at(999)), Err(1));
    assert_eq!(backoff.may_try(at(1000)), Ok(()));
    assert_eq!(backoff.failed(at(2), at(1500), &PLAIN, 0), 0, "however late it is");
    assert_eq!(backoff.failed(at(1001), at(1600), &PLAIN, 0), 1401);
    assert_eq!(backoff.attempt(), 2);
}

#[test]
fn a_dial_longer_than_its_wait_may_be_repeated_at_once() {
    let backoff = Backoff::new();
    assert_eq!(backoff.failed(at(0), at(3000), &PLAIN, 0), 0);
    assert_eq!(backoff.failed(at(2000), at(5000), &PLAIN, 0), 0, "the same step");
    assert_eq!(backoff.attempt(), 1);
    assert_eq!(backoff.may_try(at(3000)), Ok(()));
}

#[test]
fn a_success_and_a_hint_start_over() {
    let backoff = Backoff::new();
    assert!(!backoff.succeeded());
    for end in [Backoff::succeeded, Backoff::reset] {
        backoff.failed(at(0), at(0), &PLAIN, 0);
        assert!(end(&backoff));
        assert!(!end(&backoff), "told once");
        assert_eq!((backoff.may_try(at(1)), backoff.attempt()), (Ok(()), 0));
        assert_eq!(backoff.failed(at(1), at(1), &PLAIN, 0), 1000);
        assert!(backoff.reset());
    }
}

#[test]
fn a_wait_ends_across_the_wrap_and_does_not_come_back() {
    let backoff = Backoff::new();
    let start = at(u32::MAX - 100);
    assert_eq!(backoff.failed(start, start, &PLAIN, 0), 1000);
    assert_eq!(backoff.may_try(at(100)), Err(799));
    assert_eq!(backoff.may_try(at(899)), Ok(()));
    for days in 1..49 {
        let now = at(899_u32.wrapping_add(days * 86_400_000));
        assert_eq!(backoff.may_try(now), Ok(()), "day {days}");
    }
    let month = at(899 + 30 * 86_400_000);
    assert_eq!(backoff.failed(month, month, &PLAIN, 0), 2000, "a new step");
}

#[test]
fn a_clock_that_lags_does_not_end_a_wait() {
    for wait in [0, 1023, 1024, 4095, 8191, 65_535, Tick::FAR] {
        let now = at(1000);
        let deadline = Deadline::new(now.after(wait), now);
        assert_eq!(deadline.left(now), wait);
        if wait < Tick::FAR {
            assert!(deadline.left(at(900)) >= wait, "{wait}");
        }
    }
}
