//! hyper-util's legacy client, by the requests that fill it: each connection has carried one.

use http::Uri;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use tokio::task::JoinSet;

use super::{IDLE_TIMEOUT, KEYS, Keeper, Kept, Load, Opening};

pub(super) const LEGACY: Keeper = Keeper { name: "hyper-util-legacy", timers: "1 a pool", open };

fn open(load: Load) -> Opening {
    Box::pin(async move {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build_http::<String>();
        for key in 0..KEYS {
            let uri: Uri = format!("http://{}/", load.address(key)).parse().expect("a URI");
            // All at once: the origin answers none before all are there.
            let mut answers = JoinSet::new();
            for _ in 0..load.of_each {
                answers.spawn(client.get(uri.clone()));
            }
            while let Some(answer) = answers.join_next().await {
                drop(answer.expect("no panic").expect("an answer"));
            }
        }
        Kept { _keeper: Box::new(client), runtimes: Vec::new() }
    })
}
