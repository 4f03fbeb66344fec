//! Origins that die under load and come back: what clients see, what `/pool` shows, what the log
//! says.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    load::Load,
    support::{
        GET, Message, Origin, Port, Proxy, assert_failure, balances, ok, one_shard, plain_origin,
        plain_origin_on,
    },
};

on_each_backend! {
    a_killed_origin_is_503_at_once_until_it_is_back,
    of_two_origins_one_may_die,
    a_dial_that_fails_is_a_detour,
    with_all_origins_down_it_is_503,
    an_operator_forces_the_breaker,
    past_an_open_breaker_dials_go_alone,
    without_a_breaker_each_request_dials,
}

/// A breaker that is fast to try again: open for 0.2 s, then at most 0.4 s, give or take a fifth.
const FAST: [&str; 4] = ["--backoff-base", "0.2", "--backoff-max", "0.4"];
const LONGEST_STEP: Duration = Duration::from_millis(480);

/// The default of `--connect-timeout`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

async fn a_killed_origin_is_503_at_once_until_it_is_back(backend: &str) {
    let port = Port::reserve();
    let upstream = port.address().to_string();
    let origin = plain_origin_on(&port);
    let mut args = one_shard(backend, &upstream);
    args.extend(FAST);
    let proxy = Proxy::start(&args).await;
    let load = Load::start(&proxy, 16).await;
    proxy.endpoint(|endpoint| endpoint["reused_total"].as_u64() > Some(200)).await;

    origin.kill().await;
    proxy.endpoint(|endpoint| endpoint["breaker"] == "open").await;
    let opened = Instant::now();
    // The first opening, and two probes that failed.
    proxy.endpoint(|endpoint| endpoint["breaker_trips_total"].as_u64() >= Some(3)).await;
    let returned = Instant::now();
    let origin = plain_origin_on(&port);
    let endpoint = proxy.endpoint(|endpoint| endpoint["breaker"] == "closed").await;
    let trips = endpoint["breaker_trips_total"].as_u64().unwrap() as usize;
    let reused = endpoint["reused_total"].as_u64().unwrap();
    proxy.endpoint(|endpoint| endpoint["reused_total"].as_u64() > Some(reused + 200)).await;
    let answers = load.stop().await;
    drop(origin);

    for answer in &answers {
        assert!(answer.took() < CONNECT_TIMEOUT, "{answer:?}");
        match answer.status() {
            200 => {}
            502 => assert_failure(&answer.response, 502, &upstream, ""),
            503 => {
                assert_failure(&answer.response, 503, &upstream, "circuit breaker is open");
                // At most half a second, rounded up.
                assert_eq!(answer.response.field("retry-after"), Some("1"));
            }
            _ => panic!("{answer:?}"),
        }
    }
    let down: Vec<_> = answers
        .iter()
        .filter(|answer| answer.asked > opened && answer.answered < returned)
        .map(|answer| answer.status())
        .collect();
    let count = |status| down.iter().filter(|found| **found == status).count();
    assert_eq!(count(200), 0, "nobody is there to answer");
    assert!(count(503) > 50, "{} of {}", count(503), down.len());
    // Who makes a probe learns how it ended.
    assert!(count(502) <= trips, "{} of {}, {trips} trips", count(502), down.len());
    let back = answers.iter().find(|answer| answer.asked > returned && answer.status() == 200);
    let recovery = back.expect("it recovers").answered - returned;
    assert!(recovery < LONGEST_STEP + Duration::from_secs(2), "{recovery:?}");

    proxy.endpoint(|endpoint| endpoint["in_use"] == 0 && balances(endpoint)).await;
    proxy.signal("TERM").await;
    let (_, log) = proxy.wait().await;
    assert_transitions(&log, &upstream, trips);
}

/// One line for each transition, each from where the one before led: so none is missing, and none
/// is there twice.
fn assert_transitions(log: &str, upstream: &str, trips: usize) {
    let lines: Vec<_> = log.lines().filter(|line| line.contains("the circuit breaker")).collect();
    let field = |line: &str, name: &str| {
        let rest = line.split_once(&format!(" {name}=")).map(|(_, rest)| rest);
        let value = rest.and_then(|rest| rest.split(' ').next());
        value.unwrap_or_else(|| panic!("no {name}: {line}")).to_owned()
    };
    let mut state = "closed".to_owned();
    for line in &lines {
        assert_eq!(field(line, "endpoint"), upstream);
        assert_eq!(field(line, "from"), state, "{lines:#?}");
        state = field(line, "to");
        let opens = state == "open";
        assert_eq!(opens, line.contains(" open_for="), "{line}");
        assert_eq!(opens, line.contains(" WARN "), "{line}");
    }
    let states: Vec<_> = lines.iter().map(|line| field(line, "to")).collect();
    assert_eq!(states.iter().filter(|to| *to == "open").count(), trips, "{lines:#?}");
    assert_eq!(states[states.len() - 3..], ["open", "half_open", "closed"], "{lines:#?}");
}

