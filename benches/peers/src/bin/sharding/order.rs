//! FIFO against LIFO after a burst: what stays warm, for how long, and what the next burst finds.
//! Simulated: no noise.

use std::{cell::RefCell, collections::HashMap, fmt::Write, rc::Rc, time::Duration};

use corepool::{
    Group, Settings,
    settings::Order,
    sim::{Peer, Peers, SimConnector},
};
use tokio::{
    task::spawn_local,
    time::{Instant, interval, sleep, sleep_until},
};

use crate::model;

/// Requests of the base load a second, and how long each has its connection: 4 at once on average.
const PER_SECOND: f64 = 80.0;
const SERVICE: Duration = Duration::from_millis(50);
/// Requests that come at once on top, and how often.
const BURST: usize = 128;
const BURST_EVERY: Duration = Duration::from_secs(120);
const IDLE_TIMEOUT_MS: u32 = 60_000;
const RETENTION_MS: u32 = 30_000;
const SEED: u64 = 1;

/// One order, with or without the pool's shrinking by need.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    pub order: Order,
    pub retention: bool,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub choice: Choice,
    pub samples: Vec<Sample>,
    pub base: Served,
    /// The bursts after the first, which finds nothing anyway.
    pub bursts: Served,
}

/// The pool at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub second: u64,
    pub open: u32,
    /// For how long the connection has rested that has rested longest.
    pub oldest_idle_s: f64,
}

/// Who was served by what.
#[derive(Clone, Copy, Debug, Default)]
pub struct Served {
    requests: u64,
    reused: u64,
    rest: Duration,
}

impl Choice {
    const ALL: [Self; 4] = [
        Self { order: Order::Fifo, retention: false },
        Self { order: Order::Lifo, retention: false },
        Self { order: Order::Fifo, retention: true },
        Self { order: Order::Lifo, retention: true },
    ];

    pub fn name(self) -> String {
        let order = if self.order == Order::Lifo { "LIFO" } else { "FIFO" };
        let retention = if self.retention { "retention 30 s" } else { "no retention" };
        format!("{order}, {retention}")
    }
}

pub fn run(quick: bool) -> Vec<Outcome> {
    let length = Duration::from_secs(if quick { 150 } else { 600 });
    Choice::ALL.into_iter().map(|choice| simulate(choice, length)).collect()
}

/// What the scenario keeps of its own.
#[derive(Default)]
struct Book {
    /// Since when each connection rests.
    resting: HashMap<u64, Instant>,
    far_ends: HashMap<u64, Peer>,
    base: Served,
    bursts: Served,
}

fn simulate(choice: Choice, length: Duration) -> Outcome {
    let mut settings = Settings::default();
    settings.endpoint.capacity.order = choice.order;
    settings.endpoint.capacity.max_idle = 2 * BURST as u32;
    settings.endpoint.lifetime.idle_timeout_ms = IDLE_TIMEOUT_MS;
    settings.endpoint.lifetime.retention_period_ms = choice.retention.then_some(RETENTION_MS);
    model::play(settings, SEED, async |pool, peers| {
        let group = pool.group(model::address(0));
        let book = Rc::new(RefCell::new(Book::default()));
        spawn_local(take_in(peers, Rc::clone(&book)));
        let load = async {
            tokio::join!(
                base_load(&pool, &group, &book, length),
                bursts(&pool, &group, &book, length)
            );
        };
        let ((), samples) = tokio::join!(load, watch(&group, &book, length));
        let book = book.borrow();
        Outcome { choice, samples, base: book.base, bursts: book.bursts }
    })
}

/// Keeps the far ends, which tell when the pool's end is closed.
async fn take_in(mut peers: Peers, book: Rc<RefCell<Book>>) {
    while let Some(peer) = peers.next_or_end().await {
        book.borrow_mut().far_ends.insert(peer.id(), peer);
    }
}

async fn base_load(
    pool: &model::SimPool,
    group: &Group<SimConnector>,
    book: &Rc<RefCell<Book>>,
    length: Duration,
) {
    let mut random = fastrand::Rng::with_seed(SEED);
    let (began, mut next) = (Instant::now(), Instant::now());
    loop {
        next += model::gap(&mut random, PER_SECOND);
        if next - began >= length {
            return;
        }
        sleep_until(next).await;
        request(pool, group, book, |book| Some(&mut book.base));
    }
}

