//! An origin on the far host, which says back what it hears, and is restarted, slow or full.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};

use super::stage::{FAR, PORT, Stage};

/// One at a time: all listen on [`PORT`].
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct State {
    over: AtomicBool,
    /// How long it thinks before each accept.
    pause_ms: AtomicU64,
    streams: Mutex<Vec<TcpStream>>,
    /// Connections that a thread says back on.
    ears: AtomicUsize,
    /// Whether it says back what it hears, which takes a thread for each connection.
    echoes: AtomicBool,
}

impl Origin {
    pub(crate) fn start(stage: &Stage) -> Self {
        let origin = Self::down();
        origin.rise(stage);
        origin
    }

    /// One that accepts and says nothing.
    pub(crate) fn silent(stage: &Stage) -> Self {
        let origin = Self::down();
        origin.state.echoes.store(false, SeqCst);
        origin.rise(stage);
        origin
    }

    pub(crate) fn down() -> Self {
        let state = Arc::<State>::default();
        state.echoes.store(true, SeqCst);
        Self { address: (FAR, PORT).into(), state, accepting: Mutex::new(None) }
    }

    pub(crate) fn rise(&self, stage: &Stage) {
        self.accept_on(listen(stage, 4096));
    }

    /// Accepts what comes to a listener, until it falls.
    pub(crate) fn accept_on(&self, listener: Socket) {
        self.state.over.store(false, SeqCst);
        let state = Arc::clone(&self.state);
        let thread = thread::spawn(move || accept(&state, &listener));
        *self.accepting.lock().unwrap() = Some(thread);
    }

    /// Refuses from now on; what is open stays.
    pub(crate) fn fall(&self) {
        self.state.over.store(true, SeqCst);
        if let Some(thread) = self.accepting.lock().unwrap().take() {
            thread.join().unwrap();
        }
    }

    pub(crate) fn accept_slowly(&self, pause: Duration) {
        self.state.pause_ms.store(pause.as_millis() as u64, SeqCst);
    }

    /// How many connections it has had and not let go of.
    pub(crate) fn connections(&self) -> usize {
        self.state.streams.lock().unwrap().len()
    }

    /// Ends every connection by an RST. To be called while none is made.
    pub(crate) fn reset(&self) {
        for stream in self.state.streams.lock().unwrap().drain(..) {
            let socket = Socket::from(stream);
            socket.set_linger(Some(Duration::ZERO)).unwrap();
            // The echo's read returns, and the last of the two that drops sends the RST.
            let _ = socket.shutdown(Shutdown::Read);
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.state.ears.load(SeqCst) > 0 {
            assert!(Instant::now() < deadline, "an echo does not end");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends every connection, as it comes.
    pub(crate) fn hang_up(&self) {
        for stream in self.state.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Lets go of connections that the pool has closed.
    pub(crate) fn reap(&self) {
        self.hang_up();
    }
}

/// A listener on the far host.
pub(crate) fn listen(stage: &Stage, backlog: i32) -> Socket {
    stage.on_far(move || {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.set_reuse_address(true).unwrap();
        listener.bind(&SocketAddr::from((FAR, PORT)).into()).unwrap();
        listener.listen(backlog).unwrap();
        listener.set_nonblocking(true).unwrap();
        listener
    })
}

fn accept(state: &Arc<State>, listener: &Socket) {
    while !state.over.load(SeqCst) {
        let stream = match listener.accept() {
            Ok((stream, _)) => TcpStream::from(stream),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                thread::sleep(Duration::from_millis(1));
                continue;
            }
            // It was reset before we came to it.
            Err(_) => continue,
        };
        stream.set_nonblocking(false).unwrap();
        if state.echoes.load(SeqCst) {
            let (ear, state) = (stream.try_clone().unwrap(), Arc::clone(state));
            state.ears.fetch_add(1, SeqCst);
            thread::spawn(move || {
                echo(ear);
                state.ears.fetch_sub(1, SeqCst);
            });
        }
        state.streams.lock().unwrap().push(stream);
        thread::sleep(Duration::from_millis(state.pause_ms.load(SeqCst)));
    }
}

fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.state.over.store(true, SeqCst);
    }
}
