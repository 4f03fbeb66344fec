//! Proves what the hot operations cost where noise does not reach: instructions by callgrind,
//! allocations, and system calls by strace, each the difference between two runs of this program.
//!
//! `cargo bench --bench instructions` fails when an operation costs 3 % more than
//! `benches/results/instructions.txt` says; `cargo bench --bench instructions -- --renew` writes that
//! file. The figures belong to the compiler named in it. Needs valgrind and strace.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    env, fmt, fs,
    net::TcpListener,
    pin::pin,
    process::{self, Command, ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    thread,
};

use corepool::{
    BoxError, Connection, Connector, Endpoint, Group, Multiplexed, Pool, RawConnector, Socket,
    StreamGroup, StreamMeter, TcpConnector, TlsConnector, TlsIdentity, Verification,
    settings::Order,
};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio_rustls::rustls::{
    ServerConfig, ServerConnection, crypto::ring, pki_types::PrivateKeyDer,
};

/// Counts what the program allocates.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system's allocator as it came.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What is counted: a name, and what it stands for.
const OPERATIONS: [(&str, &str); 11] = [
    ("hit_raw", "try_checkout and release, RawConnector"),
    ("hit_tcp", "the same, TcpConnector"),
    ("hit_tls", "the same, TlsConnector"),
    ("hit_raw_lifo", "the same, RawConnector, LIFO"),
    ("hit_raw_drop", "the same, the guard dropped unused"),
    ("hit_raw_awaited", "checkout().await and release, RawConnector"),
    ("hit_raw_1000", "try_checkout and release over 1000 endpoints, one after the other"),
    ("hit_tcp_1000", "the same, TcpConnector"),
    ("lookup_hit_raw", "pool.group(endpoint), try_checkout and release"),
    ("miss_raw", "try_checkout that finds nothing"),
    ("stream", "try_lease of a stream and its end, one shared connection"),
];

/// Runs of either length: what differs is the operation.
const SHORT: u64 = 2_000;
const LONG: u64 = 12_000;

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let first = arguments.find(|argument| argument != "--bench");
    match first.as_deref() {
        Some("--run") => {
            let operation = arguments.next().expect("an operation");
            let count = arguments.next().and_then(|count| count.parse().ok()).expect("a count");
            println!("{}", run(&operation, count));
            ExitCode::SUCCESS
        }
        // What cargo test and `--test` do to a bench: it starts.
        Some("--test") => {
            for (operation, _) in OPERATIONS {
                run(operation, 1);
            }
            ExitCode::SUCCESS
        }
        renew => compare(renew == Some("--renew")),
    }
}

/// The cost of one operation.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cost {
    instructions: f64,
    allocations: f64,
    system_calls: f64,
}

impl Cost {
    /// The figures at the start of a text.
    fn read(text: &str) -> Option<Self> {
        let mut figures = text.split_whitespace().map_while(|word| word.parse().ok());
        Some(Self {
            instructions: figures.next()?,
            allocations: figures.next()?,
            system_calls: figures.next()?,
        })
    }

    /// Whether this is more than was, by more than growth and rounding explain.
    fn exceeds(&self, before: &Self) -> bool {
        self.instructions > before.instructions * GROWTH
            || self.allocations > before.allocations + 0.005
            || self.system_calls > before.system_calls + 0.005
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { instructions, allocations, system_calls } = self;
        write!(f, "{instructions:>8.0} {allocations:>8.2} {system_calls:>8.2}")
    }
}

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/results/instructions.txt");

/// How many times its instructions an operation may take before this fails.
const GROWTH: f64 = 1.03;

