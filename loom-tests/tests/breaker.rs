//! The circuit breaker: one word, which admits no more than it says (INV-8).
#![cfg(loom)]

use corepool::model::{
    BackoffRules, Breaker, BreakerChange, BreakerMode, BreakerRules, BreakerState, Tick,
};
use loom::sync::Arc;
use loom_tests::{NOW, model, spawn};

/// Opens for a second at the first failure; one probe at a time, one must succeed.
const RULES: BreakerRules = BreakerRules {
    enabled: true,
    consecutive: 1,
    rate_percent: 0,
    min_dials: 0,
    window_s: 0,
    probes: 1,
    successes: 1,
    backoff: BackoffRules {
        base_ms: 1000,
        multiplier_percent: 200,
        jitter_percent: 0,
        max_ms: 60_000,
    },
};
const TWO_PROBES: BreakerRules = BreakerRules { probes: 2, ..RULES };
/// When an open time of a second that began at `NOW` is over.
const LATER: Tick = Tick::from_millis(1000);

fn opened(from: BreakerState, open_for_ms: u32) -> Option<BreakerChange> {
    Some(BreakerChange { from, to: BreakerState::Open, open_for_ms })
}

const CLOSED: BreakerChange =
    BreakerChange { from: BreakerState::HalfOpen, to: BreakerState::Closed, open_for_ms: 0 };

fn open_breaker() -> Arc<Breaker> {
    let breaker = Arc::new(Breaker::new());
    let pass = breaker.admit(&RULES, NOW).unwrap();
    assert_eq!(breaker.failed(pass, &RULES, NOW, 0), opened(BreakerState::Closed, 1000));
    breaker
}

/// INV-8: two dials ask as the open time ends: one is the probe, and it alone tells of the change.
#[test]
fn admit_vs_admit_at_the_expiry() {
    model(|| {
        let breaker = open_breaker();
        let other = spawn({
            let breaker = breaker.clone();
            move || breaker.admit(&RULES, LATER)
        });
        let admitted = [breaker.admit(&RULES, LATER), other.join().unwrap()];
        let mut probes: Vec<_> = admitted.into_iter().flatten().collect();
        assert_eq!(probes.len(), 1, "INV-8: probes admitted");
        let probe = probes.remove(0);
        assert!(probe.is_probe() && probe.change().is_some(), "INV-8: {probe:?}");
        assert_eq!(breaker.succeeded(probe, &RULES, LATER), Some(CLOSED));
    });
}

/// INV-8: two dials ask for the second of two probes: one gets it.
#[test]
fn admit_vs_admit_for_the_last_probe() {
    model(|| {
        let breaker = open_breaker();
        let first = breaker.admit(&TWO_PROBES, LATER).unwrap();
        let other = spawn({
            let breaker = breaker.clone();
            move || breaker.admit(&TWO_PROBES, LATER)
        });
        let admitted = [breaker.admit(&TWO_PROBES, LATER), other.join().unwrap()];
        let mut probes: Vec<_> = admitted.into_iter().flatten().collect();
        assert_eq!(probes.len(), 1, "INV-8: probes admitted");
        breaker.withdrawn(probes.remove(0));
        breaker.withdrawn(first);
    });
}

/// INV-8: of two probes one fails and one succeeds: the first verdict holds, the other is late.
#[test]
fn probe_failure_vs_probe_success() {
    model(|| {
        let breaker = open_breaker();
        let bad = breaker.admit(&TWO_PROBES, LATER).unwrap();
        let good = breaker.admit(&TWO_PROBES, LATER).unwrap();
        let other = spawn({
            let breaker = breaker.clone();
            move || breaker.failed(bad, &TWO_PROBES, LATER, 0)
        });
        let closed = breaker.succeeded(good, &TWO_PROBES, LATER);
        let opened_again = other.join().unwrap();
        match (closed, opened_again) {
            (Some(CLOSED), None) => assert!(breaker.is_closed()),
            (None, change) if change == opened(BreakerState::HalfOpen, 2000) => {
                assert_eq!(breaker.admit(&RULES, LATER).unwrap_err().left_ms, 2000, "INV-8");
            }
            changes => panic!("INV-8: {changes:?}"),
        }
    });
}

