//! What is measured of a sample, on the client's side.

use core::{fmt, str::FromStr, time::Duration};
use std::{net::SocketAddr, time::Instant};

use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike,
};

/// What a sample does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) to: SocketAddr,
    /// Connections opened at once; when all are open, all are closed.
    pub(crate) batch: usize,
    /// Connections in all, after the warm-up.
    pub(crate) connections: usize,
    /// Whether a round begins only once the connections of the last are closed, so that its time is
    /// that of its dials alone. corepool closes them along with the next dials otherwise.
    pub(crate) apart: bool,
}

impl Plan {
    fn rounds(self) -> usize {
        self.connections.div_ceil(self.batch)
    }

    /// Rounds that are not measured: allocators, tables and the acceptor warm up.
    fn warm_up(self) -> usize {
        self.rounds().div_ceil(8)
    }
}

/// What a sample found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) connections: usize,
    pub(crate) wall: Duration,
    /// User and system time of the whole process, all threads.
    pub(crate) cpu: Duration,
    /// From the first dial of a round to its last success.
    pub(crate) open_p50: Duration,
    pub(crate) open_p99: Duration,
}

impl Sample {
    pub(crate) fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.connections as f64
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.connections as f64 / self.wall.as_secs_f64()
    }
}

/// Measures rounds, each of which it has told when its connections were open.
#[derive(Debug)]
pub(crate) struct Meter {
    plan: Plan,
    done: usize,
    round_began: Instant,
    began: Instant,
    cpu: Duration,
    opens: Vec<Duration>,
}

impl Meter {
    pub(crate) fn new(plan: Plan) -> Self {
        let now = Instant::now();
        let opens = Vec::with_capacity(plan.rounds());
        Self { plan, done: 0, round_began: now, began: now, cpu: Duration::ZERO, opens }
    }

    /// Whether there is another round to do, which begins now.
    pub(crate) fn another(&mut self) -> bool {
        let (warm_up, rounds) = (self.plan.warm_up(), self.plan.rounds());
        if self.done == warm_up {
            (self.began, self.cpu) = (Instant::now(), cpu_time());
        }
        self.done += 1;
        self.round_began = Instant::now();
        self.done <= warm_up + rounds
    }

    /// All connections of the round are open.
    pub(crate) fn open(&mut self) {
        if self.done > self.plan.warm_up() {
            self.opens.push(self.round_began.elapsed());
        }
    }

    /// All connections are closed.
    pub(crate) fn finish(mut self) -> Sample {
        let (cpu, wall) = (cpu_time() - self.cpu, self.began.elapsed());
        self.opens.sort_unstable();
        let at = |share: f64| self.opens[((self.opens.len() - 1) as f64 * share) as usize];
        Sample {
            connections: self.plan.rounds() * self.plan.batch,
            wall,
            cpu,
            open_p50: at(0.5),
            open_p99: at(0.99),
        }
    }
}

fn cpu_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("a process may ask for its own usage");
    let time = usage.user_time() + usage.system_time();
    Duration::from_micros(time.num_microseconds() as u64)
}

/// A line of numbers, for the process that asked.
impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.connections)?;
        for time in [self.wall, self.cpu, self.open_p50, self.open_p99] {
            write!(f, " {}", time.as_nanos())?;
        }
        Ok(())
    }
}

impl FromStr for Sample {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let numbers: Option<Vec<u64>> =
            line.split_whitespace().map(|number| number.parse().ok()).collect();
        let Some([connections, wall, cpu, open_p50, open_p99]) = numbers.as_deref() else {
            return Err(format!("no sample: {line}"));
        };
        Ok(Self {
            connections: *connections as usize,
            wall: Duration::from_nanos(*wall),
            cpu: Duration::from_nanos(*cpu),
            open_p50: Duration::from_nanos(*open_p50),
            open_p99: Duration::from_nanos(*open_p99),
        })
    }
}
