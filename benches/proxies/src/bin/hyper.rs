//! hyper's server before hyper-util's pooling client, as their examples put the two together, on
//! tokio's `current_thread` runtime: the baselines had it 10 % ahead of `multi_thread` with one
//! worker.
//!
//! It has no timeout for a head or a response, no retry but the client's own, and no counter: all
//! of that is in corepool's proxy and is left out here in this candidate's favour.

use std::{convert::Infallible, error::Error};

use corepool_proxies::{args::Args, fields};
use http_body_util::{Either, Empty};
use hyper::{
    Request, Response, StatusCode, Uri,
    body::Incoming,
    header::{CONNECTION, HeaderValue, VIA},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use tokio::{net::TcpListener, runtime};

type Body = Either<Incoming, Empty<hyper::body::Bytes>>;
type Origin = Client<HttpConnector, Incoming>;

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(args))
}

async fn serve(args: Args) -> Result<(), Box<dyn Error>> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    // Without a connection kept, each request has one of its own.
    let idle_most = if args.reuse { usize::MAX } else { 0 };
    let origin: Origin =
        Client::builder(TokioExecutor::new()).pool_max_idle_per_host(idle_most).build(connector);
    let listener = TcpListener::bind(args.listen).await?;
    loop {
        let (stream, address) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let client = HeaderValue::from_str(&address.ip().to_string())?;
        let origin = origin.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let (origin, client) = (origin.clone(), client.clone());
                async move { Ok::<_, Infallible>(answer(&origin, args, request, &client).await) }
            });
            // A client that went away.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(
    origin: &Origin,
    args: Args,
    mut request: Request<Incoming>,
    client: &HeaderValue,
) -> Response<Body> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let Ok(uri) = format!("http://{}{path}", args.origin).parse::<Uri>() else {
        return failed(StatusCode::BAD_REQUEST);
    };
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    fields::strip(headers);
    fields::forwarded(headers, client);
    if !args.reuse {
        // Told to the origin too, by every candidate: who closes first decides who pays for it.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    match origin.request(request).await {
        Ok(mut response) => {
            fields::strip(response.headers_mut());
            response.headers_mut().append(VIA, HeaderValue::from_static("1.1 proxy"));
            response.map(Either::Left)
        }
        Err(_) => failed(StatusCode::BAD_GATEWAY),
    }
}

fn failed(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Either::Right(Empty::new()));
    *response.status_mut() = status;
    response
}