fn compare(renew: bool) -> ExitCode {
    let known = fs::read_to_string(FILE).unwrap_or_default();
    let mut text = format!(
        "# {}; cargo bench --bench instructions -- --renew\n# {:<16} {:>7} {:>8} {:>8}\n",
        compiler(),
        "operation",
        "instr.",
        "alloc.",
        "syscalls"
    );
    let mut grown = false;
    for (operation, meaning) in OPERATIONS {
        let cost = cost_of(operation);
        let line = format!("{operation:<17} {cost}  # {meaning}\n");
        print!("{line}");
        let before = known.lines().find_map(|line| Cost::read(line.strip_prefix(operation)?));
        if !renew && before.is_none_or(|before| cost.exceeds(&before)) {
            let before = before.map_or_else(|| "nothing".to_owned(), |before| before.to_string());
            println!("    too much: {before} in {FILE}");
            grown = true;
        }
        text += &line;
    }
    if renew {
        fs::write(FILE, text).expect("the file of figures can be written");
    }
    if grown { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn compiler() -> String {
    let version = Command::new("rustc").arg("--version").output().expect("rustc runs");
    String::from_utf8_lossy(&version.stdout).trim().to_owned()
}

fn cost_of(operation: &str) -> Cost {
    let per = |measure: fn(&str, u64) -> u64| {
        let (short, long) = (measure(operation, SHORT), measure(operation, LONG));
        long.saturating_sub(short) as f64 / (LONG - SHORT) as f64
    };
    Cost {
        instructions: per(instructions),
        allocations: per(allocations),
        system_calls: per(system_calls),
    }
}

/// This program as its own subject, perhaps under another.
fn subject(under: &[&str], operation: &str, count: u64) -> (String, String) {
    let this = env::current_exe().expect("its own path");
    let this = this.to_str().expect("a path in UTF-8");
    let mut words: Vec<&str> = under.to_vec();
    let count = count.to_string();
    words.extend([this, "--run", operation, &count]);
    let output = Command::new(words[0])
        .args(&words[1..])
        // What a ring does beside the operations is no part of them.
        .env("COREPOOL_BACKEND", "epoll")
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{} is needed: {error}", words[0]));
    let (out, err) = (output.stdout, output.stderr);
    let (out, err) = (String::from_utf8_lossy(&out).into(), String::from_utf8_lossy(&err).into());
    assert!(output.status.success(), "{words:?}: {}\n{out}{err}", output.status);
    (out, err)
}

fn instructions(operation: &str, count: u64) -> u64 {
    let callgrind = [
        "valgrind",
        "--tool=callgrind",
        "--callgrind-out-file=/dev/null",
        "--toggle-collect=*corepool_subject*",
    ];
    let (_, report) = subject(&callgrind, operation, count);
    let found = report.lines().find_map(|line| line.split_once("Collected :"));
    found.and_then(|(_, number)| number.trim().parse().ok()).expect("callgrind tells a sum")
}

fn allocations(operation: &str, count: u64) -> u64 {
    subject(&[], operation, count).0.trim().parse().expect("the subject tells a number")
}

/// Those of the subject's own thread between the two calls that mark its start and its end.
fn system_calls(operation: &str, count: u64) -> u64 {
    let (_, report) = subject(&["strace", "-f", "-qq"], operation, count);
    let thread = |line: &str| line.split_once(']').map(|(thread, _)| thread.to_owned());
    let marked = report.lines().find(|line| line.contains(MARK)).and_then(thread);
    let own = report.lines().filter(|line| thread(line) == marked);
    let since = own.skip_while(|line| !line.contains(MARK)).skip(1);
    since.take_while(|line| !line.contains(MARK)).count() as u64
}

/// What `process::id` calls, and nothing else here does.
const MARK: &str = "getpid()";

/// Does an operation so often and tells how many allocations that took.
fn run(operation: &str, count: u64) -> u64 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    // Holds what it accepts, until the program ends.
    if operation == "hit_tls" {
        hold_secure(listener);
        let identity = TlsIdentity::new("localhost").with_verification(Verification::Off);
        let provider = ring::default_provider().into();
        let tls = TlsConnector::builder().crypto_provider(provider).build().expect("a connector");
        let endpoint = Endpoint::from(address).with_tls(identity);
        return on_shard(tls, endpoint, Order::Fifo, operation, count);
    }
    thread::spawn(move || listener.incoming().collect::<Vec<_>>());
    let address = Endpoint::from(address);
    match operation {
        "stream" => shared(address, count),
        "hit_tcp" | "hit_tcp_1000" => {
            on_shard(TcpConnector, address, Order::Fifo, operation, count)
        }
        "hit_raw_lifo" => on_shard(RawConnector, address, Order::Lifo, operation, count),
        _ => on_shard(RawConnector, address, Order::Fifo, operation, count),
    }
}

/// Holds what it accepts, under TLS.
fn hold_secure(listener: TcpListener) {
    let names = ["localhost".to_owned()];
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).expect("a key");
    let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    let config = ServerConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .expect("its key");
    let config = Arc::new(config);
    let secure = move |mut socket| {
        let mut session = ServerConnection::new(Arc::clone(&config)).expect("a session");
        while session.is_handshaking() || session.wants_write() {
            session.complete_io(&mut socket).expect("a handshake");
        }
        (session, socket)
    };
    thread::spawn(move || listener.incoming().flatten().map(secure).collect::<Vec<_>>());
}