async fn of_two_origins_one_may_die(backend: &str) {
    let port = Port::reserve();
    let upstream = port.address().to_string();
    let (dies, lives) = (plain_origin_on(&port), plain_origin().await);
    let other = lives.upstream();
    let mut args = one_shard(backend, &upstream);
    args.extend(["--upstream", &other]);
    args.extend(FAST);
    let proxy = Proxy::start(&args).await;
    let load = Load::start(&proxy, 16).await;
    let reused_more_than = |count| move |e: &serde_json::Value| e["reused_total"].as_u64() > count;
    proxy.endpoint_at(&upstream, reused_more_than(Some(100))).await;

    dies.kill().await;
    proxy.endpoint_at(&upstream, |endpoint| endpoint["breaker"] == "open").await;
    // The probes too are requests of clients.
    proxy
        .endpoint_at(&upstream, |endpoint| endpoint["breaker_trips_total"].as_u64() >= Some(3))
        .await;
    let back = plain_origin_on(&port);
    let endpoint = proxy.endpoint_at(&upstream, |endpoint| endpoint["breaker"] == "closed").await;
    let reused = endpoint["reused_total"].as_u64().unwrap();
    proxy.endpoint_at(&upstream, reused_more_than(Some(reused + 100))).await;
    let answers = load.stop().await;
    drop(back);

    // All are GETs, so also those that were with the origin as it died are answered by the other.
    for answer in &answers {
        assert_eq!(answer.status(), 200, "{}", answer.response.text());
        assert!(answer.took() < CONNECT_TIMEOUT, "{answer:?}");
    }
    let metrics = proxy.metrics().await;
    let detours = metrics.lines().find_map(|line| line.strip_prefix("proxy_detours_total{"));
    let detours: u64 = detours.unwrap().rsplit_once(' ').unwrap().1.parse().unwrap();
    assert!(detours >= 2, "one for each probe: {detours}");
}

async fn a_dial_that_fails_is_a_detour(backend: &str) {
    let nobody = Port::reserve();
    let upstream = nobody.address().to_string();
    let origin = Origin::start(|_, mut peer| async move {
        while let Some(request) = peer.request().await {
            let host = request.field("host").unwrap_or("none");
            peer.send(ok(&format!("{host}:{}", request.text()))).await;
        }
    })
    .await;
    let other = origin.upstream();
    let mut args = one_shard(backend, &upstream);
    args.extend(["--upstream", &other, "--breaker-failures", "2", "--backoff-base", "60"]);
    let proxy = Proxy::start(&args).await;
    // It has a body, and is not idempotent; but nothing of it was sent.
    let post = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody";
    assert_eq!(proxy.ask(post).await.text(), "a:body");
    // This one has its turn there.
    assert_eq!(proxy.ask(GET).await.text(), "a:");
    // The host is that of the origin which answers.
    assert_eq!(proxy.ask("GET / HTTP/1.0\r\n\r\n").await.text(), format!("{other}:"));
    let endpoint = proxy.endpoint_at(&upstream, |endpoint| endpoint["breaker"] == "open").await;
    assert_eq!(endpoint["dial_failures_total"], 2);
    // From now on it is passed over.
    for _ in 0..4 {
        assert_eq!(proxy.ask(GET).await.text(), "a:");
    }
    let endpoint = proxy.endpoint_at(&upstream, |_| true).await;
    assert_eq!(endpoint["dial_failures_total"], 2, "{endpoint}");
    let metrics = proxy.metrics().await;
    assert!(metrics.contains("proxy_detours_total{shard=\"0\"} 2\n"), "{metrics}");
    let failed = "proxy_checkouts_failed_total{shard=\"0\",cause=\"dial\"} 2\n";
    assert!(metrics.contains(failed), "{metrics}");
}

async fn with_all_origins_down_it_is_503(backend: &str) {
    let (one, two) = (Port::reserve(), Port::reserve());
    let (upstream, other) = (one.address().to_string(), two.address().to_string());
    let mut args = one_shard(backend, &upstream);
    args.extend(["--upstream", &other, "--breaker-failures", "1", "--backoff-base", "60"]);
    let proxy = Proxy::start(&args).await;
    // Of both, the one that was tried last.
    assert_failure(&proxy.ask(GET).await, 502, &other, "connection refused");
    for asked in [&other, &upstream, &other] {
        let response = proxy.ask(GET).await;
        assert_failure(&response, 503, asked, "circuit breaker is open");
        let seconds = retry_after(&response);
        assert!((1..=72).contains(&seconds), "a minute, and a fifth of it: {seconds}");
    }
}

