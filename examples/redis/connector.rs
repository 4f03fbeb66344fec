//! The connector: what it takes to pool the connections of the `redis` crate.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
};

use corepool::{
    BoxError, Condition, Connection, Connector, Endpoint, Inspect, Multiplexed, Socket, StreamMeter,
};
use redis::{
    Arg, AsyncConnectionConfig, Cmd, ErrorKind, Pipeline, RedisConnectionInfo, RedisError,
    RedisFuture, RedisResult, Value,
    aio::{ConnectionLike, MultiplexedConnection},
};
use tokio::task::JoinHandle;

/// Makes connections that have logged in and selected their database before anybody gets them.
///
/// As whom, and which, says the endpoint's tag, `user/database`: so these are part of the identity,
/// and a connection of one user is never another's. Passwords are here, because tags show in logs.
#[derive(Default)]
pub(crate) struct RedisConnector {
    passwords: HashMap<String, String>,
}

/// One connection. The crate's own is a handle to a task which sends commands one after the other
/// and matches answers to them; here that task runs on the shard that dialled, on its reactor.
pub(crate) struct Redis {
    commands: MultiplexedConnection,
    /// Commands whose answers have not come. One whose caller has left stays among them, for
    /// nobody says when its answer comes: such a connection ends when it is given back.
    owed: AtomicU32,
    /// The session is another one than it was at the start, or a caller knows better.
    has_changed: bool,
    meter: Arc<StreamMeter>,
    driver: JoinHandle<()>,
}

/// Commands that are on their way at once on a shared connection.
const PIPELINED: u32 = 100;

impl RedisConnector {
    pub(crate) fn with_login(mut self, user: &str, password: &str) -> Self {
        self.passwords.insert(user.to_owned(), password.to_owned());
        self
    }

    fn login(&self, endpoint: &Endpoint) -> Result<RedisConnectionInfo, BoxError> {
        let info = RedisConnectionInfo::default();
        let Some(tag) = endpoint.tag() else {
            return Ok(info);
        };
        let (user, database) = tag.split_once('/').ok_or("a tag is user/database")?;
        let password = self.passwords.get(user).ok_or_else(|| format!("who is {user:?}?"))?;
        Ok(info.set_username(user).set_password(password).set_db(database.parse()?))
    }
}

impl Connector for RedisConnector {
    type Connection = Redis;

    /// Runs on the shard, within the dial's time. What fails here fails the dial: a wrong password
    /// is told to the caller, and after a few the breaker opens.
    async fn connect(&self, socket: Socket, endpoint: &Endpoint) -> Result<Redis, BoxError> {
        // How long a caller waits is for the caller to say: BLPOP may take its time.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let (login, stream) = (self.login(endpoint)?, socket.into_stream()?);
        // AUTH and SELECT are sent and answered in here.
        let (commands, driver) =
            MultiplexedConnection::new_with_config(&login, stream, config).await?;
        let meter = Arc::new(StreamMeter::new(PIPELINED));
        let driver = tokio::spawn({
            let meter = Arc::clone(&meter);
            async move {
                driver.await;
                // The server has gone: streams that are open fail, and there are no new ones.
                meter.drain();
            }
        });
        Ok(Redis { commands, owed: AtomicU32::new(0), has_changed: false, meter, driver })
    }

    async fn ping(&self, redis: &mut Redis) -> Result<(), BoxError> {
        let answer: String = redis::cmd("PING").query_async(redis).await?;
        if answer == "PONG" { Ok(()) } else { Err(format!("PING was answered {answer:?}").into()) }
    }
}

impl Connection for Redis {
    /// Atomics alone: the driver reads the socket all the time, so it knows first.
    fn inspect(&mut self, _: Inspect) -> Condition {
        if self.driver.is_finished() || self.meter.capacity().is_draining {
            Condition::Closed
        } else if *self.owed.get_mut() > 0 {
            Condition::Unusable
        } else {
            Condition::Usable
        }
    }

    /// Commands and answers are whole whatever callers do, so a guard that is dropped need not cost
    /// the connection; unless an answer is due, or the session is not what the next caller expects.
    fn is_clean_on_drop(&self) -> bool {
        self.owed.load(SeqCst) == 0 && !self.has_changed
    }
}

impl Multiplexed for Redis {
    fn meter(&self) -> &StreamMeter {
        &self.meter
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // The task has the socket, and would keep it until a server that hangs has taken all that
        // was written.
        self.driver.abort();
    }
}

impl Redis {
    async fn send(&self, command: &Cmd) -> RedisResult<Value> {
        self.owed.fetch_add(1, SeqCst);
        let answer = self.commands.clone().send_packed_command(command).await;
        self.owed.fetch_sub(1, SeqCst);
        answer
    }

    async fn send_all(&self, all: &Pipeline, skip: usize, count: usize) -> RedisResult<Vec<Value>> {
        self.owed.fetch_add(1, SeqCst);
        let answers = self.commands.clone().send_packed_commands(all, skip, count).await;
        self.owed.fetch_sub(1, SeqCst);
        answers
    }
}

/// Commands by a shared reference, which is what a stream's lease lends: all but those that would
/// change what others on the connection see, or make them wait.
impl ConnectionLike for &Redis {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            refuse_if_alone([command])?;
            self.send(command).await
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        all: &'a Pipeline,
        skip: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async move {
            refuse_if_alone(all.cmd_iter())?;
            self.send_all(all, skip, count).await
        })
    }

    fn get_db(&self) -> i64 {
        self.commands.get_db()
    }
}

/// All commands by an exclusive reference, which is what a checkout's guard lends.
///
/// Who has changed the session says how it ended: `release()` when it is what it was (a WATCH whose
/// EXEC has run), `discard()` when it is not. Without a word the connection is closed.
impl ConnectionLike for Redis {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        self.has_changed |= changes_session(command);
        Box::pin(self.send(command))
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        all: &'a Pipeline,
        skip: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        self.has_changed |= all.cmd_iter().any(changes_session);
        Box::pin(self.send_all(all, skip, count))
    }

    fn get_db(&self) -> i64 {
        self.commands.get_db()
    }
}

/// Commands that make the session another one than the next caller expects. (An `atomic()` pipeline
/// is none: its MULTI and EXEC travel together.)
const SESSION: &str = "AUTH CLIENT HELLO MONITOR MULTI PSUBSCRIBE QUIT READONLY RESET SELECT \
    SSUBSCRIBE SUBSCRIBE WATCH";

/// Commands that wait, and all that comes after them on the connection with them.
const WAITING: &str = "BLMOVE BLMPOP BLPOP BRPOP BRPOPLPUSH BZMPOP BZPOPMAX BZPOPMIN WAIT WAITAOF \
    XREAD XREADGROUP";

fn is_one_of(command: &Cmd, names: &str) -> bool {
    let Some(Arg::Simple(name)) = command.args_iter().next() else {
        return false;
    };
    names.split(' ').any(|other| name.eq_ignore_ascii_case(other.as_bytes()))
}

fn changes_session(command: &Cmd) -> bool {
    is_one_of(command, SESSION)
}

fn refuse_if_alone<'a>(commands: impl IntoIterator<Item = &'a Cmd>) -> RedisResult<()> {
    let for_one = |command: &Cmd| changes_session(command) || is_one_of(command, WAITING);
    if commands.into_iter().any(for_one) {
        let why = "this command takes a connection of one's own: check one out";
        return Err(RedisError::from((ErrorKind::Client, why)));
    }
    Ok(())
}
