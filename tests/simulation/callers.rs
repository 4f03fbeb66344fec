//! Callers and origins: who uses the connections, and who is at their other end.

use std::{cell::Cell, rc::Rc, sync::Arc, sync::atomic::Ordering, time::Duration};

use corepool::{
    CheckoutError, Group, Pooled,
    sim::{self, Peer, Peers, Place},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep, timeout},
};

use crate::{
    executor::{Spawner, Where, poll_at_most},
    network::Maker,
    profile::pause,
    random::Random,
    world::{Plant, World},
};

/// Somewhere: on a shard as a rule.
pub fn somewhere(random: &mut Random, shards: usize) -> Place {
    if random.chance(700) {
        return Place::Shard(random.below(shards as u64) as usize);
    }
    Place::Elsewhere(random.below(8) as u32)
}

pub struct Caller {
    pub id: usize,
    pub world: Arc<World>,
    pub random: Random,
    pub place: Where,
}

impl Caller {
    pub async fn run(mut self) {
        for round in 0..self.world.profile.rounds {
            let most = if self.world.profile.busy { 10 } else { 400 };
            sleep(pause(&mut self.random, most)).await;
            self.serve(round).await;
        }
        // Relaxed: one thread.
        self.world.callers.fetch_sub(1, Ordering::Relaxed);
    }

    async fn serve(&mut self, round: u64) {
        let which = self.random.below(self.world.profile.groups as u64) as usize;
        let group = self.world.group(which);
        let Some(outcome) = self.check_out(which, &group).await else {
            return;
        };
        let (id, world) = (self.id, Arc::clone(&self.world));
        let guard = match outcome {
            Ok(guard) => guard,
            Err(error) => {
                match &error {
                    // Its text may name a task by a number that the process counts on.
                    CheckoutError::Dial(dial) => {
                        world.trace(format_args!("caller {id} fails: dial: {:?}", dial.kind()));
                    }
                    error => world.trace(format_args!("caller {id} fails: {error}")),
                }
                return self.note_failure(&error);
            }
        };
        let sees = world.profile.sees;
        let Some(conn) = world.with(|state| state.account.hand_out(id, which, sees)) else {
            return;
        };
        let reused = guard.is_reused();
        world.note(if reused { "reuse" } else { "fresh" });
        world.trace(format_args!("caller {id} has connection {conn} of {which}, reused: {reused}"));
        self.use_up(guard, conn, round).await;
    }

    /// `None` when it was given up.
    async fn check_out(
        &mut self,
        which: usize,
        group: &Group<Maker>,
    ) -> Option<Result<Pooled<Maker>, CheckoutError>> {
        let world = Arc::clone(&self.world);
        if self.random.chance(120) {
            world.note("try");
            return group.try_checkout().map(Ok);
        }
        let (began, jumped) = (Instant::now(), world.with(|state| state.jumped));
        let policy = group.settings();
        let bound = Duration::from_millis(policy.timeouts.acquire_timeout_ms.into());
        let held = world.with(|state| {
            let side = &state.account.sides[which];
            side.held && !side.closed
        });
        let times = match self.random.below(10) {
            0 | 1 => self.random.between(1, 4) as u32,
            _ => u32::MAX,
        };
        let patience = match self.random.chance(150) {
            true => pause(&mut self.random, 300),
            false => Duration::MAX,
        };
        let fresh = self.random.chance(150);
        let polls = Rc::new(Cell::new(0_u32));
        let counted = Rc::clone(&polls);
        let asked = async {
            let mut checkout: std::pin::Pin<Box<dyn Future<Output = _>>> = match fresh {
                true => Box::pin(group.checkout_fresh()),
                false => Box::pin(group.checkout()),
            };
            std::future::poll_fn(|cx| {
                counted.set(counted.get() + 1);
                checkout.as_mut().poll(cx)
            })
            .await
        };
        world.note(if fresh { "checkout fresh" } else { "checkout" });
        let Ok(Some(outcome)) = timeout(patience, poll_at_most(times, asked)).await else {
            world.note("cancelled checkout");
            return None;
        };
        let allowed = bound + (world.with(|state| state.jumped) - jumped) + SLACK;
        let took = began.elapsed();
        if took > allowed {
            world.violate(format!("INV-5: caller {} waited {took:?} of {bound:?}", self.id));
        }
        if held && polls.get() == 1 && outcome.is_ok() {
            world.violate(format!("caller {} was served by held endpoint {which}", self.id));
        }
        Some(outcome)
    }

    fn note_failure(&self, error: &CheckoutError) {
        self.world.note(match error {
            CheckoutError::Dial(_) => "failed by its dial",
            CheckoutError::Timeout { .. } => "timed out",
            CheckoutError::WaitersFull { .. } => "refused: full",
            CheckoutError::AtLimit { .. } => "refused: limit",
            CheckoutError::BreakerOpen { .. } => "refused: breaker",
            CheckoutError::Exhausted { .. } => "refused: slots",
            CheckoutError::Closed { .. } => "refused: closed",
            _ => "refused otherwise",
        });
    }

