//! The network, the connector and the resolver: what they do, the seed says.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use corepool::{
    Answer, BoxError, BreakerState, Condition, Connection, Connector, Endpoint, Inspect, Resolver,
    Resolving, Socket,
    sim::{Dial, Network, Promise, SimConnection, SimConnector},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    account::Handed,
    profile::pause,
    world::{Plant, Weather, World},
};

/// The network of a seed.
#[derive(Debug)]
pub struct Net(pub Arc<World>);

impl Network for Net {
    fn dial(&self, shard: usize, to: SocketAddr) -> Dial {
        let world = &self.0;
        let group = world.group_of(to);
        world.note_dial(group);
        let storm = world.profile.storm;
        let (dial, what) = world.with(|state| {
            let random = &mut state.random;
            let slow = |random: &mut _| pause(random, 400);
            match state.weather[group] {
                Weather::Refusing => (Dial::RefuseAfter(pause(random, 30)), "refused"),
                Weather::Blackholed => (Dial::Blackhole, "blackholed"),
                Weather::Slow => (Dial::Accept(slow(random)), "slow dial"),
                Weather::Fair if random.chance(80 * storm) => match random.below(6) {
                    0 => (Dial::Refuse, "refused"),
                    1 => (Dial::RefuseAfter(slow(random)), "refused late"),
                    2 => (Dial::Blackhole, "blackholed"),
                    3 => (Dial::Accept(slow(random)), "slow dial"),
                    4 => {
                        (Dial::AcceptLate(pause(random, 3_000)), "completed after it was given up")
                    }
                    _ => (Dial::NoDescriptors, "out of descriptors"),
                },
                Weather::Fair => (Dial::Accept(pause(random, 5)), "dial"),
            }
        });
        world.note(what);
        world.trace(format_args!("shard {shard} dials {to}: {dial:?}"));
        dial
    }

    fn dial_over(&self, to: SocketAddr) {
        self.0.note_dial_over(self.0.group_of(to));
    }

    fn close(&self) -> Duration {
        self.0.delay("slow close", 10, 100)
    }

    fn report(&self) -> Duration {
        self.0.delay("late hang-up", 60, 200)
    }

    fn fails(&self, shard: usize) -> bool {
        let fails = self.0.profile.storm >= 2 && self.0.with(|state| state.random.below(800)) == 0;
        if fails {
            self.0.note("driver failed");
            self.0.trace(format_args!("the driver of shard {shard} fails"));
        }
        fails
    }

    fn breaks(&self, promise: Promise) -> bool {
        let (plant, per_mille) = match promise {
            Promise::TellsCloses => (Plant::ForgottenClose, 50),
            _ => (Plant::HiddenHangUp, 500),
        };
        self.0.plant == Some(plant) && self.0.with(|state| state.random.chance(per_mille))
    }
}

/// Makes the connections of a seed.
pub struct Maker(pub Arc<World>);

impl Connector for Maker {
    type Connection = Conn;

    async fn connect(&self, socket: Socket, endpoint: &Endpoint) -> Result<Conn, BoxError> {
        let world = &self.0;
        let storm = world.profile.storm;
        let (fate, wait) = world.with(|state| {
            let fate = state.random.below(1000);
            (fate, pause(&mut state.random, 20))
        });
        match fate {
            fate if fate < 15 * storm => {
                world.note("connector failed");
                return Err("the handshake failed".into());
            }
            fate if fate < 25 * storm => {
                world.note("connector panicked");
                // Without the hook, which takes note of panics that nobody planned.
                std::panic::resume_unwind(Box::new("the handshake panicked"));
            }
            fate if fate < 40 * storm => {
                world.note("connector hung");
                std::future::pending::<()>().await;
            }
            fate if fate < 300 => tokio::time::sleep(wait).await,
            _ => {}
        }
        let connection = SimConnector.connect(socket, endpoint).await?;
        Ok(Conn::new(Arc::clone(world), connection))
    }

    async fn ping(&self, conn: &mut Conn) -> Result<(), BoxError> {
        let storm = self.0.profile.storm;
        let asked = Asked(Arc::clone(&self.0), conn.id);
        self.0.with(|state| {
            let record = state.account.records.entry(conn.id).or_default();
            record.asked = true;
        });
        self.0.note("ping");
        let fate = self.0.with(|state| state.random.below(1000));
        if fate < 50 * storm {
            return Err("no answer".into());
        }
        if fate < 80 * storm {
            self.0.note("ping hung");
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(Duration::from_millis(fate % 5)).await;
        drop(asked);
        Ok(())
    }
}

/// A ping under way.
struct Asked(Arc<World>, u64);

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.with(|state| {
            state.account.records.entry(self.1).or_default().asked = false;
        });
    }
}

/// A connection that the account follows.
#[derive(Debug)]
pub struct Conn {
    pub id: u64,
    /// `None` once it was given up to be closed.
    inner: Option<SimConnection>,
    world: Arc<World>,
}

impl Conn {
    fn new(world: Arc<World>, connection: SimConnection) -> Self {
        let id = connection.id();
        let group = world.group_of(connection.dialed());
        world.with(|state| {
            // Its peer may have spoken before the handshake was over.
            let record = state.account.records.entry(id).or_default();
            (record.group, record.made) = (group, true);
            state.account.tally.add("connection");
        });
        Self { id, inner: Some(connection), world }
    }

