//! Listening sockets, and the loop that serves the clients of one of them.

use core::{
    convert::Infallible, future::poll_fn, net::SocketAddr, pin::pin, task::Poll, time::Duration,
};
use std::{io, net, rc::Rc};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::spawn_local,
    time::sleep,
};
use tokio_rustls::Accept;

use crate::{
    coalescing::Coalescing,
    counters::OpenClient,
    forward::Forwarder,
    headers::Client,
    tls::Shown,
    visits::{Visit, Visits},
};

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

/// Who receives the clients of one shard.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) forwarder: Rc<Forwarder>,
    /// With it, clients speak TLS.
    pub(crate) shown: Option<Shown>,
    pub(crate) client_timeout: Duration,
}

impl Host {
    /// Serves clients until told to stop. Runs on the shard; each client is a task of its own there,
    /// which holds a clone of `working` until it has finished.
    pub(crate) async fn serve(
        self,
        listener: net::TcpListener,
        mut stop: watch::Receiver<bool>,
        working: mpsc::Sender<Infallible>,
    ) -> io::Result<()> {
        let Self { forwarder, shown, client_timeout } = self;
        let listener = TcpListener::from_std(listener)?;
        let visits = Visits::new(client_timeout);
        // Goes on after us, for those that are there still, and ends with the shard.
        spawn_local(Rc::clone(&visits).look_after(stop.clone()));
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
                    let working = working.clone();
                    // Only a matter of latency, and the socket may be gone already.
                    let _ = stream.set_nodelay(true);
                    let guest = Guest {
                        address,
                        _open: forwarder.counters().accept(),
                        forwarder: Rc::clone(&forwarder),
                        visit: visits.enter(),
                    };
                    match &shown {
                        None => spawn_local(async move {
                            guest.serve(stream, false).await;
                            drop(working);
                        }),
                        Some(Shown(acceptor)) => {
                            let handshake = acceptor.accept(stream);
                            spawn_local(async move {
                                guest.serve_tls(handshake).await;
                                drop(working);
                            })
                        }
                    };
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
}

/// One client.
struct Guest {
    address: SocketAddr,
    forwarder: Rc<Forwarder>,
    visit: Rc<Visit>,
    _open: OpenClient,
}

impl Guest {
    /// The handshake first, for which the client has as long as for a request.
    async fn serve_tls(self, handshake: Accept<TcpStream>) {
        let mut handshake = pin!(handshake);
        let visit = &self.visit;
        let outcome = poll_fn(|cx| {
            visit.hear(cx);
            match handshake.as_mut().poll(cx) {
                Poll::Pending if visit.is_last_call() => Poll::Ready(None),
                Poll::Pending if visit.is_overdue() => {
                    Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())))
                }
                polled => polled.map(Some),
            }
        });
        match outcome.await {
            Some(Ok(stream)) => self.serve(stream, true).await,
            Some(Err(error)) => {
                self.forwarder.counters().fail_handshake();
                tracing::debug!(address = %self.address, %error, "a client's TLS handshake failed");
            }
            None => {}
        }
    }

    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin, is_tls: bool) {
        let Self { address, forwarder, visit, _open } = self;
        let client = Rc::new(Client::new(address.ip(), is_tls));
        let service = service_fn(|request| {
            let (forwarder, client) = (Rc::clone(&forwarder), Rc::clone(&client));
            let answering = visit.answer();
            async move {
                let response = forwarder.answer(request, &client).await;
                Ok::<_, Infallible>(response.map(|body| answering.with(body)))
            }
        });
        // Without a bound on the head, a client that sends a byte a minute holds a connection for
        // ever; hyper's own sets a timer for each.
        let mut http = http1::Builder::new();
        http.header_read_timeout(None);
        let stream = TokioIo::new(Coalescing::new(stream, Rc::clone(&visit)));
        let mut connection = pin!(http.serve_connection(stream, service));
        let mut is_told = false;
        let outcome = poll_fn(|cx| {
            visit.hear(cx);
            if visit.is_last_call() && !is_told {
                // Ends at once when the client is idle, after the response in flight otherwise.
                connection.as_mut().graceful_shutdown();
                is_told = true;
            }
            match connection.as_mut().poll(cx) {
                Poll::Pending if visit.is_overdue() => Poll::Ready(None),
                polled => polled.map(Some),
            }
        });
        match outcome.await {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::debug!(%address, %error, "a client's connection ended"),
            None => tracing::debug!(%address, "a client asked for nothing for too long"),
        }
    }
}

/// The kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
