//! Origins that speak HTTP as hyper does, of the version that they are told.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full};
use hyper::{
    Request, Response,
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
};

use crate::support::Origin;

/// What an origin has seen, and what it waits for.
pub(crate) struct Seen {
    pub(crate) connections: AtomicUsize,
    pub(crate) requests: AtomicUsize,
    /// Requests of `/held` are answered one for each permit.
    pub(crate) go: Semaphore,
}

impl Seen {
    pub(crate) fn new() -> Arc<Self> {
        let (connections, requests) = Default::default();
        Arc::new(Self { connections, requests, go: Semaphore::new(0) })
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.load(SeqCst)
    }
}

/// An origin of HTTP/2 without TLS.
pub(crate) async fn h2c_origin() -> (Origin, Arc<Seen>) {
    let seen = Seen::new();
    let of = Arc::clone(&seen);
    let origin = Origin::start(move |_, peer| serve(peer.0, true, Arc::clone(&of))).await;
    (origin, seen)
}

/// As `--upstream` takes it.
pub(crate) fn h2c(origin: &Origin) -> String {
    format!("h2c://{}", origin.address)
}

/// Serves one connection.
pub(crate) async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    is_http2: bool,
    seen: Arc<Seen>,
) {
    seen.connections.fetch_add(1, SeqCst);
    let service = service_fn(move |request| answer(request, Arc::clone(&seen)));
    let stream = TokioIo::new(stream);
    // It ends when the proxy likes.
    let _ = if is_http2 {
        http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service).await
    } else {
        http1::Builder::new().serve_connection(stream, service).await
    };
}

/// `/echo` says back what comes, `/held` waits for its permit, `/empty` has no body; all else shows
/// the request.
async fn answer(
    request: Request<Incoming>,
    seen: Arc<Seen>,
) -> Result<Response<Either<Full<Bytes>, Incoming>>, Infallible> {
    seen.requests.fetch_add(1, SeqCst);
    Ok(match request.uri().path() {
        "/echo" => Response::new(Either::Right(request.into_body())),
        "/empty" => {
            let mut response = Response::new(Either::Left(Full::default()));
            *response.status_mut() = hyper::StatusCode::NO_CONTENT;
            response
        }
        "/held" => {
            seen.go.acquire().await.expect("it is never closed").forget();
            Response::new(Either::Left("done".into()))
        }
        "/length" => {
            let body = request.into_body().collect().await;
            let length = body.map_or(0, |body| body.to_bytes().len());
            Response::new(Either::Left(length.to_string().into()))
        }
        _ => Response::new(Either::Left(show(&request).into())),
    })
}

fn show(request: &Request<Incoming>) -> String {
    let mut lines = vec![format!("{:?} {} {}", request.version(), request.method(), request.uri())];
    for (name, value) in request.headers() {
        lines.push(format!("{name}: {}", value.to_str().expect("text")));
    }
    lines.join("\n")
}
