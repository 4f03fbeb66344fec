//! tonic's clients over shared connections, against tonic's server.

mod support;

use std::{net::SocketAddr, time::Duration};

use corepool::{Backend, Endpoint, HttpClient, HttpConnector, HttpOrigin, Pool, StreamConnector};
use support::{close_and_check, tuned};
use tokio::{net::TcpListener, sync::oneshot, task::JoinSet, time::timeout};
use tonic::{
    Code,
    body::Body,
    transport::{Server, server::TcpIncoming},
};
use tonic_health::{
    ServingStatus,
    pb::{HealthCheckRequest, health_check_response, health_client::HealthClient},
    server::HealthReporter,
};

type Channel = HttpOrigin<Body, StreamConnector>;

struct Grpc {
    address: SocketAddr,
    reporter: HealthReporter,
    stop: oneshot::Sender<()>,
}

impl Grpc {
    async fn start(streams: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (reporter, health) = tonic_health::server::health_reporter();
        let (stop, stopped) = oneshot::channel();
        tokio::spawn(async move {
            let server = Server::builder().max_concurrent_streams(streams).add_service(health);
            let stopped = async move { drop(stopped.await) };
            let incoming = TcpIncoming::from(listener);
            server.serve_with_incoming_shutdown(incoming, stopped).await.unwrap();
        });
        Self { address, reporter, stop }
    }
}

fn channel(backend: Backend, server: &Grpc) -> (Pool<HttpConnector<Body>>, Channel) {
    let pool = tuned(Pool::builder(HttpConnector::new()), backend).build().unwrap();
    let endpoint = Endpoint::from(server.address).with_http2();
    (pool.clone(), HttpClient::new(pool).origin(endpoint))
}

fn client(channel: &Channel) -> HealthClient<Channel> {
    HealthClient::with_origin(channel.clone(), "http://health".parse().unwrap())
}

fn ask(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

on_both_drivers! {
    async fn a_thousand_calls_by_fifty_callers_take_as_many_connections_as_they_need(backend) {
        let server = Grpc::start(16).await;
        let (pool, channel) = channel(backend, &server);
        let mut callers = JoinSet::new();
        for _ in 0..50 {
            let mut client = client(&channel);
            callers.spawn(async move {
                for _ in 0..20 {
                    let answer = client.check(ask("")).await.unwrap().into_inner();
                    assert_eq!(answer.status(), health_check_response::ServingStatus::Serving);
                }
            });
        }
        callers.join_all().await;
        let opened = channel.streams().group().stats().opened;
        assert!((1..=4).contains(&opened), "{opened} connections for 50 callers at 16 streams each");
        close_and_check(pool).await;
    }

    async fn a_stream_of_answers_keeps_its_lease_to_its_end(backend) {
        let server = Grpc::start(16).await;
        let (pool, channel) = channel(backend, &server);
        server.reporter.set_service_status("a", ServingStatus::NotServing).await;
        let mut answers = client(&channel).watch(ask("a")).await.unwrap().into_inner();
        let next = answers.message().await.unwrap().unwrap();
        assert_eq!(next.status(), health_check_response::ServingStatus::NotServing);
        assert_eq!(channel.streams().stats().leased, 1);
        server.reporter.set_service_status("a", ServingStatus::Serving).await;
        let next = answers.message().await.unwrap().unwrap();
        assert_eq!(next.status(), health_check_response::ServingStatus::Serving);
        drop(answers);
        assert_eq!(channel.streams().stats().leased, 0);
        close_and_check(pool).await;
    }

    async fn a_status_in_the_trailers_comes_through(backend) {
        let server = Grpc::start(16).await;
        let (pool, channel) = channel(backend, &server);
        let status = client(&channel).check(ask("unheard of")).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound);
        assert_eq!(channel.streams().stats().leased, 0);
        close_and_check(pool).await;
    }

    async fn a_call_to_a_server_that_has_gone_says_where_it_was(backend) {
        let server = Grpc::start(16).await;
        let (pool, channel) = channel(backend, &server);
        let mut client = client(&channel);
        client.check(ask("")).await.unwrap();
        let address = server.address;
        server.stop.send(()).unwrap();
        let refused = async {
            loop {
                match client.check(ask("")).await {
                    Ok(_) => tokio::task::yield_now().await,
                    Err(status) => return status,
                }
            }
        };
        let status = timeout(Duration::from_secs(5), refused).await.unwrap();
        assert!(status.message().contains(&address.to_string()), "{status}");
        close_and_check(pool).await;
    }
}
