use super::*;

fn input() -> AlertInput {
    let mut input = AlertInput::new("10.0.0.1:80".parse().unwrap());
    input.max_live = Some(8);
    input
}

/// Feeds snapshots at seconds and returns what came out, as `(second, kind, raised)`.
fn run(
    thresholds: AlertThresholds,
    snapshots: impl IntoIterator<Item = (u64, AlertInput)>,
) -> Vec<(u64, AlertKind, bool)> {
    let mut alerts = Alerts::new(thresholds).unwrap();
    let mut seen = Vec::new();
    for (second, input) in snapshots {
        let events = alerts.observe(Duration::from_secs(second), [input]);
        seen.extend(events.iter().map(|event| (second, event.kind, event.raised)));
    }
    seen
}

#[test]
fn exhaustion_is_raised_once_after_30_s_and_cleared_once() {
    let snapshots = (0..100).step_by(10).map(|second| {
        let mut input = input();
        (input.live, input.waiting) = (8, u32::from(second < 70));
        (second, input)
    });
    let kind = AlertKind::PoolExhausted;
    assert_eq!(run(AlertThresholds::default(), snapshots), [(30, kind, true), (70, kind, false)]);
}

#[test]
fn exhaustion_begins_anew_after_relief() {
    let snapshots = (0..=60).step_by(10).map(|second| {
        let mut input = input();
        // One snapshot with room.
        (input.live, input.waiting) = (if second == 20 { 7 } else { 8 }, 1);
        (second, input)
    });
    let kind = AlertKind::PoolExhausted;
    assert_eq!(run(AlertThresholds::default(), snapshots), [(60, kind, true)]);
}

#[test]
fn a_full_pool_without_callers_or_an_unknown_limit_is_not_exhausted() {
    let full = AlertInput { live: 8, ..input() };
    let unknown = AlertInput { live: 8, waiting: 9, max_live: None, ..input() };
    for input in [full, unknown] {
        let snapshots = (0..100).map(|second| (second, input.clone()));
        assert!(run(AlertThresholds::default(), snapshots).is_empty());
    }
}

#[test]
fn a_slow_p99_must_last_five_minutes() {
    let kind = AlertKind::AcquireSlow;
    for (p99, expected) in [(501, vec![(300, kind, true), (600, kind, false)]), (500, vec![])] {
        let snapshots = (0..=600).step_by(60).map(|second| {
            let acquire_p99_ms = (second < 600).then_some(p99);
            (second, AlertInput { acquire_p99_ms, ..input() })
        });
        assert_eq!(run(AlertThresholds::default(), snapshots), expected, "p99 {p99}");
    }
}

#[test]
fn low_reuse_must_last_ten_minutes() {
    let kind = AlertKind::ReuseLow;
    // Of 100 checkouts each minute 59 reuse; from 720 s on, 60 do.
    let mut counters = input();
    let snapshots = (0..=720).step_by(60).map(|second| {
        let snapshot = counters.clone();
        let reused = if second < 660 { 59 } else { 60 };
        counters.reused += reused;
        counters.opened += 100 - reused;
        (second, snapshot)
    });
    // The first snapshot is where counting begins, the second is judged.
    assert_eq!(run(AlertThresholds::default(), snapshots), [(660, kind, true), (720, kind, false)]);
}

#[test]
fn failing_dials_are_raised_when_enough_were_counted() {
    let kind = AlertKind::DialsFailing;
    // One dial a second, every second one fails: judged at the 20th. What was before the first
    // snapshot does not count.
    let snapshots = (0..=20).map(|second| {
        let (failed, opened) = (second / 2, second - second / 2);
        (second, AlertInput { dial_failures: 1000 + failed, opened: 7 + opened, ..input() })
    });
    assert_eq!(run(AlertThresholds::default(), snapshots), [(20, kind, true)]);
}

#[test]
fn exactly_the_threshold_is_no_alert() {
    let snapshots = [
        (0, input()),
        (1, AlertInput { dial_failures: 10, opened: 90, reused: 150, ..input() }),
        (2, AlertInput { dial_failures: 20, opened: 180, reused: 300, ..input() }),
    ];
    let at_once = AlertThresholds { reuse_for_ms: 0, ..AlertThresholds::default() };
    assert!(run(at_once, snapshots).is_empty(), "10 % of dials fail, 62.5 % reuse");
    let snapshots = [(0, input()), (1, AlertInput { opened: 40, reused: 60, ..input() })];
    let at_once = AlertThresholds { reuse_for_ms: 0, ..AlertThresholds::default() };
    assert!(run(at_once, snapshots).is_empty(), "60 % reuse");
}

