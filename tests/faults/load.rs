//! Callers under load, each of whom is answered in its time, and what they were told.

use std::{
    collections::BTreeMap,
    io,
    time::{Duration, Instant},
};

use corepool::{CheckoutError, DialErrorKind, Group, Pooled, TcpConnector};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
    time::timeout,
};

use super::stage::ACQUIRE;

/// What a checkout may take beyond its timeout on a machine that is busy.
const SLACK: Duration = Duration::from_secs(3);

#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) served: usize,
    /// Exchanges that broke off.
    pub(crate) broken: usize,
    /// Checkouts that failed, by what they said.
    pub(crate) failed: BTreeMap<String, usize>,
}

impl Tally {
    pub(crate) fn failed(&self) -> usize {
        self.failed.values().sum()
    }

    /// Whether nothing else went wrong than this.
    pub(crate) fn only(&self, kinds: &[&str]) -> bool {
        self.failed.keys().all(|kind| kinds.contains(&kind.as_str()))
    }
}

/// A checkout that ends within its timeout, or the test fails.
pub(crate) async fn check_out(
    group: &Group<TcpConnector>,
) -> Result<Pooled<TcpConnector>, CheckoutError> {
    let answer = timeout(ACQUIRE + SLACK, group.checkout()).await;
    answer.expect("a caller is answered within its acquire timeout")
}

pub(crate) fn kind(error: &CheckoutError) -> String {
    match error {
        CheckoutError::Dial(dial) => format!("{:?}", dial.kind()),
        CheckoutError::Timeout { .. } => "Timeout".to_owned(),
        other => format!("{other:?}"),
    }
}

pub(crate) fn dial_kind(error: &CheckoutError) -> Option<DialErrorKind> {
    match error {
        CheckoutError::Dial(dial) => Some(dial.kind()),
        _ => None,
    }
}

/// One exchange, with a patience of its own.
pub(crate) async fn exchange(
    conn: &mut Pooled<TcpConnector>,
    patience: Duration,
) -> io::Result<()> {
    let exchange = async {
        conn.write_all(b"ping").await?;
        conn.read_exact(&mut [0; 4]).await.map(drop)
    };
    timeout(patience, exchange).await?
}

/// So many callers, until then or until `over` says so.
pub(crate) async fn load(
    group: &Group<TcpConnector>,
    callers: usize,
    patience: Duration,
    lasting: Duration,
) -> Tally {
    let until = Instant::now() + lasting;
    let mut tasks = JoinSet::new();
    for caller in 0..callers {
        let group = group.clone();
        tasks.spawn(async move {
            let (mut tally, mut round) = (Tally::default(), caller);
            while Instant::now() < until {
                round += 1;
                match check_out(&group).await {
                    Ok(mut conn) => match exchange(&mut conn, patience).await {
                        Ok(()) => {
                            tally.served += 1;
                            if round % 8 == 0 { conn.discard() } else { conn.release() }
                        }
                        Err(_) => {
                            tally.broken += 1;
                            conn.discard();
                        }
                    },
                    Err(error) => {
                        *tally.failed.entry(kind(&error)).or_default() += 1;
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                }
                // One thread runs them all; nobody is to have it for itself.
                tokio::task::yield_now().await;
            }
            tally
        });
    }
    let mut all = Tally::default();
    while let Some(one) = tasks.join_next().await {
        let one = one.unwrap();
        all.served += one.served;
        all.broken += one.broken;
        for (kind, count) in one.failed {
            *all.failed.entry(kind).or_default() += count;
        }
    }
    all
}
