//! hyper-util's legacy client and its pool: requests, because there is no checkout alone.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use http_body_util::{BodyExt, Empty};
use hyper::{Uri, body::Bytes, http::Extensions};
use hyper_util::{
    client::legacy::{
        Client, Error,
        connect::{Connected, Connection},
    },
    rt::{TokioExecutor, TokioIo},
};
use tokio::{
    sync::Semaphore,
    task::{JoinSet, yield_now},
    time::sleep,
};
use tower_service::Service;

use crate::{
    away,
    book::Book,
    clock::now,
    load::{CALLERS, Callers, Pace},
    noted::Noted,
    pingora_idle::DIALS,
    run::{Candidate, Failure, Stage},
};

/// Without retries: a caller sees every connection that the pool hands out dead.
#[derive(Clone, Copy, Debug)]
pub struct Hyper;

type Pool = Client<Dial, Empty<Bytes>>;

#[derive(Clone, Debug)]
struct Dial {
    to: SocketAddr,
    book: Arc<Book>,
    at_once: Arc<Semaphore>,
}

impl Service<Uri> for Dial {
    type Response = TokioIo<Noted>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { to, book, at_once } = self.clone();
        Box::pin(async move {
            let _turn = at_once.acquire_owned().await.expect("nobody closes it");
            Noted::connect(to, book).await.map(TokioIo::new)
        })
    }
}

/// The local port, where a failed request can find it.
#[derive(Clone, Copy, Debug)]
struct Port(u16);

impl Connection for Noted {
    fn connected(&self) -> Connected {
        Connected::new().extra(Port(self.port))
    }
}

async fn get(pool: &Pool, uri: &Uri) -> Result<(), Error> {
    let response = pool.get(uri.clone()).await?;
    // A body of two bytes, which came with the head.
    let _ = response.into_body().collect().await;
    Ok(())
}

/// On which connection a request failed.
fn port_of(error: &Error) -> Option<u16> {
    let mut extensions = Extensions::new();
    error.connect_info()?.get_extras(&mut extensions);
    extensions.get::<Port>().map(|port| port.0)
}

async fn call(pool: Pool, uri: Uri, callers: Callers, pace: Pace) {
    let Callers { book, stop } = &callers;
    // Relaxed: it guards nothing.
    while !stop.load(Ordering::Relaxed) {
        let called = now();
        away::note(called);
        match get(&pool, &uri).await {
            Ok(()) => book.check_out(),
            Err(error) => {
                if let Some(port) = port_of(&error) {
                    book.hand_out_dead(port, called, false);
                }
            }
        }
        match pace {
            Pace::Paced => sleep(Duration::from_millis(1)).await,
            Pace::Saturated => yield_now().await,
        }
    }
}

impl Candidate for Hyper {
    fn run(&self, stage: &mut Stage) -> Result<(), Failure> {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build()?;
        let dial = Dial {
            to: stage.origin.address,
            book: Arc::clone(&stage.book),
            at_once: Arc::new(Semaphore::new(DIALS)),
        };
        let uri: Uri = format!("http://{}/", stage.origin.address).parse()?;
        runtime.block_on(async {
            let mut builder = Client::builder(TokioExecutor::new());
            builder.pool_idle_timeout(None).retry_canceled_requests(false);
            let pool: Pool = builder.build(dial);
            // The origin answers nobody before all are there, so each request opens a connection.
            // One that fails ends the run: the others would wait for ever.
            let mut first = JoinSet::new();
            for _ in 0..stage.count {
                let (pool, uri) = (pool.clone(), uri.clone());
                first.spawn(async move { get(&pool, &uri).await });
            }
            while let Some(request) = first.join_next().await {
                request??;
            }
            stage.origin.accepted()?;
            let callers = stage.callers();
            let tasks: Vec<_> = (0..2 * CALLERS)
                .map(|_| {
                    let (pool, uri) = (pool.clone(), uri.clone());
                    tokio::spawn(call(pool, uri, callers.clone(), stage.pace))
                })
                .collect();
            stage.close()?;
            for task in tasks {
                task.await?;
            }
            Ok(())
        })
    }

    fn name(&self) -> String {
        "hyper-util legacy client, requests".to_owned()
    }
}
