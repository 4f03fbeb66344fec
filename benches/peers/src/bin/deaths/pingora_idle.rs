//! Pingora's pool, with an idle task for each connection, as `pingora-core` 0.9 uses it
//! (`connectors/mod.rs`: `reused_stream`, `release_stream`).

use std::{
    os::fd::{AsRawFd, BorrowedFd},
    sync::Arc,
    time::Duration,
};

use pingora_pool::{ConnectionMeta, ConnectionPool};
use tokio::{
    io::AsyncReadExt,
    sync::{Mutex, Semaphore},
    task::unconstrained,
};

use crate::{
    load::{CALLERS, Idle, call},
    noted::Noted,
    run::{Candidate, Failure, Stage},
};

/// With or without the read of one byte that `pingora-core` tries before it reuses a connection,
/// and before it puts one back.
#[derive(Clone, Copy, Debug)]
pub struct Pingora {
    pub reads: bool,
}

struct Connections {
    pool: Arc<ConnectionPool<Arc<Mutex<Noted>>>>,
    reads: bool,
}

const KEY: u64 = 1;
/// The examples' own.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Dials at once, so that the origin's backlog does not overflow.
pub const DIALS: usize = 256;

/// Whether nothing can be read. As there, outside the scheduler's budget.
async fn is_quiet(stream: &mut Noted) -> bool {
    let mut byte = [0; 1];
    let read = unconstrained(stream.read(&mut byte));
    tokio::select! {
        biased;
        _ = read => false,
        () = std::future::ready(()) => true,
    }
}

impl Idle for Connections {
    type Conn = Noted;

    async fn check_out(&self) -> Option<Noted> {
        loop {
            let stream = self.pool.get(&KEY)?;
            // Until the idle task has let go of it.
            drop(stream.lock().await);
            if let Some(stream) = Arc::into_inner(stream) {
                let mut stream = stream.into_inner();
                if !self.reads || is_quiet(&mut stream).await {
                    return Some(stream);
                }
            }
        }
    }

    fn release(&self, conn: Noted) {
        let meta = ConnectionMeta::new(KEY, conn.fd().as_raw_fd());
        let stream = Arc::new(Mutex::new(conn));
        let Ok(locked) = Arc::clone(&stream).try_lock_owned() else {
            return;
        };
        let (evicted, taken) = self.pool.put(&meta, stream);
        let pool = Arc::clone(&self.pool);
        tokio::spawn(async move {
            pool.idle_poll(locked, &meta, Some(IDLE_TIMEOUT), evicted, taken).await;
        });
    }

    fn discard(&self, conn: Noted) {
        drop(conn);
    }

    fn socket(conn: &Noted) -> (BorrowedFd<'_>, u16) {
        (conn.fd(), conn.port)
    }
}

impl Candidate for Pingora {
    fn run(&self, stage: &mut Stage) -> Result<(), Failure> {
        let idle = Arc::new(Connections {
            pool: Arc::new(ConnectionPool::new(2 * stage.count)),
            reads: self.reads,
        });
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build()?;
        runtime.block_on(async {
            let dials = Arc::new(Semaphore::new(DIALS));
            let opened: Vec<_> = (0..stage.count)
                .map(|_| {
                    let (dials, to) = (Arc::clone(&dials), stage.origin.address);
                    let book = Arc::clone(&stage.book);
                    tokio::spawn(async move {
                        let _dial = dials.acquire_owned().await.expect("nobody closes it");
                        Noted::connect(to, book).await
                    })
                })
                .collect();
            for conn in opened {
                idle.release(conn.await??);
            }
            stage.origin.accepted()?;
            let callers = stage.callers();
            let tasks: Vec<_> = (0..2 * CALLERS)
                .map(|_| tokio::spawn(call(Arc::clone(&idle), callers.clone(), stage.pace)))
                .collect();
            stage.close()?;
            for task in tasks {
                task.await?;
            }
            Ok(())
        })
    }

    fn name(&self) -> String {
        let reads = if self.reads { ", reads before reuse" } else { "" };
        format!("pingora-pool, idle task{reads}")
    }
}