async fn bursts(
    pool: &model::SimPool,
    group: &Group<SimConnector>,
    book: &Rc<RefCell<Book>>,
    length: Duration,
) {
    let mut ticks = interval(BURST_EVERY);
    let began = Instant::now();
    loop {
        let first = ticks.tick().await == began;
        if began.elapsed() >= length {
            return;
        }
        for _ in 0..BURST {
            request(
                pool,
                group,
                book,
                if first { |_| None } else { |book| Some(&mut book.bursts) },
            );
        }
    }
}

fn request(
    pool: &model::SimPool,
    group: &Group<SimConnector>,
    book: &Rc<RefCell<Book>>,
    column: fn(&mut Book) -> Option<&mut Served>,
) {
    let (group, book) = (group.clone(), Rc::clone(book));
    model::spawn_at(pool, 0, async move {
        let conn = group.checkout().await.expect("nothing fails on this network");
        let id = conn.id();
        let rested = book.borrow_mut().resting.remove(&id).map(|since| since.elapsed());
        if let Some(served) = column(&mut book.borrow_mut()) {
            served.requests += 1;
            served.reused += u64::from(conn.is_reused());
            served.rest += rested.unwrap_or_default();
        }
        sleep(SERVICE).await;
        book.borrow_mut().resting.insert(id, Instant::now());
        conn.release();
    });
}

async fn watch(group: &Group<SimConnector>, book: &RefCell<Book>, length: Duration) -> Vec<Sample> {
    let mut samples = Vec::new();
    for second in 1..=length.as_secs() {
        sleep(Duration::from_secs(1)).await;
        let stats = group.stats();
        let Book { resting, far_ends, .. } = &mut *book.borrow_mut();
        far_ends.retain(|_, far_end| !far_end.is_closed());
        resting.retain(|id, _| far_ends.contains_key(id));
        let oldest = resting.values().map(Instant::elapsed).max().unwrap_or_default();
        let open = stats.idle + stats.in_use;
        samples.push(Sample { second, open, oldest_idle_s: oldest.as_secs_f64() });
    }
    samples
}

impl Served {
    fn reuse(&self) -> f64 {
        100.0 * self.reused as f64 / self.requests.max(1) as f64
    }

    fn mean_rest_s(&self) -> f64 {
        self.rest.as_secs_f64() / self.reused.max(1) as f64
    }
}

/// Seconds after the first burst at which the table has a column.
const COLUMNS: [u64; 4] = [10, 60, 90, 119];

pub fn table(outcomes: &[Outcome]) -> String {
    let mut text = format!(
        "## FIFO against LIFO after a burst (simulated, no noise)\n\n\
         One endpoint, one shard: {PER_SECOND:.0} requests a second of {} ms each, a Poisson \
         process, and every {} s another {BURST} at once. Idle timeout {} s. Open connections at \
         so many seconds after the first burst; the age is of the connection that has rested \
         longest, just before the next burst; the rest before a checkout is a mean over the base \
         load's. The second and later bursts' reuse is what the idle ones are kept for.\n\n\
         | order | open at {} s | {} s | {} s | {} s | oldest idle at {} s | rest before a checkout \
         | reuse, base load | reuse, later bursts |\n|---|---|---|---|---|---|---|---|---|\n",
        SERVICE.as_millis(),
        BURST_EVERY.as_secs(),
        IDLE_TIMEOUT_MS / 1000,
        COLUMNS[0],
        COLUMNS[1],
        COLUMNS[2],
        COLUMNS[3],
        COLUMNS[3],
    );
    for Outcome { choice, samples, base, bursts } in outcomes {
        let at = |second: u64| samples.get(second as usize - 1).copied();
        let open = COLUMNS.map(|second| at(second).map_or(0, |sample| sample.open));
        let oldest = at(COLUMNS[3]).map_or(0.0, |sample| sample.oldest_idle_s);
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {oldest:.1} s | {:.2} s | {:.2} % | {:.1} % |",
            choice.name(),
            open[0],
            open[1],
            open[2],
            open[3],
            base.mean_rest_s(),
            base.reuse(),
            bursts.reuse(),
        );
    }
    text.push('\n');
    text
}
