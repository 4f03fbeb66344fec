//! Threads with a current_thread runtime each, as a proxy that shares nothing has them.

use std::thread::{self, JoinHandle};

use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};

/// Threads that run what is spawned on their runtimes. Dropping it ends those that it started.
pub struct Crew {
    handles: Vec<Handle>,
    own: Vec<Member>,
}

struct Member {
    /// Its drop ends the thread.
    stay: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Crew {
    /// So many threads of its own. None is pinned, as no shard is in these benches: on a machine
    /// that does something else too, a pinned thread measures the neighbour.
    pub fn of(threads: usize) -> Self {
        let mut crew = Self { handles: Vec::new(), own: Vec::new() };
        for _ in 0..threads {
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
            crew.handles.push(runtime.handle().clone());
            let (stay, end) = oneshot::channel::<()>();
            let thread = thread::spawn(move || {
                let _ = runtime.block_on(end);
            });
            crew.own.push(Member { stay: Some(stay), thread: Some(thread) });
        }
        crew
    }

    /// Threads that somebody else keeps: a pool's shards.
    pub fn of_others(handles: Vec<Handle>) -> Self {
        Self { handles, own: Vec::new() }
    }

    /// The runtimes, one a thread.
    pub fn handles(&self) -> &[Handle] {
        &self.handles
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for member in &mut self.own {
            drop(member.stay.take());
        }
        for member in &mut self.own {
            if let Some(thread) = member.thread.take() {
                let _ = thread.join();
            }
        }
    }
}
