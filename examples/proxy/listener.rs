//! Listening sockets, and the loop that serves the clients of one of them.

use core::{convert::Infallible, net::SocketAddr, pin::pin, time::Duration};
use std::{io, net, rc::Rc};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::spawn_local,
    time::sleep,
};

use crate::{forward::Forwarder, headers::Client};

/// As many listeners on one address as there are shards. With `SO_REUSEPORT` the kernel deals the
/// clients out among them, and none of them is woken for another's client.
pub(crate) fn bind(address: SocketAddr, count: usize) -> io::Result<Vec<net::TcpListener>> {
    let first = listen(address)?;
    // With port 0 the first one finds out which port the others share.
    let address = first.local_addr()?;
    let mut listeners = vec![first];
    while listeners.len() < count {
        listeners.push(another(address, &listeners[0])?);
    }
    Ok(listeners)
}

#[cfg(target_os = "linux")]
fn another(address: SocketAddr, _first: &net::TcpListener) -> io::Result<net::TcpListener> {
    listen(address)
}

/// Elsewhere `SO_REUSEPORT` does not deal out, or does not exist: one queue for all.
#[cfg(not(target_os = "linux"))]
fn another(_address: SocketAddr, first: &net::TcpListener) -> io::Result<net::TcpListener> {
    first.try_clone()
}

fn listen(address: SocketAddr) -> io::Result<net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    #[cfg(target_os = "linux")]
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Serves clients until told to stop. Runs on the shard; each client is a task of its own there,
/// which holds a clone of `working` until it has finished.
pub(crate) async fn serve(
    listener: net::TcpListener,
    forwarder: Rc<Forwarder>,
    mut stop: watch::Receiver<bool>,
    working: mpsc::Sender<Infallible>,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                failing = false;
                let (stop, working) = (stop.clone(), working.clone());
                let client = serve_client(stream, address, Rc::clone(&forwarder), stop);
                spawn_local(async move {
                    client.await;
                    drop(working);
                });
            }
            // The client gave up in the queue.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                // Out of descriptors, mostly. The queue stays readable, so going on at once
                // would spin; one line is enough until it works again.
                if !failing {
                    tracing::warn!(%error, "cannot accept clients");
                }
                failing = true;
                sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

async fn serve_client(
    stream: TcpStream,
    address: SocketAddr,
    forwarder: Rc<Forwarder>,
    mut stop: watch::Receiver<bool>,
) {
    let _open = forwarder.counters().accept();
    // Only a matter of latency, and the socket may be gone already.
    let _ = stream.set_nodelay(true);
    let client = Rc::new(Client::new(address.ip()));
    let service = service_fn(move |request| {
        let (forwarder, client) = (Rc::clone(&forwarder), Rc::clone(&client));
        async move { Ok::<_, Infallible>(forwarder.answer(request, &client).await) }
    });
    let mut http = http1::Builder::new();
    // Without a bound on the head, a client that sends a byte a minute holds a connection for
    // ever. It also ends clients that are connected but ask for nothing.
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_READ_TIMEOUT);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let outcome = tokio::select! {
        biased;
        outcome = connection.as_mut() => outcome,
        _ = stop.wait_for(|stop| *stop) => {
            // At once when the client is idle, after the response in flight otherwise.
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%address, %error, "a client's connection ended");
    }
}

/// The kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);

const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
