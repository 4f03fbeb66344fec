//! The runtimes on their own: no pool, no limits, no watch.

use crate::{
    candidates::rounds,
    meter::{Meter, Plan, Sample},
};

const NODELAY: &str = "a connected socket takes TCP_NODELAY";
const CONNECTION: &str = "the acceptor lives";
const TASK: &str = "a dial does not panic";

/// Of those whose drop is a close(2).
async fn at_once() {}

/// tokio's `current_thread`: what a proxy without a pool would do.
pub(super) fn tokio(plan: Plan) -> Sample {
    let dial = move || async move {
        let stream = tokio::net::TcpStream::connect(plan.to).await.expect(CONNECTION);
        stream.set_nodelay(true).expect(NODELAY);
        stream
    };
    let spawn = |dial| {
        let task = tokio::spawn(dial);
        async move { task.await.expect(TASK) }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    // In a task of its own, as in a proxy: the runtime polls the future of `block_on` differently.
    let task =
        async move { tokio::spawn(rounds(plan, dial, spawn, drop, at_once)).await.expect(TASK) };
    runtime.expect("a runtime").block_on(task).finish()
}

/// tokio-uring. Without the flag each completion interrupts the thread's `epoll_wait`.
pub(super) fn tokio_uring(plan: Plan) -> Sample {
    let dial = move || async move {
        let stream = tokio_uring::net::TcpStream::connect(plan.to).await.expect(CONNECTION);
        stream.set_nodelay(true).expect(NODELAY);
        stream
    };
    let spawn = |dial| {
        let task = tokio_uring::spawn(dial);
        async move { task.await.expect(TASK) }
    };
    let mut ring = tokio_uring::uring_builder();
    ring.setup_coop_taskrun();
    let mut builder = tokio_uring::builder();
    builder.entries(1024).uring_builder(&ring);
    builder.start(async move {
        // A stream that is dropped is closed by the ring.
        rounds(plan, dial, spawn, drop, tokio::task::yield_now).await.finish()
    })
}

/// monoio on its io_uring driver.
pub(super) fn monoio(plan: Plan) -> Sample {
    let dial = move || async move {
        let stream = monoio::net::TcpStream::connect_addr(plan.to).await.expect(CONNECTION);
        stream.set_nodelay(true).expect(NODELAY);
        stream
    };
    let runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().with_entries(1024).build();
    let rounds = rounds(plan, dial, monoio::spawn, drop, at_once);
    runtime.expect("a runtime").block_on(rounds).finish()
}

/// A blocking socket at a time: the floor of what the kernel itself takes for one by one.
pub(super) fn std(plan: Plan) -> Sample {
    let mut meter = Meter::new(plan);
    let mut open = Vec::with_capacity(plan.batch);
    while meter.another() {
        for _ in 0..plan.batch {
            let stream = std::net::TcpStream::connect(plan.to).expect(CONNECTION);
            stream.set_nodelay(true).expect(NODELAY);
            open.push(stream);
        }
        meter.open();
        open.clear();
    }
    meter.finish()
}