fn on_shard<C: Connector>(
    connector: C,
    endpoint: Endpoint,
    order: Order,
    operation: &str,
    count: u64,
) -> u64 {
    let pool = Pool::builder(connector)
        .shards(1)
        .endpoint(|policy| policy.capacity.order = order)
        .build()
        .expect("a pool");
    // The same address under many keys: sockets of one origin that nobody mixes up.
    let keys = if is_over_many(operation) { 1000 } else { 1 };
    let groups: Vec<Group<C>> =
        (0..keys).map(|key| pool.group(endpoint.clone().with_tag(key.to_string()))).collect();
    let idle = operation != "miss_raw";
    let (operation, handle) = (operation.to_owned(), pool.clone());
    let done = pool.shards()[0].spawn(async move {
        for group in groups.iter().filter(|_| idle) {
            assert_eq!(group.warm_up(1).await.ready, 1);
        }
        let before = ALLOCATIONS.load(Relaxed);
        let _mark = process::id();
        corepool_subject(&handle, &groups, &operation, count);
        let _mark = process::id();
        ALLOCATIONS.load(Relaxed) - before
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(done).expect("the shard lives")
}

/// A connection that says of itself how many streams it takes, and no more.
#[derive(Debug)]
struct Shared(StreamMeter, #[allow(dead_code)] Socket);

impl Connection for Shared {}

impl Multiplexed for Shared {
    fn meter(&self) -> &StreamMeter {
        &self.0
    }
}

#[derive(Debug)]
struct SharedConnector;

impl Connector for SharedConnector {
    type Connection = Shared;

    async fn connect(&self, socket: Socket, _: &Endpoint) -> Result<Shared, BoxError> {
        Ok(Shared(StreamMeter::new(100), socket))
    }
}

fn shared(address: Endpoint, count: u64) -> u64 {
    let pool = Pool::builder(SharedConnector).shards(1).build().expect("a pool");
    let group = pool.streams(address);
    let done = pool.shards()[0].spawn(async move {
        // Another stream is under way all the time, so that the connection stays.
        let _other = group.lease().await.expect("a stream");
        let before = ALLOCATIONS.load(Relaxed);
        let _mark = process::id();
        corepool_subject_of_streams(&group, count);
        let _mark = process::id();
        ALLOCATIONS.load(Relaxed) - before
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(done).expect("the shard lives")
}

fn is_over_many(operation: &str) -> bool {
    operation.ends_with("_1000")
}

#[inline(never)]
fn corepool_subject_of_streams(group: &StreamGroup<SharedConnector>, count: u64) {
    (0..count).for_each(|_| assert!(group.try_lease().is_some()));
}

/// What callgrind counts: this function and all that it calls, on its own thread.
#[inline(never)]
fn corepool_subject<C: Connector>(
    pool: &Pool<C>,
    groups: &[Group<C>],
    operation: &str,
    count: u64,
) {
    let group = &groups[0];
    match operation {
        "miss_raw" => (0..count).for_each(|_| assert!(group.try_checkout().is_none())),
        "hit_raw_drop" => (0..count).for_each(|_| drop(group.try_checkout())),
        "hit_raw_awaited" => (0..count).for_each(|_| {
            let ready = pin!(group.checkout()).poll(&mut Context::from_waker(Waker::noop()));
            match ready {
                Poll::Ready(Ok(guard)) => guard.release(),
                _ => panic!("one rests"),
            }
        }),
        "lookup_hit_raw" => {
            let endpoint = group.endpoint();
            (0..count).for_each(|_| hit(&pool.group(endpoint.clone())));
        }
        many if is_over_many(many) => groups.iter().cycle().take(count as usize).for_each(hit),
        _ => (0..count).for_each(|_| hit(group)),
    }
}

#[inline(always)]
fn hit<C: Connector>(group: &Group<C>) {
    if let Some(guard) = group.try_checkout() {
        guard.release();
    } else {
        panic!("one rests");
    }
}