/// INV-8: of two probes that must both succeed, both do: one of them closes the breaker.
#[test]
fn probe_success_vs_probe_success() {
    model(|| {
        let both = BreakerRules { successes: 2, ..TWO_PROBES };
        let breaker = open_breaker();
        let one = breaker.admit(&both, LATER).unwrap();
        let two = breaker.admit(&both, LATER).unwrap();
        let other = spawn({
            let breaker = breaker.clone();
            move || breaker.succeeded(one, &both, LATER)
        });
        let changes = [breaker.succeeded(two, &both, LATER), other.join().unwrap()];
        assert_eq!(changes.into_iter().flatten().collect::<Vec<_>>(), [CLOSED], "INV-8");
        assert!(breaker.is_closed(), "INV-8");
    });
}

/// INV-8: a probe is cancelled as a dial asks: its place comes back and is given away once.
#[test]
fn withdrawn_vs_admit() {
    model(|| {
        let breaker = open_breaker();
        let probe = breaker.admit(&RULES, LATER).unwrap();
        let other = spawn({
            let breaker = breaker.clone();
            move || breaker.withdrawn(probe)
        });
        let early = breaker.admit(&RULES, LATER);
        other.join().unwrap();
        let late = breaker.admit(&RULES, LATER);
        assert!(early.is_ok() ^ late.is_ok(), "INV-8: {early:?}, {late:?}");
        let probe = early.or(late).unwrap();
        assert_eq!(breaker.succeeded(probe, &RULES, LATER), Some(CLOSED), "INV-8");
    });
}

/// INV-8: the breaker trips as a dial of the same period succeeds: the success is counted before
/// or ignored, and the breaker is open.
#[test]
fn trip_vs_success() {
    model(|| {
        let breaker = Arc::new(Breaker::new());
        let bad = breaker.admit(&RULES, NOW).unwrap();
        let good = breaker.admit(&RULES, NOW).unwrap();
        let other = spawn({
            let breaker = breaker.clone();
            move || breaker.succeeded(good, &RULES, NOW)
        });
        assert_eq!(breaker.failed(bad, &RULES, NOW, 0), opened(BreakerState::Closed, 1000));
        assert_eq!(other.join().unwrap(), None, "INV-8");
        assert_eq!(breaker.admit(&RULES, NOW).unwrap_err().left_ms, 1000, "INV-8");
    });
}

/// INV-8: a dial that was begun before the breaker tripped succeeds as the first probe begins: it
/// closes nothing, and the probe's place stays taken.
#[test]
fn late_success_vs_probe() {
    model(|| {
        let breaker = Arc::new(Breaker::new());
        let bad = breaker.admit(&RULES, NOW).unwrap();
        let late = breaker.admit(&RULES, NOW).unwrap();
        assert!(breaker.failed(bad, &RULES, NOW, 0).is_some());
        let other = spawn({
            let breaker = breaker.clone();
            move || breaker.succeeded(late, &RULES, LATER)
        });
        let probe = breaker.admit(&RULES, LATER).unwrap();
        assert_eq!(other.join().unwrap(), None, "INV-8: closed by a dial of an older period");
        assert!(breaker.admit(&RULES, LATER).is_err(), "INV-8: a second probe");
        assert_eq!(breaker.succeeded(probe, &RULES, LATER), Some(CLOSED));
    });
}

