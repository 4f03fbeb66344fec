//! What networks, origins and limits do to a pool, over real sockets and on both drivers.
//!
//! Each case runs in a process and in network namespaces of its own, so it needs root (or
//! CAP_SYS_ADMIN) and iproute2, nftables and strace. `COREPOOL_TEST_NO_NETNS=1` leaves them all out.
//! After each: every caller was answered in its time, opened = closed, no slot in use, nobody
//! waits, and as many descriptors are open as before there was a pool.
#![cfg(target_os = "linux")]

mod support;

#[path = "support/callers.rs"]
mod callers;
#[path = "faults/limits.rs"]
mod limits;
#[path = "faults/load.rs"]
mod load;
#[path = "faults/network.rs"]
mod network;
#[path = "faults/origin.rs"]
mod origin;
#[path = "faults/origins.rs"]
mod origins;
#[path = "support/peers.rs"]
mod peers;
#[path = "faults/ring.rs"]
mod ring;
#[path = "faults/stage.rs"]
mod stage;

/// Writes a case once and runs it on both drivers, or, where it says so, on one.
#[macro_export]
macro_rules! faults {
    ($($(#[doc = $doc:literal])* async fn $name:ident($stage:ident) $body:block)*) => {$(
        $(#[doc = $doc])*
        mod $name {
            use super::*;

            async fn case(mut $stage: $crate::stage::Stage) $body

            #[test]
            fn io_uring() {
                $crate::stage::play(module_path!(), corepool::Backend::IoUring, $crate::stage::Under::Nothing, case);
            }

            #[test]
            fn epoll() {
                $crate::stage::play(module_path!(), corepool::Backend::Epoll, $crate::stage::Under::Nothing, case);
            }
        }
    )*};
}
