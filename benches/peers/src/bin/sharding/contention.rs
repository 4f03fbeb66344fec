//! What a checkout and a return cost as more threads want the same endpoint.

mod candidates;

use std::{
    fmt::Write,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use corepool_peers::report;
use nix::time::{ClockId, clock_gettime};

use self::candidates::{Candidate, all};

/// What one candidate costs with so many threads: medians.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub candidate: &'static str,
    pub threads: usize,
    /// Nanoseconds of a core for a pair: the wall clock's, times the cores that the threads can
    /// fill, over the pairs of all of them. A flat line scales.
    pub core_ns: f64,
    /// Nanoseconds of CPU time for a pair: without the time in which nobody ran.
    cpu_ns: f64,
    /// Million pairs a second, all threads together.
    rate: f64,
}

/// What one thread did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    pairs: u64,
    cpu: Duration,
    wall: Duration,
}

/// How the threads of one measurement begin and end together.
#[derive(Debug)]
pub struct Race {
    start: Barrier,
    stop: AtomicBool,
}

/// Pairs between two looks at the word that ends the race.
const BETWEEN: u64 = 64;

impl Race {
    /// Repeats a pair until the race is over.
    pub fn run(&self, mut pair: impl FnMut()) -> Done {
        self.start.wait();
        let (began, cpu) = (Instant::now(), cpu_time());
        let mut pairs = 0;
        // Relaxed: it guards nothing.
        while !self.stop.load(Ordering::Relaxed) {
            (0..BETWEEN).for_each(|_| pair());
            pairs += BETWEEN;
        }
        Done { pairs, cpu: cpu_time() - cpu, wall: began.elapsed() }
    }
}

fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("every thread has this clock");
    now.into()
}

/// The threads of the curve.
const THREADS: [usize; 8] = [1, 2, 3, 4, 6, 8, 12, 16];

pub fn run(quick: bool) -> Vec<Outcome> {
    let (repetitions, window) = match quick {
        true => (1, Duration::from_millis(30)),
        false => (9, Duration::from_millis(150)),
    };
    let mut outcomes = Vec::new();
    for threads in THREADS {
        let candidates = all(threads);
        let mut samples = vec![Vec::new(); candidates.len()];
        for _ in 0..repetitions {
            for (candidate, samples) in candidates.iter().zip(&mut samples) {
                samples.push(measure(&**candidate, threads, window));
            }
        }
        for (candidate, samples) in candidates.iter().zip(samples) {
            outcomes.push(Outcome::of(candidate.name(), threads, &samples));
        }
    }
    outcomes
}

fn measure(candidate: &dyn Candidate, threads: usize, window: Duration) -> Done {
    let race = Arc::new(Race { start: Barrier::new(threads + 1), stop: AtomicBool::new(false) });
    thread::scope(|scope| {
        let timer = Arc::clone(&race);
        scope.spawn(move || {
            timer.start.wait();
            thread::sleep(window);
            timer.stop.store(true, Ordering::Relaxed);
        });
        let done = candidate.run(&race, threads);
        Done {
            pairs: done.iter().map(|done| done.pairs).sum(),
            cpu: done.iter().map(|done| done.cpu).sum(),
            wall: done.iter().map(|done| done.wall).max().unwrap_or_default(),
        }
    })
}

impl Outcome {
    fn of(candidate: &'static str, threads: usize, samples: &[Done]) -> Self {
        let busy = threads.min(report::cores()) as f64;
        let median =
            |of: &dyn Fn(&Done) -> f64| report::median(&samples.iter().map(of).collect::<Vec<_>>());
        let each = |time: Duration, done: &Done| time.as_nanos() as f64 / done.pairs.max(1) as f64;
        Self {
            candidate,
            threads,
            core_ns: median(&|done| busy * each(done.wall, done)),
            cpu_ns: median(&|done| each(done.cpu, done)),
            rate: median(&|done| done.pairs as f64 / done.wall.as_secs_f64() / 1e6),
        }
    }
}

pub fn table(outcomes: &[Outcome]) -> String {
    let cores = report::cores();
    let mut text = format!(
        "## Contention on one hot endpoint (real threads)\n\n\
         One checkout and return after the other on every thread, two connections for each thread. \
         ns of a core: the wall clock's time, times the cores that the threads can fill (at most \
         {cores}), over all pairs; a candidate that scales keeps it. ns of CPU: what the scheduler \
         charged, without the time in which nobody ran. **More than {cores} threads share the \
         {cores} cores by time slices.** Medians of repetitions that alternate between the \
         candidates.\n\n| candidate | threads | ns of a core | against 1 thread | ns of CPU | \
         million pairs/s |\n|---|---|---|---|---|---|\n"
    );
    for name in names(outcomes) {
        let mut alone = f64::NAN;
        for Outcome { threads, core_ns, cpu_ns, rate, .. } in
            outcomes.iter().filter(|outcome| outcome.candidate == name)
        {
            if *threads == 1 {
                alone = *core_ns;
            }
            let _ = writeln!(
                text,
                "| {name} | {threads} | {core_ns:.0} | {:.2} × | {cpu_ns:.0} | {rate:.2} |",
                core_ns / alone
            );
        }
    }
    text.push('\n');
    text
}

/// The candidates, in the order in which they ran.
pub fn names(outcomes: &[Outcome]) -> Vec<&'static str> {
    let mut names = Vec::new();
    for outcome in outcomes {
        if !names.contains(&outcome.candidate) {
            names.push(outcome.candidate);
        }
    }
    names
}
