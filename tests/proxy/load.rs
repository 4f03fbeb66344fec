//! Clients that ask again and again, and what each of them was answered.

use std::time::Duration;

use tokio::{sync::watch, task::JoinSet, time::Instant};

use crate::support::{GET, Message, Peer, Proxy};

/// Clients at work, each with a connection of its own and one request at a time.
pub(crate) struct Load {
    stop: watch::Sender<bool>,
    clients: JoinSet<Vec<Answer>>,
}

/// A request that was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) asked: Instant,
    pub(crate) answered: Instant,
    pub(crate) response: Message,
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.response.status()
    }

    pub(crate) fn took(&self) -> Duration {
        self.answered - self.asked
    }
}

impl Load {
    pub(crate) async fn start(proxy: &Proxy, clients: usize) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for _ in 0..clients {
            tasks.spawn(ask_on(proxy.client().await, stopped.clone()));
        }
        Self { stop, clients: tasks }
    }

    /// Lets the requests under way end. All answers, in the order in which they were asked for.
    pub(crate) async fn stop(self) -> Vec<Answer> {
        self.stop.send_replace(true);
        let mut answers: Vec<_> = self.clients.join_all().await.into_iter().flatten().collect();
        answers.sort_by_key(|answer| answer.asked);
        answers
    }
}

async fn ask_on(mut client: Peer, stopped: watch::Receiver<bool>) -> Vec<Answer> {
    let mut answers = Vec::new();
    while !*stopped.borrow() {
        let asked = Instant::now();
        client.send(GET).await;
        let response = client.response().await;
        answers.push(Answer { asked, answered: Instant::now(), response });
        // Errors are fast, and the machine has other tests to run.
        tokio::time::sleep(PAUSE).await;
    }
    answers
}

const PAUSE: Duration = Duration::from_millis(3);
