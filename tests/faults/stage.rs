//! Two hosts on one machine: the pool's network namespace and the origins', with a cable between.
//!
//! Each case runs in a process of its own, so that descriptors can be counted and limits lowered,
//! and in namespaces without a name, which the kernel removes with the process, however it ends.
//! A namespace is a thread's: the shards inherit theirs from the thread that builds the pool.

use std::{
    env, fs, io,
    net::TcpStream,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use corepool::{Backend, Builder, Connector, Pool, PoolStats, TcpConnector};
use nix::sched::{CloneFlags, unshare};

use super::support::{close_and_check, eventually, tuned};

/// The origins' address. The pool's is 10.77.0.1.
pub(crate) const FAR: [u8; 4] = [10, 77, 0, 2];
/// Where origins listen.
pub(crate) const PORT: u16 = 9000;

/// Says which case a process is to run, and that it is a child.
const CHILD: &str = "COREPOOL_TEST_FAULTS_CHILD";
const LONGEST: Duration = Duration::from_secs(60);

/// What a case has: the pool's end is where it runs.
pub(crate) struct Stage {
    pub(crate) backend: Backend,
    far: mpsc::Sender<Box<dyn FnOnce() + Send>>,
    before: usize,
}

/// What a case's process runs under.
#[derive(Clone, Copy)]
pub(crate) enum Under {
    Nothing,
    /// strace, which injects this.
    Strace(&'static str),
    /// Without the capability that lifts RLIMIT_MEMLOCK.
    NoIpcLock,
}

/// Runs one case in a process of its own.
pub(crate) fn play<F: Future<Output = ()>>(
    name: &str,
    backend: Backend,
    under: Under,
    case: impl FnOnce(Stage) -> F,
) {
    if backend == Backend::IoUring && !super::support::uring_is_expected() {
        return;
    }
    if env::var_os("COREPOOL_TEST_NO_NETNS").is_some_and(|value| value == "1") {
        eprintln!("{name}: skipped, because COREPOOL_TEST_NO_NETNS is 1");
        return;
    }
    // Without the name of the test's crate.
    let name = name.split_once("::").map_or(name, |(_, name)| name);
    let driver = if backend == Backend::Epoll { "epoll" } else { "io_uring" };
    let name = format!("{name}::{driver}");
    if env::var_os(CHILD).is_some() {
        let stage = Stage::set(backend);
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        return runtime.enable_all().build().unwrap().block_on(case(stage));
    }
    in_a_child(&name, under);
}

fn in_a_child(name: &str, under: Under) {
    let this = env::current_exe().unwrap();
    let mut command = match under {
        Under::Nothing => Command::new(this),
        Under::NoIpcLock => {
            let mut setpriv = Command::new("setpriv");
            setpriv.args(["--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock"]).arg(this);
            setpriv
        }
        Under::Strace(inject) => {
            let mut strace = Command::new("strace");
            let call = inject.split(':').next().unwrap();
            strace.args(["-f", "--seccomp-bpf", "-qq", "-o", "/dev/null"]);
            strace.args(["-e", &format!("trace={call}")]);
            strace.args(["-e", &format!("inject={inject}")]).arg(this);
            strace
        }
    };
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]);
    command.env(CHILD, "1").env_remove("COREPOOL_BACKEND");
    let log = env::temp_dir().join(format!(
        "corepool-faults-{}-{}",
        std::process::id(),
        name.replace(':', "-")
    ));
    let output = fs::File::create(&log).unwrap();
    command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
    let mut child =
        command.spawn().expect("the case cannot be started (are strace and setpriv installed?)");
    let began = Instant::now();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break Some(status),
            None if began.elapsed() > LONGEST => {
                let _ = child.kill();
                let _ = child.wait();
                break None;
            }
            None => thread::sleep(Duration::from_millis(5)),
        }
    };
    let text = fs::read_to_string(&log).unwrap_or_default();
    let _ = fs::remove_file(&log);
    let passed = status.is_some_and(|status| status.success());
    assert!(
        passed && text.contains("test result: ok. 1 passed"),
        "{name} ended with {status:?} (none: it took longer than {LONGEST:?}):\n{text}"
    );
}

