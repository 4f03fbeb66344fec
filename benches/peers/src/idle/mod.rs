//! What a connection at rest costs the process that keeps it. Each measurement is a process of its
//! own, which opens its connections, lets everything settle, and looks at itself.

use std::{
    any::Any,
    env, fs,
    io::Read,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tokio::runtime::{Builder, Handle};

use crate::memory::snapshot;

mod bare;
mod corepool;
mod hyper;
mod pingora;

/// Connections are spread over so many addresses: one has too few ports for all.
pub const KEYS: usize = 100;

/// Says in the environment of a process what it is to measure.
const ROLE: &str = "COREPOOL_BENCH_CLIENT";

/// Longer than the measurement looks.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);

/// How long the processor time of connections at rest is looked at.
const LOOK: Duration = Duration::from_secs(4);

/// Who keeps connections.
#[derive(Clone, Copy)]
pub struct Keeper {
    pub name: &'static str,
    /// Timers for so many connections, by its source: no runtime tells how many it has.
    pub timers: &'static str,
    open: fn(Load) -> Opening,
}

/// What is to be opened.
#[derive(Clone, Copy)]
pub struct Load {
    /// At each of [`KEYS`] addresses.
    of_each: usize,
    port: u16,
}

impl Load {
    fn count(self) -> usize {
        KEYS * self.of_each
    }

    fn address(self, key: usize) -> std::net::SocketAddr {
        crate::origin::address(key, self.port)
    }
}

type Opening = std::pin::Pin<Box<dyn Future<Output = Kept>>>;

/// Connections at rest.
struct Kept {
    /// What keeps them.
    _keeper: Box<dyn Any>,
    /// Where its tasks run, if not where it was opened.
    runtimes: Vec<Handle>,
}

/// What a process found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Finding {
    /// Connections there were.
    pub connections: f64,
    /// Of all, as the allocator was asked.
    pub bytes: f64,
    pub blocks: f64,
    pub resident: f64,
    pub tasks: f64,
    /// Of all threads, at rest, in nanoseconds a second.
    pub cpu: f64,
}

/// All keepers.
pub const KEEPERS: [Keeper; 6] =
    [bare::TOKIO, corepool::RAW, corepool::TCP, corepool::HTTP1, pingora::CORE, hyper::LEGACY];

/// A process that measures.
pub struct Measuring(Child);

impl Keeper {
    /// Starts a process that keeps about so many connections.
    pub fn start(&self, count: usize, port: u16) -> Measuring {
        let child = Command::new(env::current_exe().expect("our own path"))
            .env(ROLE, format!("{} {} {port}", self.name, count.div_ceil(KEYS)))
            .stdout(Stdio::piped())
            .spawn();
        Measuring(child.expect("a process"))
    }

    async fn measure(&self, load: Load) -> Finding {
        let (before, others) = (snapshot(), sockets());
        let here = Handle::current();
        let kept = (self.open)(load).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let after = snapshot();
        let on_runtimes: usize =
            kept.runtimes.iter().chain([&here]).map(|one| one.metrics().num_alive_tasks()).sum();
        // A runtime and a ring have a socket or two of their own.
        let connections = (sockets() - others).min(load.count());
        let started = (Instant::now(), cpu());
        tokio::time::sleep(LOOK).await;
        Finding {
            connections: connections as f64,
            bytes: (after.bytes - before.bytes) as f64,
            blocks: (after.blocks - before.blocks) as f64,
            resident: (after.resident - before.resident) as f64,
            tasks: on_runtimes as f64,
            cpu: (cpu() - started.1) as f64 / started.0.elapsed().as_secs_f64(),
        }
    }
}

impl Measuring {
    /// Waits for what it found.
    pub fn finding(mut self) -> Finding {
        let mut said = String::new();
        let _ = self.0.stdout.take().expect("it is piped").read_to_string(&mut said);
        let _ = self.0.wait();
        let numbers: Vec<f64> =
            said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [connections, bytes, blocks, resident, tasks, cpu] = numbers[..] else {
            panic!("the process found nothing: {said}");
        };
        Finding { connections, bytes, blocks, resident, tasks, cpu }
    }
}

impl Finding {
    /// Two processes as one.
    pub fn plus(self, other: Self) -> Self {
        Self {
            connections: self.connections + other.connections,
            bytes: self.bytes + other.bytes,
            blocks: self.blocks + other.blocks,
            resident: self.resident + other.resident,
            tasks: self.tasks + other.tasks,
            cpu: self.cpu + other.cpu,
        }
    }
}

/// Measures if this process is to, and does not return then. Call it early in `main`.
pub fn measure_if_client() {
    let Ok(role) = env::var(ROLE) else {
        return;
    };
    let mut words = role.split(' ');
    let name = words.next().expect("a name");
    let mut number = || words.next().and_then(|word| word.parse::<usize>().ok()).expect("a number");
    let load = Load { of_each: number(), port: number() as u16 };
    let keeper = KEEPERS.iter().find(|keeper| keeper.name == name).expect("one of ours");
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let found = runtime.block_on(keeper.measure(load));
    let Finding { connections, bytes, blocks, resident, tasks, cpu } = found;
    println!("{connections} {bytes} {blocks} {resident} {tasks} {cpu}");
    std::process::exit(0);
}

/// Sockets that the process has.
fn sockets() -> usize {
    let links = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let targets = links.filter_map(|link| fs::read_link(link.path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}

/// Processor time of all threads so far, in nanoseconds, as the scheduler counts it.
fn cpu() -> u64 {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let times = threads.filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    times.sum()
}
