//! The embedded origin: a small server to try the proxy against.
//!
//! `/` says hello, `/headers` shows the request as it came, `/echo` sends the body back,
//! `/bytes/N` sends N bytes, `/delay/MS` waits before it answers.

use core::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use std::{fmt::Write as _, io, net, thread};

use bytes::Bytes;
use hyper::{
    Request, Response, StatusCode,
    body::{Body, Frame, Incoming, SizeHint},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, runtime, sync::watch, time::sleep};

use crate::listener;

/// An origin at work on threads of its own, until it is dropped.
#[derive(Debug)]
pub(crate) struct Origin {
    address: SocketAddr,
    _stop: watch::Sender<()>,
}

impl Origin {
    /// Starts on a free port of the loopback interface.
    pub(crate) fn start(threads: usize) -> io::Result<Self> {
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listeners = listener::bind(any_port, threads)?;
        let address = listeners[0].local_addr()?;
        let (stop, stopped) = watch::channel(());
        for listener in listeners {
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            let mut stopped = stopped.clone();
            thread::Builder::new().name("origin".to_owned()).spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        _dropped = stopped.changed() => {}
                        Err(error) = serve(listener) => tracing::error!(%error, "embedded origin"),
                    }
                });
            })?;
        }
        Ok(Self { address, _stop: stop })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn serve(listener: net::TcpListener) -> io::Result<Infallible> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let Ok((stream, _address)) = listener.accept().await else {
            sleep(ACCEPT_BACKOFF).await;
            continue;
        };
        // Only a matter of latency.
        let _ = stream.set_nodelay(true);
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new());
        let connection = http.serve_connection(TokioIo::new(stream), service_fn(answer));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection of the embedded origin ended");
            }
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Content>, Infallible> {
    let path = request.uri().path();
    let content = match path.strip_prefix('/').unwrap_or(path).split_once('/') {
        None => match path {
            "/" => Content::Text(Some(Bytes::from_static(HELLO))),
            "/headers" => Content::Text(Some(show(&request).into())),
            "/echo" => Content::Echo(request.into_body()),
            _ => return Ok(not_found()),
        },
        Some(("bytes", count)) => match count.parse() {
            Ok(left) => Content::Filler { left },
            Err(_) => return Ok(not_found()),
        },
        Some(("delay", ms)) => match ms.parse::<u64>() {
            Ok(ms) => {
                sleep(Duration::from_millis(ms.min(DELAY_MOST_MS))).await;
                Content::Text(Some(Bytes::from_static(HELLO)))
            }
            Err(_) => return Ok(not_found()),
        },
        Some(_) => return Ok(not_found()),
    };
    Ok(Response::new(content))
}

fn not_found() -> Response<Content> {
    let text = "there are /, /headers, /echo, /bytes/N and /delay/MS\n";
    let mut response = Response::new(Content::Text(Some(Bytes::from_static(text.as_bytes()))));
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

fn show(request: &Request<Incoming>) -> String {
    let mut text = format!("{} {} {:?}\n", request.method(), request.uri(), request.version());
    for (name, value) in request.headers() {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name}: {}", String::from_utf8_lossy(value.as_bytes()));
    }
    text
}

/// A response body.
enum Content {
    Text(Option<Bytes>),
    Echo(Incoming),
    Filler { left: u64 },
}

impl Body for Content {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Echo(body) => Pin::new(body).poll_frame(cx),
            Self::Filler { left: 0 } => Poll::Ready(None),
            Self::Filler { left } => {
                let now = (*left).min(FILLER.len() as u64);
                *left -= now;
                let frame = Frame::data(Bytes::from_static(&FILLER[..now as usize]));
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Text(text) => text.is_none(),
            Self::Echo(body) => body.is_end_stream(),
            Self::Filler { left } => *left == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(text) => {
                SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64))
            }
            Self::Echo(body) => body.size_hint(),
            Self::Filler { left } => SizeHint::with_exact(*left),
        }
    }
}

const HELLO: &[u8] = b"hello from the embedded origin\n";

static FILLER: [u8; 64 * 1024] = [b'.'; 64 * 1024];

const DELAY_MOST_MS: u64 = 60_000;

const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
