//! A connector whose handshake a test lets through, delays or fails, and counts.
#![allow(dead_code, unreachable_pub)] // each test file uses its part

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use corepool::{BoxError, Connector, Endpoint, Socket, Tcp, TcpConnector};

/// Handles share the gate: one goes into the pool, the test keeps another.
#[derive(Clone, Default)]
pub struct Gate(Arc<State>);

#[derive(Default)]
struct State {
    shut: AtomicBool,
    failing: AtomicBool,
    delay_ms: AtomicU64,
    begun: AtomicUsize,
    under_way: AtomicUsize,
    most: AtomicUsize,
}

impl Gate {
    /// One that holds every handshake until it is opened.
    pub fn shut() -> Self {
        let gate = Self::default();
        gate.0.shut.store(true, SeqCst);
        gate
    }

    /// One that fails every handshake.
    pub fn failing() -> Self {
        let gate = Self::default();
        gate.fail(true);
        gate
    }

    pub fn open(&self) {
        self.0.shut.store(false, SeqCst);
    }

    pub fn close(&self) {
        self.0.shut.store(true, SeqCst);
    }

    /// Whether handshakes fail that end from now on.
    pub fn fail(&self, failing: bool) {
        self.0.failing.store(failing, SeqCst);
    }

    /// How long handshakes take that begin from now on.
    pub fn delay(&self, delay: Duration) {
        self.0.delay_ms.store(delay.as_millis() as u64, SeqCst);
    }

    /// Handshakes so far.
    pub fn begun(&self) -> usize {
        self.0.begun.load(SeqCst)
    }

    /// The most handshakes that were under way at once.
    pub fn most_at_once(&self) -> usize {
        self.0.most.load(SeqCst)
    }
}

/// Counts a handshake out again, however it ends.
struct UnderWay<'a>(&'a State);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, SeqCst);
    }
}

impl Connector for Gate {
    type Connection = Tcp;

    async fn connect(&self, socket: Socket, endpoint: &Endpoint) -> Result<Tcp, BoxError> {
        let state = &*self.0;
        state.begun.fetch_add(1, SeqCst);
        state.most.fetch_max(state.under_way.fetch_add(1, SeqCst) + 1, SeqCst);
        let _counted = UnderWay(state);
        tokio::time::sleep(Duration::from_millis(state.delay_ms.load(SeqCst))).await;
        while state.shut.load(SeqCst) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if state.failing.load(SeqCst) {
            return Err("the gate fails it".into());
        }
        TcpConnector.connect(socket, endpoint).await
    }
}
