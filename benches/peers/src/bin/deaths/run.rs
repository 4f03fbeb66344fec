//! One candidate on the stage: connections up, load on, origin closing, all noted.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{
    book::Book,
    child::{Fin, Origin},
    clock::now,
    load::{Callers, Pace},
    measure::Measured,
};

pub type Failure = Box<dyn std::error::Error>;

/// A pool that keeps idle connections.
pub trait Candidate {
    fn name(&self) -> String;

    /// Opens all connections, waits until the origin has them, starts the callers, has the stage
    /// close, and waits for the callers.
    ///
    /// # Errors
    /// When not all connections can be had.
    fn run(&self, stage: &mut Stage) -> Result<(), Failure>;
}

/// What a candidate runs on.
#[derive(Debug)]
pub struct Stage {
    pub origin: Origin,
    pub book: Arc<Book>,
    pub count: usize,
    pub pace: Pace,
    stop: Arc<AtomicBool>,
    seed: u64,
    over: Duration,
    /// What the closes came to: when, how many checkouts a second, the end of the wait.
    closes: Option<Closes>,
}

#[derive(Debug)]
struct Closes {
    fins: HashMap<u16, Fin>,
    checkouts_per_second: f64,
    end: u64,
}

/// How long the pool has, after the last close, to notice.
const GRACE: Duration = Duration::from_secs(1);

impl Stage {
    /// What the callers need.
    pub fn callers(&self) -> Callers {
        Callers { book: Arc::clone(&self.book), stop: Arc::clone(&self.stop) }
    }

    /// Has the origin close all connections, waits until the pool should know, and stops the
    /// callers. Blocks.
    ///
    /// # Errors
    /// When the origin fails.
    pub fn close(&mut self) -> Result<(), Failure> {
        // The callers are at work by then.
        thread::sleep(Duration::from_millis(100));
        let (began, before) = (now(), self.book.checkouts());
        self.origin.close(self.seed, self.over)?;
        let fins = self.origin.fins(self.count)?;
        let took = (now() - began) as f64 / 1e9;
        let checkouts_per_second = (self.book.checkouts() - before) as f64 / took;
        thread::sleep(GRACE);
        self.stop.store(true, Ordering::Relaxed);
        self.closes = Some(Closes { fins, checkouts_per_second, end: now() });
        Ok(())
    }
}

/// How large a scenario is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub count: usize,
    pub over: Duration,
}

/// Runs a candidate once. `host` is the origin's address: one of its own for each run, so that no
/// run meets the `TIME_WAIT`s of another.
///
/// # Errors
/// When connections or processes cannot be had.
pub fn run(
    candidate: &dyn Candidate,
    pace: Pace,
    size: Size,
    host: &str,
    seed: u64,
) -> Result<Measured, Failure> {
    let mut stage = Stage {
        origin: Origin::start(host, size.count)?,
        book: Arc::default(),
        count: size.count,
        pace,
        stop: Arc::default(),
        seed,
        over: size.over,
        closes: None,
    };
    candidate.run(&mut stage)?;
    let Closes { fins, checkouts_per_second, end } = stage.closes.take().ok_or("nothing closed")?;
    Ok(Measured::of(&stage.book, &fins, pace, end, checkouts_per_second))
}
