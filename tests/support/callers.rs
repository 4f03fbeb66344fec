//! Many callers of a group at once, and what they are told.
#![allow(dead_code, unreachable_pub)] // each test file uses its part

use corepool::{CheckoutError, Connector, DialErrorKind, Group, Pooled};
use tokio::task::JoinHandle;

pub type Caller<C> = JoinHandle<Result<Pooled<C>, CheckoutError>>;

/// One more checkout, as a task of its own.
pub fn call<C: Connector>(group: &Group<C>) -> Caller<C>
where
    Pooled<C>: Send,
{
    let group = group.clone();
    tokio::spawn(async move { group.checkout().await })
}

/// So many checkouts, which line up in the order in which they are returned.
pub async fn call_in_order<C: Connector>(group: &Group<C>, count: u32) -> Vec<Caller<C>>
where
    Pooled<C>: Send,
{
    let before = group.stats().waiting;
    let mut callers = Vec::new();
    for place in 1..=count {
        callers.push(call(group));
        crate::support::eventually("in line", || group.stats().waiting == before + place).await;
    }
    callers
}

/// What became of all of them.
pub async fn outcomes<C: Connector>(
    callers: Vec<Caller<C>>,
) -> (Vec<Pooled<C>>, Vec<CheckoutError>) {
    let (mut served, mut told) = (Vec::new(), Vec::new());
    for caller in callers {
        match caller.await.unwrap() {
            Ok(conn) => served.push(conn),
            Err(error) => told.push(error),
        }
    }
    (served, told)
}

/// So many connections, held.
pub async fn hold<C: Connector>(group: &Group<C>, count: usize) -> Vec<Pooled<C>> {
    let mut held = Vec::new();
    for _ in 0..count {
        held.push(group.checkout().await.unwrap());
    }
    held
}

/// So many connections at rest, and none else.
pub async fn rest<C: Connector>(group: &Group<C>, count: usize) {
    for conn in hold(group, count).await {
        conn.release();
    }
    assert_eq!(group.stats().idle as usize, count);
}

/// Why a dial failed, if that is what the error says.
pub fn dial_error(error: &CheckoutError) -> Option<DialErrorKind> {
    match error {
        CheckoutError::Dial(dial) => Some(dial.kind()),
        _ => None,
    }
}

pub fn is_open(error: &CheckoutError) -> bool {
    matches!(error, CheckoutError::BreakerOpen { .. })
}
