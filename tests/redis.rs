//! Connections of a protocol that is not HTTP, pooled by a connector of the user's own: the one of
//! `examples/redis.rs`, against a real server.
//!
//! Needs `apt-get install redis-server`. Where it is missing, or with `COREPOOL_SKIP_REAL_PEERS=1`,
//! these tests say so and do nothing, but for what runs against the example's stand-in.
#![cfg(target_os = "linux")]

#[path = "../examples/redis/connector.rs"]
mod connector;
#[path = "../examples/redis/server.rs"]
mod server;
mod support;
#[path = "../examples/redis/tiny.rs"]
mod tiny;

use std::{
    env,
    net::SocketAddr,
    time::{Duration, Instant},
};

use connector::{Redis, RedisConnector};
use corepool::{
    Backend, CheckoutError, CloseReason, Condition, Connection, DialErrorKind, Endpoint,
    EndpointSettings, Group, Inspect, Pool, Pooled,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use redis::{AsyncCommands, ErrorKind};
use server::Server;
use support::{close_and_check, eventually, tuned};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

/// A server of this test's own. `None`: to be skipped.
async fn server(config: &str) -> Option<Server> {
    if env::var_os("COREPOOL_SKIP_REAL_PEERS").is_some_and(|skip| skip == "1") {
        println!("skipped: COREPOOL_SKIP_REAL_PEERS=1");
        return None;
    }
    if !server::is_installed() {
        println!("skipped: redis-server is not installed (apt-get install redis-server)");
        return None;
    }
    Some(Server::start(config).await.expect("redis-server starts"))
}

fn pool(backend: Backend, change: impl FnOnce(&mut EndpointSettings)) -> Pool<RedisConnector> {
    let connector = RedisConnector::default().with_login("app", "secret");
    let connector = connector.with_login("other", "wrong");
    tuned(Pool::builder(connector), backend).endpoint(change).build().unwrap()
}

fn app(address: SocketAddr, database: u32) -> Endpoint {
    Endpoint::from(address).with_tag(format!("app/{database}"))
}

/// How many clients the server has, this one included.
async fn clients(redis: &Redis) -> usize {
    let mut redis = redis;
    let list: String = redis::cmd("INFO").arg("clients").query_async(&mut redis).await.unwrap();
    let count = list.lines().find_map(|line| line.strip_prefix("connected_clients:"));
    count.and_then(|count| count.parse().ok()).expect("the server counts its clients")
}

/// Connections to the server, as the system has them (proc(5): the remote port, the state).
fn established(server: SocketAddr) -> usize {
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let port = format!(":{:04X}", server.port());
    let ours = |line: &&str| {
        let mut fields = line.split_whitespace().skip(2);
        fields.next().is_some_and(|remote| remote.ends_with(&port)) && fields.next() == Some("01")
    };
    table.lines().filter(ours).count()
}

/// As whom the connection is logged in.
async fn user(redis: &mut Redis) -> String {
    redis::cmd("ACL").arg("WHOAMI").query_async(redis).await.unwrap()
}

async fn ping(redis: &mut Redis) {
    assert_eq!(redis::cmd("PING").query_async::<String>(redis).await.unwrap(), "PONG");
}

/// Several at once.
async fn checkouts(group: &Group<RedisConnector>, count: usize) -> Vec<Pooled<RedisConnector>> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(group.checkout().await.unwrap());
    }
    all
}