fn retry_after(response: &Message) -> u64 {
    let seconds = response.field("retry-after").expect("it says when to come back");
    seconds.parse().expect("in seconds")
}

async fn an_operator_forces_the_breaker(backend: &str) {
    let origin = plain_origin().await;
    let upstream = origin.upstream();
    let proxy = Proxy::start(&one_shard(backend, &upstream)).await;
    assert_eq!(proxy.ask(GET).await.status(), 200);

    let order = format!("/breaker?endpoint={upstream}&mode=open");
    let response = proxy.order(&order).await;
    assert_eq!(response.status(), 200, "{}", response.text());
    assert!(response.text().contains("\"breaker\":\"forced_open\""), "{}", response.text());
    // What is at rest still serves.
    assert_eq!(proxy.ask(GET).await.status(), 200);
    assert_eq!(proxy.order(&format!("/evict?endpoint={upstream}")).await.status(), 200);
    // And is closed by now, or is being closed, which counts as use.
    let is_gone = |e: &serde_json::Value| e["idle"] == 0 && e["in_use"] == 0;
    let endpoint = proxy.endpoint(is_gone).await;
    assert_eq!(endpoint["breaker"], "forced_open");
    assert_eq!(endpoint["closed_total"]["purged"], 1, "{endpoint}");
    let response = proxy.ask(GET).await;
    assert_failure(&response, 503, &upstream, "circuit breaker is open");
    assert_eq!(retry_after(&response), 1);
    let metrics = proxy.metrics().await;
    for (state, is) in
        [("closed", 0), ("open", 0), ("half_open", 0), ("forced_open", 1), ("forced_closed", 0)]
    {
        let line =
            format!("corepool_breaker_state{{endpoint=\"{upstream}\",state=\"{state}\"}} {is}\n");
        assert!(metrics.contains(&line), "{line}{metrics}");
    }

    let response = proxy.order(&format!("/breaker?endpoint={upstream}&mode=auto")).await;
    assert!(response.text().contains("\"breaker\":\"closed\""), "{}", response.text());
    assert_eq!(proxy.ask(GET).await.status(), 200);

    let response = proxy.order(&format!("/breaker?endpoint={upstream}&mode=closed")).await;
    assert!(response.text().contains("\"breaker\":\"forced_closed\""), "{}", response.text());
    assert_eq!(proxy.ask(GET).await.status(), 200);
}

async fn past_an_open_breaker_dials_go_alone(backend: &str) {
    let origin = plain_origin().await;
    let upstream = origin.upstream();
    let mut args = one_shard(backend, &upstream);
    args.extend(["--at-open", "direct"]);
    let proxy = Proxy::start(&args).await;
    let order = format!("/breaker?endpoint={upstream}&mode=open");
    assert_eq!(proxy.order(&order).await.status(), 200);
    for nth in 1..=2 {
        assert_eq!(proxy.ask(GET).await.text(), format!("{nth}:"), "each has its own");
    }
    let endpoint = proxy.endpoint(|endpoint| endpoint["in_use"] == 0).await;
    assert_eq!((&endpoint["closed_total"]["overflow"], &endpoint["idle"]), (&2.into(), &0.into()));
}

async fn without_a_breaker_each_request_dials(backend: &str) {
    let nobody = Port::reserve();
    let upstream = nobody.address().to_string();
    let mut args = one_shard(backend, &upstream);
    args.extend(["--breaker", "off"]);
    let proxy = Proxy::start(&args).await;
    for _ in 0..8 {
        assert_failure(&proxy.ask(GET).await, 502, &upstream, "connection refused");
    }
    let endpoint = proxy.endpoint(|endpoint| endpoint["dialing"] == 0).await;
    assert_eq!(endpoint["dial_failures_total"], 8, "{endpoint}");

    // And with one that was opened: a word of the operator is enough to have it tried at once.
    args.truncate(args.len() - 2);
    args.extend(["--breaker-failures", "1", "--backoff-base", "60"]);
    let proxy = Proxy::start(&args).await;
    assert_eq!(proxy.ask(GET).await.status(), 502);
    assert_eq!(proxy.ask(GET).await.status(), 503);
    let _origin = plain_origin_on(&nobody);
    assert_eq!(proxy.ask(GET).await.status(), 503);
    let reset = format!("/breaker?endpoint={upstream}&mode=reset");
    assert_eq!(proxy.order(&reset).await.status(), 200);
    assert_eq!(proxy.ask(GET).await.status(), 200);
}