/// INV-8: a probe of the outage before is cancelled as the probe of this one begins: it does not
/// give this one's place away.
#[test]
fn late_withdrawal_vs_probe() {
    model(|| {
        let breaker = open_breaker();
        let late = breaker.admit(&TWO_PROBES, LATER).unwrap();
        let bad = breaker.admit(&TWO_PROBES, LATER).unwrap();
        assert!(breaker.failed(bad, &TWO_PROBES, LATER, 0).is_some());
        let over = LATER.after(2000);
        let other = spawn({
            let breaker = breaker.clone();
            move || breaker.withdrawn(late)
        });
        let probe = breaker.admit(&RULES, over).unwrap();
        other.join().unwrap();
        assert!(breaker.admit(&RULES, over).is_err(), "INV-8: a second probe");
        assert_eq!(breaker.succeeded(probe, &RULES, over), Some(CLOSED));
    });
}

/// INV-8: an operator forces the breaker open as a dial asks: the dial came before, and then its
/// outcome is ignored, or it is refused.
#[test]
fn force_open_vs_admit() {
    model(|| {
        let breaker = Arc::new(Breaker::new());
        let other = spawn({
            let breaker = breaker.clone();
            move || breaker.force(BreakerMode::ForcedOpen)
        });
        let early = breaker.admit(&RULES, NOW);
        let change = other.join().unwrap().expect("it was closed");
        assert_eq!((change.from, change.to), (BreakerState::Closed, BreakerState::ForcedOpen));
        assert!(breaker.admit(&RULES, NOW).is_err(), "INV-8");
        if let Ok(pass) = early {
            assert_eq!(breaker.failed(pass, &RULES, NOW, 0), None, "INV-8");
        }
        assert_eq!(breaker.glance(NOW), BreakerState::ForcedOpen, "INV-8");
    });
}

/// INV-8: an operator forces the breaker open as it trips: it is forced open, and each change is
/// told from where it began.
#[test]
fn force_open_vs_trip() {
    model(|| {
        let breaker = Arc::new(Breaker::new());
        let bad = breaker.admit(&RULES, NOW).unwrap();
        let other = spawn({
            let breaker = breaker.clone();
            move || breaker.force(BreakerMode::ForcedOpen)
        });
        let tripped = breaker.failed(bad, &RULES, NOW, 0);
        let forced = other.join().unwrap().expect("it was not forced");
        match forced.from {
            BreakerState::Closed => assert_eq!(tripped, None, "INV-8"),
            BreakerState::Open => assert!(tripped.is_some(), "INV-8"),
            from => panic!("INV-8: {from:?}"),
        }
        assert_eq!(breaker.glance(NOW), BreakerState::ForcedOpen, "INV-8");
    });
}

/// INV-8: two failures where one would do: one of them trips the breaker, once.
#[test]
fn failure_vs_failure_at_the_threshold() {
    model(|| {
        let breaker = Arc::new(Breaker::new());
        two_failures(&breaker, RULES);
        // Tripped twice, it would be open for longer.
        assert_eq!(breaker.admit(&RULES, NOW).unwrap_err().left_ms, 1000, "INV-8");
    });
}

/// INV-8: two failures where two are needed: none is lost.
#[test]
fn failure_vs_failure_below_the_threshold() {
    model(|| {
        let breaker = Arc::new(Breaker::new());
        two_failures(&breaker, BreakerRules { consecutive: 2, ..RULES });
    });
}

fn two_failures(breaker: &Arc<Breaker>, rules: BreakerRules) {
    let one = breaker.admit(&rules, NOW).unwrap();
    let two = breaker.admit(&rules, NOW).unwrap();
    let other = spawn({
        let breaker = breaker.clone();
        move || breaker.failed(one, &rules, NOW, 0)
    });
    let mine = breaker.failed(two, &rules, NOW, 0);
    let theirs = other.join().unwrap();
    assert!(mine.is_some() ^ theirs.is_some(), "INV-8: {mine:?}, {theirs:?}");
    assert_eq!(mine.or(theirs), opened(BreakerState::Closed, 1000), "INV-8");
}
