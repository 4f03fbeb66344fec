//! Who is measured. Each opens a round of connections, tells the meter, and closes them.
//!
//! All set `TCP_NODELAY`, as every proxy does and corepool does by default. All dial a batch as a
//! proxy would: by a task for each connection; a batch of one is dialled by the task itself.

mod pool;
mod runtimes;

use corepool::Backend;

use crate::meter::{Meter, Plan, Sample};

/// A way to open and close connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    pub(crate) name: &'static str,
    measure: fn(Plan) -> Sample,
}

/// What the others are compared with.
pub(crate) const REFERENCE: &str = "tokio";

pub(crate) const ALL: [Candidate; 8] = [
    Candidate { name: REFERENCE, measure: runtimes::tokio },
    Candidate { name: "corepool io_uring, raw", measure: |plan| pool::raw(plan, Backend::IoUring) },
    Candidate { name: "corepool epoll, raw", measure: |plan| pool::raw(plan, Backend::Epoll) },
    Candidate { name: "corepool io_uring, tcp", measure: |plan| pool::tcp(plan, Backend::IoUring) },
    Candidate { name: "corepool epoll, tcp", measure: |plan| pool::tcp(plan, Backend::Epoll) },
    Candidate { name: "tokio-uring", measure: runtimes::tokio_uring },
    Candidate { name: "monoio", measure: runtimes::monoio },
    Candidate { name: "std, blocking", measure: runtimes::std },
];

impl Candidate {
    pub(crate) fn named(name: &str) -> Option<Self> {
        ALL.into_iter().find(|candidate| candidate.name == name)
    }

    /// Takes one sample in this process.
    pub(crate) fn measure(self, plan: Plan) -> Sample {
        (self.measure)(plan)
    }
}

/// The rounds of an asynchronous candidate: how it dials, starts a task, closes, and waits until all
/// is closed.
async fn rounds<T, D, S>(
    plan: Plan,
    dial: impl Fn() -> D,
    spawn: impl Fn(D) -> S,
    close: impl Fn(T),
    closed: impl AsyncFn(),
) -> Meter
where
    D: Future<Output = T>,
    S: Future<Output = T>,
{
    let mut meter = Meter::new(plan);
    let mut open = Vec::with_capacity(plan.batch);
    let mut tasks = Vec::with_capacity(plan.batch);
    while meter.another() {
        if plan.batch == 1 {
            open.push(dial().await);
        } else {
            tasks.extend((0..plan.batch).map(|_| spawn(dial())));
            for task in tasks.drain(..) {
                open.push(task.await);
            }
        }
        meter.open();
        open.drain(..).for_each(&close);
        if plan.apart {
            closed().await;
        }
    }
    closed().await;
    meter
}
