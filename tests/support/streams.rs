//! Requests whose bodies are fed by hand, and HTTP/2 origins by h2's server.
#![allow(dead_code, unreachable_pub)] // each test file uses its part

use core::{
    pin::Pin,
    task::{Context, Poll},
};
use std::{io, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use corepool::{Http2Connector, Pool};
use h2::{RecvStream, server::SendResponse};
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{Barrier, mpsc, oneshot},
};

/// A body of parts that come when somebody sends them, or of one that is there.
pub struct Fed {
    parts: Parts,
    length: Option<u64>,
}

enum Parts {
    Fed(mpsc::Receiver<Frame<Bytes>>),
    Whole(Option<Bytes>),
    Broken,
}

impl Fed {
    pub fn empty() -> Self {
        Self { parts: Parts::Whole(None), length: Some(0) }
    }

    pub fn of(text: &str) -> Self {
        let whole = Bytes::copy_from_slice(text.as_bytes());
        Self { length: Some(whole.len() as u64), parts: Parts::Whole(Some(whole)) }
    }

    /// One that fails when it is asked for its first part.
    pub fn broken() -> Self {
        Self { parts: Parts::Broken, length: None }
    }
}

pub type Feed = mpsc::Sender<Frame<Bytes>>;

pub fn fed() -> (Feed, Fed) {
    let (feed, parts) = mpsc::channel(1);
    (feed, Fed { parts: Parts::Fed(parts), length: None })
}

pub async fn push(feed: &Feed, text: &str) {
    feed.send(Frame::data(Bytes::copy_from_slice(text.as_bytes()))).await.unwrap();
}

impl Body for Fed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut self.get_mut().parts {
            Parts::Fed(parts) => parts.poll_recv(cx).map(|part| part.map(Ok)),
            Parts::Whole(whole) => Poll::Ready(whole.take().map(|data| Ok(Frame::data(data)))),
            Parts::Broken => Poll::Ready(Some(Err(io::Error::other("the downstream has gone")))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.parts, Parts::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

pub fn connector() -> Http2Connector<Fed> {
    Http2Connector::new()
}

/// One shard, and whatever driver there is.
pub fn pool() -> Pool<Http2Connector<Fed>> {
    pool_of(connector())
}

pub fn pool_of(connector: Http2Connector<Fed>) -> Pool<Http2Connector<Fed>> {
    let builder = Pool::builder(connector).shards(1).pin(false).slots_per_shard(64);
    builder.connect_timeout(core::time::Duration::from_secs(2)).build().unwrap()
}

pub fn ask(path: &str) -> Request<Fed> {
    Request::get(format!("http://origin{path}")).body(Fed::empty()).unwrap()
}

pub fn post() -> (Feed, Request<Fed>) {
    let (feed, body) = fed();
    (feed, Request::post("http://origin/").body(body).unwrap())
}

/// An origin that keeps to the protocol.
pub struct Origin {
    pub address: SocketAddr,
}

type Responder = SendResponse<Bytes>;

impl Origin {
    async fn start<F>(
        answer: impl Fn(Request<RecvStream>, Responder) -> F + Clone + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, answer.clone()));
            }
        });
        Self { address }
    }

    /// Says back what it hears, trailers too.
    pub async fn echo() -> Self {
        Self::start(echo).await
    }

    /// Answers with each request's path, once so many requests are there.
    pub async fn gathering(count: usize) -> Self {
        let all = Arc::new(Barrier::new(count));
        Self::start(move |request, mut respond| {
            let all = Arc::clone(&all);
            async move {
                all.wait().await;
                let mut stream = respond.send_response(Response::new(()), false).unwrap();
                let path = Bytes::copy_from_slice(request.uri().path().as_bytes());
                stream.send_data(path, true).unwrap();
            }
        })
        .await
    }

    /// Answers at once with an endless response, and tells how much the first request came to.
    pub async fn sink() -> (Self, oneshot::Receiver<usize>) {
        let (tell, taken) = oneshot::channel();
        let tell = Arc::new(std::sync::Mutex::new(Some(tell)));
        let answer = move |request: Request<RecvStream>, mut respond: Responder| {
            let tell = tell.lock().unwrap().take();
            async move {
                let stream = respond.send_response(Response::new(()), false).unwrap();
                let mut count = 0;
                let mut body = request.into_body();
                while let Some(Ok(data)) = body.data().await {
                    body.flow_control().release_capacity(data.len()).unwrap();
                    count += data.len();
                }
                tell.map(|tell| tell.send(count));
                // Until the client has had enough.
                core::future::pending::<()>().await;
                drop(stream);
            }
        };
        (Self::start(answer).await, taken)
    }

    /// Answers at once, and passes on the heads of requests.
    pub async fn listening() -> (Self, mpsc::Receiver<Request<()>>) {
        let (tell, heard) = mpsc::channel(16);
        let answer = move |request: Request<RecvStream>, mut respond: Responder| {
            let tell = tell.clone();
            async move {
                respond.send_response(Response::new(()), true).unwrap();
                let _ = tell.send(request.map(drop)).await;
            }
        };
        (Self::start(answer).await, heard)
    }
}

/// Serves one connection.
pub async fn serve<F>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: impl Fn(Request<RecvStream>, Responder) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(answer(request, respond));
    }
}

pub async fn echo(request: Request<RecvStream>, mut respond: Responder) {
    // The client may have given up.
    let Ok(mut stream) = respond.send_response(Response::new(()), false) else {
        return;
    };
    let mut body = request.into_body();
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        // Its end, without data: clients do not like many empty frames.
        if data.is_empty() {
            continue;
        }
        if stream.send_data(data, false).is_err() {
            return;
        }
    }
    match body.trailers().await {
        Ok(Some(trailers)) => {
            let _ = stream.send_trailers(trailers);
        }
        _ => {
            let _ = stream.send_data(Bytes::new(), true);
        }
    }
}
