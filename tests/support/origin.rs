//! An origin that goes down and comes back on one port, and knows its connections by address.
#![allow(dead_code, unreachable_pub)] // each test file uses its part

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::Duration,
};

use socket2::{Domain, Socket, Type};

/// Says back what it hears. While it is down its port is bound and refuses.
pub struct Origin {
    pub address: SocketAddr,
    state: Arc<State>,
    ended: mpsc::Receiver<SocketAddr>,
}

struct State {
    listener: Socket,
    over: AtomicBool,
    accepted: AtomicUsize,
    streams: Mutex<Vec<TcpStream>>,
}

impl Origin {
    pub fn start() -> Self {
        let origin = Self::down();
        origin.rise();
        origin
    }

    /// One that refuses until [`Self::rise`].
    pub fn down() -> Self {
        // Linux lets go of a port that it chose itself when the listener is shut down, and keeps
        // one that was asked for. So one socket finds the port and another one asks for it.
        let bound = |address: SocketAddr| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_reuse_address(true).unwrap();
            socket.bind(&address.into()).unwrap();
            socket
        };
        let finder = bound(([127, 0, 0, 1], 0).into());
        let address = finder.local_addr().unwrap().as_socket().unwrap();
        let listener = bound(address);
        let (over, accepted) = (AtomicBool::new(false), AtomicUsize::new(0));
        let streams = Mutex::new(Vec::new());
        let state = Arc::new(State { listener, over, accepted, streams });
        let (ending, ended) = mpsc::channel();
        thread::spawn({
            let state = Arc::clone(&state);
            move || serve(&state, &ending)
        });
        Self { address, state, ended }
    }

    pub fn rise(&self) {
        self.state.listener.listen(1024).unwrap();
    }

    /// Refuses from now on; what was accepted stays.
    pub fn fall(&self) {
        self.state.listener.shutdown(Shutdown::Both).unwrap();
    }

    /// Ends every connection with a FIN.
    pub fn hang_up(&self) {
        for stream in self.state.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Write);
        }
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.state.accepted.load(SeqCst)
    }

    /// The pool's address of the next connection that it ended.
    pub fn next_ended(&self) -> SocketAddr {
        self.ended.recv_timeout(Duration::from_secs(5)).expect("a connection ends")
    }
}

fn serve(state: &State, ending: &mpsc::Sender<SocketAddr>) {
    while !state.over.load(SeqCst) {
        // Down: EINVAL at once.
        let Ok((stream, peer)) = state.listener.accept() else {
            thread::sleep(Duration::from_millis(1));
            continue;
        };
        let stream = TcpStream::from(stream);
        state.streams.lock().unwrap().push(stream.try_clone().unwrap());
        state.accepted.fetch_add(1, SeqCst);
        let ending = ending.clone();
        let peer = peer.as_socket().unwrap();
        thread::spawn(move || {
            echo(stream);
            let _ = ending.send(peer);
        });
    }
}

fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 1024];
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.state.over.store(true, SeqCst);
        // Not connected, when it is down.
        let _ = self.state.listener.shutdown(Shutdown::Both);
    }
}
