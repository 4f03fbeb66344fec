//! The pool of this crate, with its own connectors.

use std::{
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use corepool::{
    Backend, BoxError, Condition, Connection, Connector, Endpoint, Group, Host, Inspect, Pool,
    Pooled, Raw, Socket, Tcp,
    settings::{Order, Peek},
};
use nix::sys::socket::{SockaddrIn, getsockname};

use crate::{
    book::Book,
    load::{CALLERS, Idle, call},
    run::{Candidate, Failure, Stage},
};

/// One driver, one connector, one policy of looks, one order.
#[derive(Clone, Copy, Debug)]
pub struct Corepool<C> {
    pub connector: C,
    pub backend: Backend,
    pub peek: Peek,
    pub order: Order,
}

/// Hands everything on to another connector, and writes down when a connection is given up.
#[derive(Debug)]
struct Noting<C> {
    connector: C,
    book: Arc<Book>,
}

#[derive(Debug)]
struct Noted<T> {
    conn: T,
    port: u16,
    book: Arc<Book>,
}

/// The socket in a pooled connection.
trait Fd: Connection + Sync {
    fn fd(&self) -> BorrowedFd<'_>;
}

impl Fd for Raw {
    fn fd(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }
}

impl Fd for Tcp {
    fn fd(&self) -> BorrowedFd<'_> {
        (**self).as_fd()
    }
}

impl<C: Connector<Connection: Fd>> Connector for Noting<C> {
    type Connection = Noted<C::Connection>;

    const SHARD_LOCAL: bool = C::SHARD_LOCAL;
    const HOST: Option<Host> = C::HOST;

    async fn connect(
        &self,
        socket: Socket,
        endpoint: &Endpoint,
    ) -> Result<Self::Connection, BoxError> {
        let conn = self.connector.connect(socket, endpoint).await?;
        let port = getsockname::<SockaddrIn>(std::os::fd::AsRawFd::as_raw_fd(&conn.fd()))?.port();
        Ok(Noted { conn, port, book: Arc::clone(&self.book) })
    }
}

impl<T: Fd> Connection for Noted<T> {
    fn inspect(&mut self, how: Inspect) -> Condition {
        self.conn.inspect(how)
    }

    /// The worker asks for the socket as it closes it: the connection is out of the pool.
    fn into_socket(self) -> Option<Socket> {
        self.book.evict(self.port);
        self.conn.into_socket()
    }
}

impl<C: Connector<Connection: Fd>> Idle for Group<Noting<C>> {
    type Conn = Pooled<Noting<C>>;

    async fn check_out(&self) -> Option<Self::Conn> {
        self.try_checkout()
    }

    fn release(&self, conn: Self::Conn) {
        conn.release();
    }

    fn discard(&self, conn: Self::Conn) {
        conn.discard();
    }

    fn socket(conn: &Self::Conn) -> (BorrowedFd<'_>, u16) {
        (conn.conn.fd(), conn.port)
    }

    fn is_stolen(conn: &Self::Conn) -> bool {
        let home = format!("corepool-{}", conn.shard());
        std::thread::current().name() != Some(&home)
    }
}

impl<C: Connector<Connection: Fd> + Clone> Candidate for Corepool<C> {
    fn run(&self, stage: &mut Stage) -> Result<(), Failure> {
        let connector = Noting { connector: self.connector.clone(), book: Arc::clone(&stage.book) };
        let room = u32::try_from(2 * stage.count)?;
        let pool = Pool::builder(connector)
            .backend(self.backend)
            .shards(2)
            .slots_per_shard(2 * stage.count)
            .max_live(room)
            .max_idle(room)
            .endpoint(|policy| {
                policy.health.peek = self.peek;
                policy.capacity.order = self.order;
                // Nothing ends here but by the origin.
                policy.lifetime.retention_period_ms = None;
            })
            .build()?;
        let group = pool.group(stage.origin.address);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let warm = group.warm_up(stage.count).await;
            if warm.ready != stage.count {
                return Err(format!("{} of {} connections", warm.ready, stage.count).into());
            }
            stage.origin.accepted()?;
            let group = Arc::new(group);
            let mut tasks = Vec::new();
            let callers = stage.callers();
            for shard in pool.shards() {
                tasks.extend(
                    (0..CALLERS).map(|_| {
                        shard.spawn(call(Arc::clone(&group), callers.clone(), stage.pace))
                    }),
                );
            }
            stage.close()?;
            for task in tasks {
                task.await?;
            }
            drop(group);
            pool.close().await;
            Ok(())
        })
    }

    fn name(&self) -> String {
        let backend = if self.backend == Backend::Epoll { "epoll" } else { "io_uring" };
        let connector = std::any::type_name::<C>().rsplit("::").next().unwrap_or_default();
        let peek = if self.peek == Peek::Always { ", peek always" } else { "" };
        let order = if self.order == Order::Lifo { ", LIFO" } else { "" };
        format!("corepool, {backend}, {connector}{peek}{order}")
    }
}
