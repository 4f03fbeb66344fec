//! The example proxy from outside: a child process between scripted peers, on each backend.

/// Each test once with io_uring, where it can be had, and once with epoll.
macro_rules! on_each_backend {
    ($($test:ident,)*) => {
        mod io_uring {
            $(#[tokio::test]
            async fn $test() {
                if crate::support::can_have("io-uring").await {
                    super::$test("io-uring").await;
                }
            })*
        }
        mod epoll {
            $(#[tokio::test]
            async fn $test() {
                super::$test("epoll").await;
            })*
        }
    };
}

// After the macro, which they use.
#[path = "proxy/breaker.rs"]
mod breaker;
#[path = "proxy/exchange.rs"]
mod exchange;
#[path = "proxy/failures.rs"]
mod failures;
#[path = "proxy/http2.rs"]
mod http2;
#[path = "proxy/limits.rs"]
mod limits;
#[path = "proxy/load.rs"]
mod load;
#[path = "support/tls.rs"]
mod peers;
#[path = "proxy/process.rs"]
mod process;
#[path = "proxy/settings.rs"]
mod settings;
#[path = "support/proxy.rs"]
mod support;
#[path = "proxy/tls_clients.rs"]
mod tls_clients;
#[path = "proxy/tls_origins.rs"]
mod tls_origins;
#[path = "proxy/web.rs"]
mod web;