impl Stage {
    fn set(backend: Backend) -> Self {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            panic!(
                "no network namespace can be made here: {error}. These tests need root, or \
                 CAP_SYS_ADMIN; COREPOOL_TEST_NO_NETNS=1 leaves them out"
            );
        }
        let (far, jobs) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let (made, thread) = mpsc::channel();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            made.send(fs::read_link("/proc/thread-self").unwrap()).unwrap();
            for job in jobs {
                job();
            }
        });
        let thread = thread.recv().unwrap();
        let thread = thread.file_name().unwrap().to_str().unwrap();
        sh(&format!("ip link add near0 type veth peer name far0 netns {thread}"));
        sh("ip link set lo up && ip addr add 10.77.0.1/24 dev near0 && ip link set near0 up");
        let stage = Self { backend, far, before: 0 };
        stage.far("ip link set lo up && ip addr add 10.77.0.2/24 dev far0 && ip link set far0 up");
        stage.wait_for_link();
        stage.far("nft add table inet f");
        stage.far("nft 'add chain inet f i { type filter hook input priority 0; }'");
        stage
    }

    /// The cable carries nothing yet when both ends are up; the kernel sees to that by and by.
    fn wait_for_link(&self) {
        let deadline = Instant::now() + Duration::from_secs(5);
        let nobody = (FAR, 9).into();
        // A refusal is an answer.
        while !TcpStream::connect_timeout(&nobody, Duration::from_millis(50))
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        {
            assert!(Instant::now() < deadline, "the far host does not answer");
        }
    }

    /// Does something on the origins' host.
    pub(crate) fn on_far<R: Send + 'static>(&self, act: impl FnOnce() -> R + Send + 'static) -> R {
        let (done, result) = mpsc::channel();
        self.far.send(Box::new(move || drop(done.send(act())))).unwrap();
        result.recv().expect("the far host's thread lives")
    }

    /// Runs a command on the origins' host.
    pub(crate) fn far(&self, command: &str) {
        let command = command.to_owned();
        self.on_far(move || sh(&command));
    }

    /// Has the origins' host treat what comes in for them like this.
    pub(crate) fn firewall(&self, verdict: &str) {
        self.far(&format!("nft add rule inet f i tcp dport {PORT} {verdict}"));
    }

    pub(crate) fn no_firewall(&self) {
        self.far("nft flush chain inet f i");
    }

    /// A pool with short timeouts and no breaker, whose failures would be its own. From here on
    /// descriptors are counted.
    pub(crate) fn builder(&mut self) -> Builder<TcpConnector> {
        self.before = open_descriptors();
        tuned(Pool::builder(TcpConnector), self.backend)
            .connect_timeout(CONNECT)
            .acquire_timeout(ACQUIRE)
            .breaker(false)
    }

    /// The pool lost nothing: opened = closed, nobody waits, and its descriptors are closed.
    pub(crate) async fn end<C: Connector>(
        self,
        pool: Pool<C>,
        origin: &super::origin::Origin,
    ) -> PoolStats {
        let stats = close_and_check(pool.clone()).await;
        drop(pool);
        // Some of its ends never hear of the close.
        origin.hang_up();
        let before = self.before;
        let all_closed = || {
            origin.reap();
            open_descriptors() <= before
        };
        eventually("descriptors are closed", all_closed).await;
        stats
    }
}

/// How long a dial may take in these tests.
pub(crate) const CONNECT: Duration = Duration::from_secs(1);
/// How long a checkout may take.
pub(crate) const ACQUIRE: Duration = Duration::from_secs(3);

pub(crate) fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Runs a command on this thread's host.
pub(crate) fn sh(command: &str) {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(
        output.status.success(),
        "{command}: {}: {}(needs iproute2 and nftables)",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}