    async fn use_up(&mut self, mut guard: Pooled<Maker>, conn: u64, round: u64) {
        let world = Arc::clone(&self.world);
        let talks = self.random.chance(800);
        let mut clean = true;
        if talks {
            let token = ((self.id as u64) << 32 | round << 16 | conn).to_be_bytes();
            clean = self.exchange(&mut guard, &token, conn).await;
        }
        match self.random.below(100) {
            0..=1 => {
                world.note("held for long");
                sleep(Duration::from_secs(20)).await;
            }
            2..=40 if world.profile.busy => sleep(pause(&mut self.random, 20)).await,
            2..=40 => sleep(pause(&mut self.random, 500)).await,
            _ => {}
        }
        if self.random.chance(200) {
            let place = somewhere(&mut self.random, world.profile.shards);
            self.place.set(place);
            sim::enter(&world.pool(), place);
        }
        // Before it is: from then on it may be anybody's.
        let give_up = || {
            world.with(|state| {
                if let Some(record) = state.account.records.get_mut(&conn) {
                    record.owner = None;
                }
            });
        };
        let id = self.id;
        match self.random.below(100) {
            0..=4 => {
                world.note("detached");
                world.trace(format_args!("caller {id} detaches {conn}"));
                world.with(|state| {
                    if let Some(record) = state.account.records.get_mut(&conn) {
                        record.detached = true;
                    }
                });
                let own = guard.detach();
                sleep(pause(&mut self.random, 300)).await;
                drop(own);
            }
            5..=14 => {
                give_up();
                world.note("discarded");
                world.trace(format_args!("caller {id} discards {conn}"));
                guard.discard();
            }
            15..=29 => {
                give_up();
                world.note(if talks { "dropped dirty" } else { "dropped clean" });
                world.trace(format_args!("caller {id} drops {conn}"));
                drop(guard);
            }
            _ if clean => {
                // A planted bug: the account still has it for ours when the next one gets it.
                if world.plant != Some(Plant::TwoOwners) || !self.random.chance(100) {
                    give_up();
                }
                world.note("released");
                world.trace(format_args!("caller {id} releases {conn}"));
                guard.release();
            }
            _ => {
                give_up();
                world.note("discarded");
                world.trace(format_args!("caller {id} discards {conn}, which failed"));
                guard.discard();
            }
        }
    }

    /// Whether the answer was whole and the caller's own.
    async fn exchange(&mut self, guard: &mut Pooled<Maker>, token: &[u8; 8], conn: u64) -> bool {
        let patience = Duration::from_millis(self.random.between(20, 400));
        let mut answer = [0; 8];
        let exchange = async {
            guard.write_all(token).await?;
            guard.read_exact(&mut answer).await
        };
        let whole = matches!(timeout(patience, exchange).await, Ok(Ok(_)));
        let unasked = self.world.with(|state| state.account.records[&conn].unasked);
        if whole && answer != *token && !unasked {
            let caller = self.id;
            self.world.violate(format!("INV-1: caller {caller} got another's answer on {conn}"));
        }
        if !whole {
            self.world.note("exchange failed");
        }
        whole && answer == *token
    }
}

/// How late an answer may be that is due at a certain time: timers go by the millisecond.
const SLACK: Duration = Duration::from_millis(5);

/// Takes in the far ends, for as long as there is a network.
pub async fn accept(world: Arc<World>, mut peers: Peers, spawner: Spawner, mut random: Random) {
    while let Some(peer) = peers.next_or_end().await {
        let name = format!("origin {}", peer.id());
        let place = Rc::new(Cell::new(Place::Elsewhere(99)));
        spawner.spawn(name, place, serve(Arc::clone(&world), peer, random.fork()));
    }
}

/// One origin's end of one connection.
async fn serve(world: Arc<World>, mut peer: Peer, mut random: Random) {
    let (storm, id) = (world.profile.storm, peer.id());
    let mut buffer = [0; 64];
    loop {
        let patience = Duration::from_millis(random.between(5, 1_500));
        match timeout(patience, peer.stream.read(&mut buffer)).await {
            Ok(Ok(0) | Err(_)) => return,
            Ok(Ok(got)) => {
                if random.chance(100) {
                    sleep(pause(&mut random, 200)).await;
                }
                match random.below(1000) {
                    fate if fate < 10 * storm => {
                        world.note("FIN instead of an answer");
                        return peer.hang_up();
                    }
                    fate if fate < 20 * storm => {
                        world.note("RST instead of an answer");
                        return peer.reset();
                    }
                    fate if fate < 30 * storm => world.note("no answer"),
                    fate if fate < 40 * storm => {
                        world.note("half-closed while the caller writes");
                        let _ = peer.stream.write_all(&buffer[..got / 2]).await;
                        peer.half_close();
                        return read_on(peer).await;
                    }
                    _ => drop(peer.stream.write_all(&buffer[..got]).await),
                }
            }
            // It is at rest, as far as the origin knows.
            Err(_) if random.chance(100 + 150 * storm) => match random.below(8) {
                0..=2 => {
                    world.note("FIN at rest");
                    world.trace(format_args!("the origin of {id} hangs up"));
                    return peer.hang_up();
                }
                3 | 4 if storm > 0 => {
                    world.note("RST at rest");
                    world.trace(format_args!("the origin of {id} resets"));
                    return peer.reset();
                }
                5 if storm > 0 => {
                    world.note("half-closed");
                    peer.half_close();
                    return read_on(peer).await;
                }
                6 if storm > 0 => {
                    world.note("unexpected bytes");
                    world.trace(format_args!("the origin of {id} speaks unasked"));
                    world.with(|state| {
                        state.account.records.entry(id).or_default().unasked = true;
                    });
                    let _ = peer.stream.write_all(b"unasked!").await;
                }
                _ => {}
            },
            Err(_) => {}
        }
    }
}

/// Hears what comes until the other end is closed.
async fn read_on(mut peer: Peer) {
    let mut buffer = [0; 64];
    while !matches!(peer.stream.read(&mut buffer).await, Ok(0) | Err(_)) {}
}
