//! The demo's client: keeps a number of connections busy and takes the time of every request.

use core::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use std::{error::Error, io, sync::Arc, thread};

use bytes::Bytes;
use hdrhistogram::Histogram;
use http_body_util::{BodyExt as _, Empty};
use hyper::{
    Request,
    client::conn::http1::{self, SendRequest},
    header::HOST,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    runtime,
    task::JoinSet,
    time::{Instant, timeout_at},
};

/// How much to ask for. It ends at whichever limit comes first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) target: SocketAddr,
    /// Connections, each with one request at a time.
    pub(crate) clients: usize,
    pub(crate) threads: usize,
    pub(crate) duration: Duration,
    pub(crate) requests_most: u64,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) requests: u64,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
    pub(crate) elapsed: Duration,
    pub(crate) latency_us: Histogram<u64>,
}

impl Load {
    /// Runs it on threads of its own.
    pub(crate) fn run(self) -> io::Result<Report> {
        let left = Arc::new(AtomicU64::new(self.requests_most));
        let start = Instant::now();
        let mut threads = Vec::new();
        for nth in 0..self.threads {
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            let left = Arc::clone(&left);
            let clients = (self.clients + nth) / self.threads;
            let run = move || runtime.block_on(self.run_thread(clients, start, &left));
            threads.push(thread::Builder::new().name("load".to_owned()).spawn(run)?);
        }
        let mut report = Report::new();
        for thread in threads {
            let part = thread.join().map_err(|_| io::Error::other("a load thread panicked"))?;
            report.add(part);
        }
        report.elapsed = start.elapsed();
        Ok(report)
    }

    async fn run_thread(self, clients: usize, start: Instant, left: &Arc<AtomicU64>) -> Report {
        let mut tasks = JoinSet::new();
        for _ in 0..clients {
            let left = Arc::clone(left);
            tasks.spawn(async move { self.run_client(start, &left).await });
        }
        let mut report = Report::new();
        while let Some(client) = tasks.join_next().await {
            match client {
                Ok(part) => report.add(part),
                Err(error) => report.fail(&error),
            }
        }
        report
    }

    async fn run_client(self, start: Instant, left: &AtomicU64) -> Report {
        let mut report = Report::new();
        let mut connection = None;
        let end = start + self.duration;
        while Instant::now() < end && take(left) {
            let asked = Instant::now();
            match timeout_at(end + GRACE, self.ask(&mut connection)).await {
                Ok(Ok(())) => report.answered(asked.elapsed()),
                Ok(Err(error)) => {
                    connection = None;
                    report.fail(&*error);
                }
                Err(elapsed) => {
                    connection = None;
                    report.fail(&elapsed);
                }
            }
        }
        report
    }

    async fn ask(
        self,
        connection: &mut Option<SendRequest<Empty<Bytes>>>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        if connection.as_ref().is_none_or(SendRequest::is_closed) {
            let stream = TcpStream::connect(self.target).await?;
            stream.set_nodelay(true)?;
            let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(driver);
            *connection = Some(sender);
        }
        let Some(sender) = connection else {
            return Ok(());
        };
        sender.ready().await?;
        let request = Request::get("/").header(HOST, "demo").body(Empty::new())?;
        let mut response = sender.send_request(request).await?;
        while let Some(frame) = response.body_mut().frame().await {
            frame?;
        }
        if response.status().is_success() {
            Ok(())
        } else {
            Err(format!("status {}", response.status()).into())
        }
    }
}

/// One of the requests that are left to make.
fn take(left: &AtomicU64) -> bool {
    // Relaxed: it is only counted.
    left.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

impl Report {
    fn new() -> Self {
        Self {
            requests: 0,
            errors: 0,
            first_error: None,
            elapsed: Duration::ZERO,
            // Grows by itself; three digits is a bound of the crate that this keeps.
            latency_us: Histogram::new(LATENCY_DIGITS).expect("0 to 5 digits are allowed"),
        }
    }

    pub(crate) fn requests_per_second(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64().max(f64::EPSILON)
    }

    fn answered(&mut self, after: Duration) {
        self.requests += 1;
        let after_us = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        // The range grows as needed, and an hour is in it.
        let _ = self.latency_us.record(after_us);
    }

    fn fail(&mut self, error: &(impl core::fmt::Display + ?Sized)) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| error.to_string());
    }

    fn add(&mut self, part: Self) {
        self.requests += part.requests;
        self.errors += part.errors;
        self.first_error = self.first_error.take().or(part.first_error);
        // Both have the same digits, and this one grows as needed.
        let _ = self.latency_us.add(&part.latency_us);
    }
}

const LATENCY_DIGITS: u8 = 3;

/// What the last requests may take after the end.
const GRACE: Duration = Duration::from_secs(5);