#[test]
fn a_share_is_forgotten_when_nothing_is_counted_any_more() {
    let kind = AlertKind::DialsFailing;
    let failed = AlertInput { dial_failures: 20, ..input() };
    let mut alerts = Alerts::new(AlertThresholds::default()).unwrap();
    let mut at =
        |second, input: &AlertInput| alerts.observe(Duration::from_secs(second), [input.clone()]);
    assert!(at(0, &input()).is_empty());
    let raised = at(10, &failed);
    assert_eq!((raised[0].kind, raised[0].value), (kind, Some(100)));
    assert!(at(309, &failed).is_empty(), "299 s later it stands");
    let cleared = at(310, &failed);
    assert_eq!((cleared[0].raised, cleared[0].value), (false, None));
    assert_eq!(
        cleared[0].to_string(),
        "10.0.0.1:80: dials_failing cleared: nothing to go by (threshold 10)"
    );
}

#[test]
fn counters_that_begin_anew_are_no_evidence() {
    let snapshots = [
        (0, AlertInput { opened: 1000, ..input() }),
        (1, AlertInput { opened: 5, dial_failures: 50, ..input() }),
        (2, AlertInput { opened: 30, dial_failures: 50, ..input() }),
    ];
    assert!(run(AlertThresholds::default(), snapshots).is_empty());
}

#[test]
fn leaks_are_raised_at_once_and_by_the_threshold() {
    let kind = AlertKind::ConnectionsLeaked;
    let leaks = |leaked| AlertInput { leaked, ..input() };
    let snapshots = [(0, leaks(1)), (1, leaks(2)), (2, leaks(3)), (3, leaks(2))];
    let default = AlertThresholds::default();
    assert_eq!(run(default.clone(), snapshots.clone()), [(0, kind, true)]);
    let more = AlertThresholds { leaked: 2, ..default };
    assert_eq!(run(more, snapshots), [(2, kind, true), (3, kind, false)]);
}

#[test]
fn endpoints_are_told_apart_and_one_that_is_gone_is_cleared() {
    let mut alerts = Alerts::new(AlertThresholds::default()).unwrap();
    let leaking = AlertInput { leaked: 4, ..input() };
    let other = AlertInput::new("origin:80".parse().unwrap());
    let events = alerts.observe(Duration::ZERO, [leaking.clone(), other.clone()]);
    assert_eq!(events.len(), 1);
    assert_eq!(
        events[0].to_string(),
        "10.0.0.1:80: connections_leaked raised: 4 connections held too long (threshold 0)"
    );
    let raised: Vec<_> = alerts.raised().collect();
    assert_eq!(raised, [(&leaking.endpoint, AlertKind::ConnectionsLeaked)]);

    let events = alerts.observe(Duration::ZERO, [other]);
    assert_eq!(events.len(), 1);
    assert_eq!((&events[0].endpoint, events[0].raised), (&leaking.endpoint, false));
    assert_eq!(alerts.raised().count(), 0);
    assert_eq!(alerts.endpoints.len(), 1, "it is forgotten");
}

#[test]
fn time_that_goes_back_stands_still() {
    let full = AlertInput { live: 8, waiting: 1, ..input() };
    let snapshots = [(100, full.clone()), (10, full.clone()), (129, full.clone()), (130, full)];
    let kind = AlertKind::PoolExhausted;
    assert_eq!(run(AlertThresholds::default(), snapshots), [(130, kind, true)]);
}

#[test]
fn thresholds_out_of_range_are_refused_by_name() {
    type Change = fn(&mut AlertThresholds);
    let changes: [(&str, Change); 4] = [
        ("reuse_percent", |t| t.reuse_percent = 101),
        ("reuse_min_checkouts", |t| t.reuse_min_checkouts = 0),
        ("dial_failure_percent", |t| t.dial_failure_percent = 101),
        ("dial_failure_min_dials", |t| t.dial_failure_min_dials = 0),
    ];
    for (field, change) in changes {
        let mut thresholds = AlertThresholds::default();
        change(&mut thresholds);
        assert_eq!(Alerts::new(thresholds).unwrap_err().field(), field);
    }
}

#[test]
fn extreme_counters_do_no_harm() {
    let all = AlertInput {
        live: u32::MAX,
        max_live: Some(u32::MAX),
        waiting: u32::MAX,
        acquire_p99_ms: Some(u32::MAX),
        reused: u64::MAX,
        opened: u64::MAX,
        dial_failures: u64::MAX,
        leaked: u32::MAX,
        ..input()
    };
    let events = run(AlertThresholds::default(), [(0, input()), (u64::MAX, all)]);
    // Everything dialled failed, as far as the saturated sum tells.
    assert_eq!(
        events,
        [(u64::MAX, AlertKind::DialsFailing, true), (u64::MAX, AlertKind::ConnectionsLeaked, true)]
    );
}

#[test]
fn the_statistics_fill_the_input() {
    let stats = GroupStats {
        idle: 1,
        in_use: 2,
        dialing: 4,
        waiting: 8,
        opened: 16,
        reused: 32,
        dial_failures: 64,
        ..GroupStats::new("10.0.0.1:80".parse().unwrap())
    };
    let expected = AlertInput {
        live: 7,
        waiting: 8,
        opened: 16,
        reused: 32,
        dial_failures: 64,
        ..AlertInput::new(stats.endpoint.clone())
    };
    assert_eq!(AlertInput::from(&stats), expected);
}
