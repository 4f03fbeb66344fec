//! The other end: accepts, and closes as soon as the client has.
//!
//! A close without lingering answers the client's FIN by an RST, so that no `TIME_WAIT` is left on
//! either side and the ports do not run out.

use core::time::Duration;
use std::{
    collections::HashMap,
    io::{self, Read},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd,
    thread,
    time::Instant,
};

use nix::{
    errno::Errno,
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
};
use socket2::{Domain, Socket, Type};

/// More than any batch: a full queue of the listener drops a SYN, which comes again after 1 s.
const BACKLOG: i32 = 4096;
/// How long it looks for work before it sleeps. To wake it costs the client an interrupt to another
/// core, which in a virtual machine is as dear as a connect, and whether there is one would depend on
/// how fast the client is.
const SPIN: Duration = Duration::from_micros(500);
/// What names the listener in the set; connections are named by their descriptors.
const LISTENER: u64 = u64::MAX;

/// Serves until the standard input ends, which it does with the process that started this one.
///
/// # Errors
/// The system's.
pub(crate) fn serve() -> io::Result<()> {
    let listener = listen()?;
    println!("{}", listener.local_addr()?);
    thread::spawn(|| {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let set = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    set.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
    let mut open = HashMap::new();
    let mut events = [EpollEvent::empty(); 256];
    let mut last = Instant::now();
    loop {
        let sleeps = last.elapsed() > SPIN;
        let timeout = if sleeps { EpollTimeout::NONE } else { EpollTimeout::ZERO };
        let count = match set.wait(&mut events, timeout) {
            Ok(0) => continue,
            Ok(count) => count,
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        };
        last = Instant::now();
        for event in &events[..count] {
            match event.data() {
                LISTENER => accept_all(&listener, &set, &mut open)?,
                name => drop(open.remove(&name)),
            }
        }
    }
}

fn listen() -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    // Accepted sockets inherit it.
    socket.set_linger(Some(Duration::ZERO))?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn accept_all(
    listener: &TcpListener,
    set: &Epoll,
    open: &mut HashMap<u64, TcpStream>,
) -> io::Result<()> {
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                let name = stream.as_raw_fd() as u64;
                let gone = EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLONESHOT;
                set.add(&stream, EpollEvent::new(gone, name))?;
                open.insert(name, stream);
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => return Ok(()),
                io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => {}
                _ => return Err(error),
            },
        }
    }
}
