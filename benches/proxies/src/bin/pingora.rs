//! A minimal Pingora proxy: one service, one peer, its pool as large as the load.
//!
//! One thread without work stealing is tokio's `current_thread` runtime there, the cheaper choice.

use std::sync::Arc;

use async_trait::async_trait;
use corepool_proxies::{
    args::Args,
    fields::{HOP_BY_HOP, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO},
};
use pingora::{
    http::{RequestHeader, ResponseHeader},
    prelude::*,
    server::{Server, configuration::ServerConf},
};

struct Proxy(Args);

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, _: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.0.origin, false, String::new())))
    }

    /// Pingora keeps what it knows of connections out of the request itself; the rest is ours.
    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        _: &mut (),
    ) -> Result<()> {
        for name in &HOP_BY_HOP {
            request.remove_header(name);
        }
        let client = session.client_addr().and_then(|address| address.as_inet());
        if let Some(client) = client {
            request.append_header(X_FORWARDED_FOR, client.ip().to_string())?;
        }
        request.insert_header(X_FORWARDED_PROTO, "http")?;
        if let Some(host) = request.headers.get("host").cloned() {
            request.insert_header(X_FORWARDED_HOST, host)?;
        }
        request.append_header("via", "1.1 proxy")?;
        if !self.0.reuse {
            // The origin closes after its answer, and Pingora does not pool what says so.
            request.insert_header("connection", "close")?;
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        _: &mut Session,
        response: &mut ResponseHeader,
        _: &mut (),
    ) -> Result<()> {
        response.append_header("via", "1.1 proxy")?;
        Ok(())
    }
}

fn main() {
    let args = Args::parse();
    let conf = ServerConf {
        threads: 1,
        work_stealing: false,
        upstream_keepalive_pool_size: 1024,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let conf = Arc::clone(&server.configuration);
    let mut service = http_proxy_service(&conf, Proxy(args));
    service.add_tcp(&args.listen.to_string());
    server.add_service(service);
    server.run_forever();
}