    /// It is ready: unless the hook refuses it, the engine gets it in this very moment.
    pub fn welcome(&self) -> Result<(), BoxError> {
        let fate = self.world.with(|state| {
            let records = &mut state.account.records;
            if let Some(record) = records.get_mut(&self.id) {
                record.evictions = Some(state.account.sides[record.group].evictions);
            }
            state.random.below(1000)
        });
        match fate {
            fate if fate < 5 * self.world.profile.storm => {
                self.world.note("hook panicked");
                std::panic::resume_unwind(Box::new("the hook panicked"));
            }
            fate if fate < 10 * self.world.profile.storm => {
                self.world.note("hook refused");
                Err("the hook refused it".into())
            }
            _ => Ok(()),
        }
    }

    /// What a hook says that looks at connections as they come and go.
    pub fn passes(&self, when: &'static str) -> bool {
        let passes = !self.world.with(|state| state.random.chance(30));
        if !passes {
            self.world.note("hook refused");
            self.world.trace(format_args!("the hook refuses {} {when}", self.id));
        }
        passes
    }

    fn stream(&mut self) -> &mut SimConnection {
        self.inner.as_mut().expect("it was not given up")
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.world.with(|state| state.account.close(self.id));
    }
}

impl Connection for Conn {
    fn inspect(&mut self, _: Inspect) -> Condition {
        if !self.world.profile.sees {
            return Condition::Usable;
        }
        if self.world.with(|state| state.account.records[&self.id].unasked) {
            return Condition::UnexpectedBytes;
        }
        if self.stream().is_gone() { Condition::Closed } else { Condition::Usable }
    }

    /// Asked once as a guard is made, and not at all by these callers.
    fn bytes_written(&self) -> Option<u64> {
        let inner = self.inner.as_ref()?;
        let handed =
            Handed { id: self.id, reported: inner.is_reported_gone(), gone: inner.is_gone() };
        self.world.with(|state| state.account.handed = Some(handed));
        None
    }

    fn into_socket(mut self) -> Option<Socket> {
        self.inner.take()?.into_socket()
    }
}

impl AsyncRead for Conn {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut **self.stream()).poll_read(cx, buf)
    }
}

impl AsyncWrite for Conn {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        std::pin::Pin::new(&mut **self.stream()).poll_write(cx, buf)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut **self.stream()).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut **self.stream()).poll_shutdown(cx)
    }
}

/// Knows the addresses of the moment.
#[derive(Debug)]
pub struct Names(pub Arc<World>);

impl Resolver for Names {
    fn resolve<'a>(&'a self, _: &'a str) -> Resolving<'a> {
        Box::pin(async {
            let storm = self.0.profile.storm;
            self.0.note("look-up");
            let (fate, wait) = self.0.with(|state| {
                let fate = state.random.below(1000);
                (fate, pause(&mut state.random, 50))
            });
            tokio::time::sleep(wait).await;
            if fate < 40 * storm {
                self.0.note("look-up failed");
                return Err(io::Error::other("nobody knows"));
            }
            if fate < 60 * storm {
                self.0.note("look-up hung");
                std::future::pending::<()>().await;
            }
            let addresses: Vec<IpAddr> = self.0.with(|state| state.addresses.clone());
            Ok(Answer::new(addresses, (fate % 2 == 0).then_some(Duration::from_millis(fate))))
        })
    }
}

impl World {
    /// INV-8: a dial has reached the network. What an open breaker lets through was on its way
    /// when it opened; a half-open one lets so many through at once.
    fn note_dial(&self, group: usize) {
        let Some(handle) = self.breaker_of(group) else {
            return;
        };
        let breaker = handle.breaker();
        let dialing = self.slots().dialing as u64;
        let now = self.now_ms();
        self.with(|state| {
            let out: u64 = state.account.sides.iter().map(|side| side.gate.out).sum();
            let side = &mut state.account.sides[group];
            let (gate, most) = (&mut side.gate, side.most_probes);
            gate.out += 1;
            match breaker {
                BreakerState::Open | BreakerState::ForcedOpen => {
                    gate.shut(dialing, out);
                    let admitted = gate.left > 0;
                    gate.left = gate.left.saturating_sub(1);
                    state.account.require(admitted, || {
                        format!("INV-8: a dial to endpoint {group} at {now} ms past a breaker that is {breaker}")
                    });
                }
                BreakerState::HalfOpen => {
                    gate.open = false;
                    gate.probes += 1;
                    let (probes, left) = (gate.probes, gate.left);
                    state.account.require(probes <= most + left, || {
                        format!("INV-8: {probes} probes to endpoint {group}, and {most} may be")
                    });
                }
                _ => {}
            }
        });
    }

    fn note_dial_over(&self, group: usize) {
        self.with(|state| {
            let gate = &mut state.account.sides[group].gate;
            gate.probes = gate.probes.saturating_sub(1);
            gate.out = gate.out.saturating_sub(1);
        });
    }
}