/// 100 tasks count to 10,000 together, on shared connections.
async fn increments(backend: Backend, address: SocketAddr) {
    let pool = pool(backend, |policy| {
        (policy.streams.max_connections, policy.streams.max_streams) = (4, 10);
    });
    let streams = pool.streams(app(address, 0));
    let mut tasks = JoinSet::new();
    for _ in 0..100 {
        let streams = streams.clone();
        tasks.spawn(async move {
            for _ in 0..100 {
                let lease = streams.lease().await.unwrap();
                let mut redis: &Redis = &lease;
                let _: u64 = redis.incr("count", 1).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    let lease = streams.lease().await.unwrap();
    let mut redis: &Redis = &lease;
    assert_eq!(redis.get::<_, u64>("count").await.unwrap(), 10_000);
    let opened = streams.group().stats().opened;
    assert!((1..=4).contains(&opened), "{opened}");
    drop((lease, streams));
    close_and_check(pool).await;
}

/// 20 tasks sell 200 pieces, each sale by WATCH and EXEC on a connection of its own.
async fn sales(backend: Backend, address: SocketAddr) {
    let pool = pool(backend, |policy| {
        (policy.capacity.max_live, policy.capacity.max_idle) = (4, 4);
    });
    let group = pool.group(app(address, 0));
    let () = group.checkout().await.unwrap().set("stock", 200).await.unwrap();
    let mut buyers = JoinSet::new();
    for _ in 0..20 {
        let group = group.clone();
        buyers.spawn(async move {
            for _ in 0..10 {
                let mut redis = group.checkout().await.unwrap();
                loop {
                    let () =
                        redis::cmd("WATCH").arg("stock").query_async(&mut *redis).await.unwrap();
                    let stock: u32 = redis.get("stock").await.unwrap();
                    let mut sale = redis::pipe();
                    sale.atomic().set("stock", stock - 1).ignore();
                    let done: Option<()> = sale.query_async(&mut *redis).await.unwrap();
                    if done.is_some() {
                        break;
                    }
                }
                redis.release();
            }
        });
    }
    buyers.join_all().await;
    assert_eq!(group.checkout().await.unwrap().get::<_, u32>("stock").await.unwrap(), 0);
    assert!(group.stats().opened <= 4, "{:?}", group.stats());
    drop(group);
    close_and_check(pool).await;
}

on_both_drivers! {
    async fn ten_thousand_increments_on_shared_connections_are_exact(backend) {
        let Some(server) = server("").await else { return };
        increments(backend, server.address).await;
    }

    async fn ten_thousand_increments_on_connections_of_ones_own_are_exact(backend) {
        let Some(server) = server("").await else { return };
        let pool = pool(backend, |policy| {
            (policy.capacity.max_live, policy.capacity.max_idle) = (8, 8);
        });
        let group = pool.group(app(server.address, 0));
        let mut tasks = JoinSet::new();
        for _ in 0..100 {
            let group = group.clone();
            tasks.spawn(async move {
                for _ in 0..100 {
                    let mut redis = group.checkout().await.unwrap();
                    let _: u64 = redis.incr("count", 1).await.unwrap();
                    redis.release();
                }
            });
        }
        tasks.join_all().await;
        let mut redis = group.checkout().await.unwrap();
        assert_eq!(redis.get::<_, u64>("count").await.unwrap(), 10_000);
        assert!(group.stats().opened <= 8, "{:?}", group.stats());
        drop((redis, group));
        close_and_check(pool).await;
    }

    async fn sales_that_watch_the_stock_are_exact(backend) {
        let Some(server) = server("").await else { return };
        sales(backend, server.address).await;
    }

    async fn the_examples_stand_in_is_as_exact(backend) {
        let address = tiny::start().await.unwrap();
        increments(backend, address).await;
        sales(backend, address).await;
    }

    async fn what_the_server_closed_at_rest_is_never_handed_out(backend) {
        let Some(server) = server("timeout 1").await else { return };
        let pool = pool(backend, |_| ());
        let group = pool.group(app(server.address, 0));
        for round in 1..=2 {
            drop(checkouts(&group, 3).await);
            assert_eq!(group.stats().idle, 3);
            eventually("the server has closed them", || {
                group.stats().closed_for(CloseReason::PeerClosed) == 3 * round
            }).await;
            let mut redis = group.checkout().await.unwrap();
            assert!(!redis.is_reused());
            ping(&mut redis).await;
            redis.discard();
        }
        drop(group);
        close_and_check(pool).await;
    }

    async fn a_shared_connection_that_the_server_closed_takes_no_more_streams(backend) {
        let Some(server) = server("timeout 1").await else { return };
        let pool = pool(backend, |_| ());
        let streams = pool.streams(app(server.address, 0));
        // Held, so that the connection does not come to rest.
        let held = streams.lease().await.unwrap();
        eventually("the server has closed it", || streams.stats().connections == 0).await;
        let lease = streams.lease().await.unwrap();
        let mut redis: &Redis = &lease;
        let () = redis.set("key", "value").await.unwrap();
        assert_eq!(streams.group().stats().opened, 2);
        drop((held, lease, streams));
        close_and_check(pool).await;
    }

    async fn a_server_that_restarts_is_found_again(backend) {
        let Some(server) = server("").await else { return };
        let address = server.address;
        let pool = pool(backend, |policy| policy.failure.backoff_base_ms = 50);
        let group = pool.group(app(address, 0));
        let streams = group.streams();
        let lease = streams.lease().await.unwrap();
        drop(checkouts(&group, 3).await);
        assert_eq!((group.stats().idle, group.stats().in_use), (3, 1));
        server.stop().await.unwrap();
        // All are seen to die, with nobody asking for them.
        eventually("none is left", || {
            group.stats().idle == 0 && streams.stats().connections == 0
        }).await;
        let mut redis: &Redis = &lease;
        let error = redis.incr::<_, _, u64>("count", 1).await.unwrap_err();
        assert!(error.is_io_error() || error.is_connection_dropped(), "{error:?}");
        let Err(CheckoutError::Dial(error)) = group.checkout().await else {
            panic!("nobody listens there")
        };
        assert_eq!(error.kind(), DialErrorKind::Refused);

        let server = Server::start_at(address, "").await.expect("its port is free");
        group.reset_breaker();
        drop(lease);
        for _ in 0..20 {
            ping(&mut group.checkout().await.unwrap()).await;
            let lease = streams.lease().await.unwrap();
            let mut redis: &Redis = &lease;
            let _: u64 = redis.incr("count", 1).await.unwrap();
        }
        let lease = streams.lease().await.unwrap();
        let mut redis: &Redis = &lease;
        assert_eq!(redis.get::<_, u64>("count").await.unwrap(), 20);
        drop((lease, streams, group));
        close_and_check(pool).await;
        server.stop().await.unwrap();
    }

    async fn a_login_that_fails_is_told_as_a_failed_dial(backend) {
        let Some(server) = server("").await else { return };
        let pool = pool(backend, |_| ());
        for (tag, cause) in [
            ("other/0", "Password authentication failed"),
            ("nobody/0", "who is \"nobody\"?"),
            ("app/9999", "refused to switch database"),
            ("app", "a tag is user/database"),
        ] {
            let group = pool.group(Endpoint::from(server.address).with_tag(tag));
            let Err(CheckoutError::Dial(error)) = group.checkout().await else {
                panic!("{tag} was let in")
            };
            assert_eq!(error.kind(), DialErrorKind::Connector);
            assert!(error.to_string().contains(cause), "{tag}: {error}");
        }
        close_and_check(pool).await;
    }

    async fn each_identity_has_its_own_connections(backend) {
        let Some(server) = server("").await else { return };
        let pool = pool(backend, |_| ());
        for database in [1, 2] {
            let mut redis = pool.group(app(server.address, database)).checkout().await.unwrap();
            let () = redis.set("database", database).await.unwrap();
        }
        for database in [1, 2] {
            let mut redis = pool.group(app(server.address, database)).checkout().await.unwrap();
            assert!(redis.is_reused());
            assert_eq!(redis.get::<_, u32>("database").await.unwrap(), database);
            assert_eq!(user(&mut redis).await, "app");
        }
        let mut redis = pool.group(server.address).checkout().await.unwrap();
        assert!(!redis.is_reused());
        assert_eq!(user(&mut redis).await, "default");
        drop(redis);
        close_and_check(pool).await;
    }

    async fn a_guard_that_is_dropped_between_commands_costs_no_connection(backend) {
        let Some(server) = server("").await else { return };
        let pool = pool(backend, |_| ());
        let group = pool.group(app(server.address, 0));
        for _ in 0..5 {
            let mut redis = group.checkout().await.unwrap();
            let () = redis.set("key", "value").await.unwrap();
        }
        assert_eq!((group.stats().opened, group.stats().idle), (1, 1));
        drop(group);
        close_and_check(pool).await;
    }

    async fn a_session_that_was_changed_ends_unless_its_caller_vouches_for_it(backend) {
        let Some(server) = server("").await else { return };
        let pool = pool(backend, |_| ());
        let group = pool.group(app(server.address, 0));
        let mut redis = group.checkout().await.unwrap();
        let () = redis::cmd("watch").arg("key").query_async(&mut *redis).await.unwrap();
        drop(redis);
        eventually("closed", || group.stats().closed_for(CloseReason::Dirty) == 1).await;
        let mut redis = group.checkout().await.unwrap();
        let () = redis::cmd("SELECT").arg(5).query_async(&mut *redis).await.unwrap();
        let () = redis::cmd("SELECT").arg(0).query_async(&mut *redis).await.unwrap();
        redis.release();
        assert_eq!(group.stats().idle, 1);
        drop(group);
        close_and_check(pool).await;
    }

    async fn a_command_whose_caller_left_is_nobody_elses_wait(backend) {
        let Some(server) = server("").await else { return };
        let pool = pool(backend, |_| ());
        let group = pool.group(app(server.address, 0));
        for release in [false, true] {
            let mut redis = group.checkout().await.unwrap();
            let mut wait = redis::cmd("BLPOP");
            let wait = wait.arg("nothing").arg(0).query_async::<()>(&mut *redis);
            assert!(timeout(Duration::from_millis(50), wait).await.is_err(), "it waits for ever");
            if release { redis.release() } else { drop(redis) }
        }
        let mut redis = group.checkout().await.unwrap();
        // At once: it is not behind the BLPOP.
        timeout(Duration::from_secs(5), ping(&mut redis)).await.expect("another connection");
        assert_eq!(group.stats().opened, 3);
        eventually("one was dropped, one released", || {
            let ended = [CloseReason::Dirty, CloseReason::Unusable];
            ended.map(|reason| group.stats().closed_for(reason)) == [1, 1]
        }).await;
        // And the server knows it.
        let deadline = Instant::now() + Duration::from_secs(5);
        while clients(&redis).await > 1 {
            assert!(Instant::now() < deadline, "the server has clients that the pool has closed");
            sleep(Duration::from_millis(5)).await;
        }
        drop((redis, group));
        close_and_check(pool).await;
    }

    async fn what_takes_a_connection_of_ones_own_is_refused_on_a_shared_one(backend) {
        let Some(server) = server("").await else { return };
        let pool = pool(backend, |_| ());
        let streams = pool.streams(app(server.address, 0));
        let lease = streams.lease().await.unwrap();
        let mut redis: &Redis = &lease;
        for command in ["SELECT 1", "watch key", "MULTI", "BLPOP list 0", "XREAD STREAMS s $"] {
            let mut words = command.split(' ');
            let mut cmd = redis::cmd(words.next().unwrap());
            cmd.arg(words.collect::<Vec<_>>());
            let error = cmd.query_async::<()>(&mut redis).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Client, "{command}: {error}");
            let mut pipe = redis::pipe();
            pipe.set("key", 0).add_command(cmd);
            let error = pipe.query_async::<()>(&mut redis).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Client, "{command}: {error}");
        }
        // Nothing of it was sent; a transaction in one message is.
        let mut pipe = redis::pipe();
        pipe.atomic().incr("key", 1).incr("key", 1);
        assert_eq!(pipe.query_async::<(u32, u32)>(&mut redis).await.unwrap(), (1, 2));
        drop((lease, streams));
        close_and_check(pool).await;
    }

    async fn a_server_that_hangs_is_found_by_pings(backend) {
        let Some(server) = server("").await else { return };
        let pool = pool(backend, |policy| {
            policy.health.ping_interval_ms = Some(250);
            policy.health.ping_timeout_ms = 250;
            policy.health.ping_max_failures = 1;
        });
        let group = pool.group(app(server.address, 0));
        drop(group.checkout().await.unwrap());
        // In use throughout, so nobody pings it.
        let mut other = pool.group(server.address).checkout().await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let mut info = redis::cmd("INFO");
            let stats = info.arg("commandstats").query_async::<String>(&mut *other);
            if stats.await.unwrap().contains("cmdstat_ping:") {
                break;
            }
            assert!(Instant::now() < deadline, "no ping within 5 s");
            sleep(Duration::from_millis(5)).await;
        }
        eventually("it was answered", || group.stats().idle == 1).await;
        let process = Pid::from_raw(server.id().expect("it runs") as i32);
        kill(process, Signal::SIGSTOP).unwrap();
        eventually("it is closed", || {
            group.stats().closed_for(CloseReason::PingFailed) == 1
        }).await;
        kill(process, Signal::SIGCONT).unwrap();
        ping(&mut group.checkout().await.unwrap()).await;
        assert_eq!(group.stats().opened, 2);
        drop((other, group));
        close_and_check(pool).await;
    }

    async fn a_server_that_hangs_keeps_no_socket(backend) {
        let Some(server) = server("").await else { return };
        let pool = pool(backend, |_| ());
        let group = pool.group(app(server.address, 0));
        let mut redis = group.checkout().await.unwrap();
        let process = Pid::from_raw(server.id().expect("it runs") as i32);
        kill(process, Signal::SIGSTOP).unwrap();
        // More than the sockets' buffers take.
        let value = vec![0; 32 << 20];
        let set = redis.set::<_, _, ()>("key", value);
        assert!(timeout(Duration::from_millis(50), set).await.is_err(), "it cannot be answered");
        assert_eq!(established(server.address), 1);
        drop(redis);
        eventually("it is closed", || established(server.address) == 0).await;
        drop(group);
        close_and_check(pool).await;
    }

    async fn a_connection_whose_server_has_gone_says_so(backend) {
        let Some(server) = server("").await else { return };
        let pool = pool(backend, |_| ());
        let group = pool.group(app(server.address, 0));
        let mut redis = group.checkout().await.unwrap();
        ping(&mut redis).await;
        assert_eq!(redis.inspect(Inspect::Glance), Condition::Usable);
        server.stop().await.unwrap();
        eventually("it knows", || redis.inspect(Inspect::Glance) == Condition::Closed).await;
        redis.release();
        eventually("closed", || group.stats().closed_for(CloseReason::PeerClosed) == 1).await;
        drop(group);
        close_and_check(pool).await;
    }
}
