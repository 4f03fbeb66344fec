//! The origin: another process, which closes its connections at random moments and keeps a record.
//!
//! On its standard output: `listening ADDRESS`, `accepted` once all are there, and after the closes
//! a line `PORT BEFORE AFTER` for each, the client's port and the clock around the call that sent
//! the FIN. On its standard input: `close SEED MILLISECONDS`, and its end.

use std::{
    io::{self, BufWriter, Write},
    net::SocketAddr,
    os::fd::AsRawFd,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use nix::sys::socket::{Shutdown, shutdown};
use tokio::{
    net::{TcpSocket, TcpStream},
    sync::watch,
};

use crate::clock::now;

type Failure = Box<dyn std::error::Error>;
/// The connections, with the client's port.
type Accepted = Arc<Mutex<Vec<(u16, Arc<TcpStream>)>>>;

/// Runs the origin on an address until its input ends. It waits for so many connections.
///
/// # Errors
/// What goes wrong with its sockets or pipes.
pub fn run(address: &str, count: usize) -> Result<(), Failure> {
    let address: SocketAddr = address.parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let socket = TcpSocket::new_v4()?;
        socket.bind(address)?;
        let listener = socket.listen(4096)?;
        println!("listening {}", listener.local_addr()?);
        let accepted = Accepted::default();
        let all_there = watch::Sender::new(false);
        // The commands come on a thread of their own, and so do the closes: no task of this
        // runtime comes between a close and its time.
        let (over, mut ended) = watch::channel(());
        let commands = thread::spawn({
            let accepted = Arc::clone(&accepted);
            move || {
                let outcome = obey(&accepted, count).map_err(|error| error.to_string());
                drop(over);
                outcome
            }
        });
        loop {
            let (stream, peer) = tokio::select! {
                next = listener.accept() => next?,
                _ = ended.changed() => break,
            };
            let stream = Arc::new(stream);
            tokio::spawn(serve(Arc::clone(&stream), all_there.subscribe()));
            let there = {
                let mut accepted = accepted.lock().expect("nobody panics with it");
                accepted.push((peer.port(), stream));
                accepted.len()
            };
            if there == count && !all_there.send_replace(true) {
                println!("accepted");
            }
        }
        Ok(commands.join().map_err(|_| "the closes panicked")??)
    })
}

/// Answers each request, once all connections are there: until then each request opens one.
async fn serve(stream: Arc<TcpStream>, mut all_there: watch::Receiver<bool>) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        stream.readable().await?;
        match stream.try_read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(_) => {
                let _ = all_there.wait_for(|all| *all).await;
                // So short that it goes out whole.
                stream.try_write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")?;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

fn obey(accepted: &Accepted, count: usize) -> Result<(), Failure> {
    for line in io::stdin().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        let ["close", seed, millis] = words[..] else {
            return Err(format!("what is {line:?}?").into());
        };
        let closes = close(accepted, count, seed.parse()?, millis.parse()?);
        let mut out = BufWriter::new(io::stdout().lock());
        for (port, before, after) in closes {
            writeln!(out, "{port} {before} {after}")?;
        }
        out.flush()?;
    }
    Ok(())
}

/// Closes the first `count` connections, in an order of chance, at moments of chance.
fn close(accepted: &Accepted, count: usize, seed: u64, millis: u64) -> Vec<(u16, u64, u64)> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut streams: Vec<_> = {
        let mut accepted = accepted.lock().expect("nobody panics with it");
        let most = count.min(accepted.len());
        accepted.drain(..most).collect()
    };
    random.shuffle(&mut streams);
    let begin = now();
    let mut moments: Vec<u64> =
        streams.iter().map(|_| begin + random.u64(..millis.max(1) * 1_000_000)).collect();
    moments.sort_unstable();
    let mut closes = Vec::with_capacity(streams.len());
    for ((port, stream), moment) in streams.into_iter().zip(moments) {
        if let Some(left) = moment.checked_sub(now()) {
            thread::sleep(Duration::from_nanos(left));
        }
        let before = now();
        // A close that does not wait for the task that reads: it sends the FIN, and that task,
        // which finds the end of its input, lets the socket go.
        let closed = shutdown(stream.as_raw_fd(), Shutdown::Both);
        let after = now();
        if closed.is_ok() {
            closes.push((port, before, after));
        }
    }
    closes
}
