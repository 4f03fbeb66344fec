//! What is set on a socket before it connects.

use core::{fmt, ops::RangeInclusive, time::Duration};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};
#[cfg(unix)]
use std::{os::fd::BorrowedFd, sync::Arc};

use crate::{BuildError, Endpoint, settings};

/// How the pool's sockets are set up before they connect.
///
/// What is not asked for is not touched: with the defaults the io_uring driver sets `TCP_NODELAY`
/// in the same submission as the connect, and makes no system call of its own for a dial. Every
/// other option costs one.
///
/// For a unix socket only [`before_connect`](Self::before_connect) has a meaning; the others are
/// passed over.
///
/// ```
/// use std::time::Duration;
/// use corepool::{Keepalive, SocketOptions};
///
/// let options = SocketOptions::default()
///     .keepalive(Keepalive::default().idle(Duration::from_secs(30)))
///     .source("127.0.0.1".parse()?);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct SocketOptions {
    pub(crate) nodelay: bool,
    pub(crate) keepalive: Option<Keepalive>,
    pub(crate) source_v4: Option<Ipv4Addr>,
    pub(crate) source_v6: Option<Ipv6Addr>,
    pub(crate) user_timeout: Option<Duration>,
    pub(crate) fwmark: Option<u32>,
    pub(crate) port_window: Option<PortWindow>,
    #[cfg(unix)]
    pub(crate) before_connect: Option<Hook>,
}

/// Code of the pool's user that sees each socket before it connects.
#[cfg(unix)]
pub(crate) type Hook = Arc<dyn Fn(BorrowedFd<'_>) -> io::Result<()> + Send + Sync>;

impl SocketOptions {
    /// `TCP_NODELAY`: small writes leave at once. Default: on.
    #[must_use]
    pub fn nodelay(mut self, on: bool) -> Self {
        self.nodelay = on;
        self
    }

    /// `SO_KEEPALIVE` and its times. Default: off. A FIN and an RST are seen without it, and a
    /// connection at rest ends at its idle timeout; it finds peers that vanish without either
    /// while a connection is in use and nothing is being sent.
    #[must_use]
    pub fn keepalive(mut self, keepalive: Keepalive) -> Self {
        self.keepalive = Some(keepalive);
        self
    }

    /// `TCP_USER_TIMEOUT`: how long sent data may stay unacknowledged before the connection
    /// ends, 1 ms to 24 days. It bounds the probes of [`Self::keepalive`] too. Default: the
    /// system's, which retransmits for about 15 minutes (`net.ipv4.tcp_retries2`). Linux 2.6.37.
    #[cfg(target_os = "linux")]
    #[must_use]
    pub fn user_timeout(mut self, timeout: Duration) -> Self {
        self.user_timeout = Some(timeout);
        self
    }

    /// The local address to connect from. Default: the route's.
    ///
    /// Once for each family. When only one is set, a dial to an address of the other fails rather
    /// than leave from an address that was not asked for. On Linux (4.2) the port is chosen by
    /// the connect (`IP_BIND_ADDRESS_NO_PORT`), so a source address has its range of ports for
    /// each destination and not one for all of them.
    #[must_use]
    pub fn source(mut self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => self.source_v4 = Some(address),
            IpAddr::V6(address) => self.source_v6 = Some(address),
        }
        self
    }

    /// `SO_MARK`, for policy routing and filters. Default: none. The process needs
    /// `CAP_NET_ADMIN` or, from Linux 5.17 on, `CAP_NET_RAW`; without, every dial fails and says
    /// so.
    #[cfg(target_os = "linux")]
    #[must_use]
    pub fn fwmark(mut self, mark: u32) -> Self {
        self.fwmark = Some(mark);
        self
    }

    /// Has each dial look for its local port in a small window at a random place, by
    /// `IP_LOCAL_PORT_RANGE` (Linux 6.3). Default: off; see [`PortWindow`].
    #[cfg(target_os = "linux")]
    #[must_use]
    pub fn port_window(mut self, window: PortWindow) -> Self {
        self.port_window = Some(window);
        self
    }

    /// Runs on each socket before it connects, unix sockets too: for options that have no setter
    /// here. It comes after the other options and before the bind to a source address, so that it
    /// can allow one that is not the machine's own (`IP_TRANSPARENT`, `IP_FREEBIND`). Default:
    /// none.
    ///
    /// It runs on the shard's thread and must not block. Its error, or its panic, fails the dial;
    /// the error is found among the sources of the [`DialError`](crate::DialError). A dial that
    /// tries several addresses or ports may have several sockets.
    #[cfg(unix)]
    #[must_use]
    pub fn before_connect(
        mut self,
        hook: impl Fn(BorrowedFd<'_>) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.before_connect = Some(Arc::new(hook));
        self
    }

    /// Checks every value once.
    pub(crate) fn check(&self) -> Result<(), BuildError> {
        if let Some(Keepalive { idle, interval, probes }) = self.keepalive {
            for (setting, time) in
                [("sockets.keepalive.idle", idle), ("sockets.keepalive.interval", interval)]
            {
                if !(MIN_KEEPALIVE..=MAX_KEEPALIVE).contains(&time) {
                    return Err(refused(setting, format!("{time:?}"), "1 s to 32767 s"));
                }
            }
            if !(1..=MAX_PROBES).contains(&probes) {
                let setting = "sockets.keepalive.probes";
                return Err(refused(setting, probes.to_string(), "1 to 127"));
            }
        }
        if let Some(timeout) = self.user_timeout
            && !(1..=i32::MAX as u128).contains(&timeout.as_millis())
        {
            let value = format!("{timeout:?}");
            return Err(refused("sockets.user_timeout", value, "1 ms to 24 days"));
        }
        match &self.port_window {
            Some(window) => window.check(system_ports()),
            None => Ok(()),
        }
    }

    /// With what a policy sets; what it leaves alone stays.
    pub(crate) fn with_settings(mut self, settings: &settings::Sockets) -> Self {
        self.nodelay &= settings.nodelay;
        if let Some(idle) = settings.keepalive_idle_s {
            // What is left to the system is Linux's own there.
            let interval = settings.keepalive_interval_s.unwrap_or(75);
            self.keepalive = Some(Keepalive {
                idle: Duration::from_secs(idle.into()),
                interval: Duration::from_secs(interval.into()),
                probes: settings.keepalive_probes.unwrap_or(9),
            });
        }
        if let Some(timeout) = settings.user_timeout_ms {
            self.user_timeout = Some(Duration::from_millis(timeout.into()));
        }
        if let Some(source) = settings.source {
            self = self.source(source);
        }
        self.fwmark = settings.fwmark.or(self.fwmark);
        if settings.port_window.is_some() || settings.port_range.is_some() {
            let mut window = PortWindow::default();
            if let Some(size) = settings.port_window {
                window = window.size(size);
            }
            if let Some((first, last)) = settings.port_range {
                window = window.range(first..=last);
            }
            self.port_window = Some(window);
        }
        self
    }

    /// With what tells an endpoint from others.
    pub(crate) fn for_endpoint(mut self, endpoint: &Endpoint) -> Self {
        if let Some(source) = endpoint.source() {
            (self.source_v4, self.source_v6) = (None, None);
            self = self.source(source);
        }
        self.fwmark = endpoint.mark().or(self.fwmark);
        self
    }

    /// The address to connect from to one of this family.
    ///
    /// # Errors
    /// When there are source addresses, and none of this family.
    pub(crate) fn source_for(&self, to: IpAddr) -> io::Result<Option<IpAddr>> {
        let (source, other) = match to {
            IpAddr::V4(_) => (self.source_v4.map(IpAddr::V4), self.source_v6.map(IpAddr::V6)),
            IpAddr::V6(_) => (self.source_v6.map(IpAddr::V6), self.source_v4.map(IpAddr::V4)),
        };
        match (source, other) {
            (None, Some(other)) => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("the source address {other} is of another family than {to}"),
            )),
            (source, _) => Ok(source),
        }
    }
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            nodelay: true,
            keepalive: None,
            source_v4: None,
            source_v6: None,
            user_timeout: None,
            fwmark: None,
            port_window: None,
            #[cfg(unix)]
            before_connect: None,
        }
    }
}

impl fmt::Debug for SocketOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut f = f.debug_struct("SocketOptions");
        f.field("nodelay", &self.nodelay)
            .field("keepalive", &self.keepalive)
            .field("source_v4", &self.source_v4)
            .field("source_v6", &self.source_v6)
            .field("user_timeout", &self.user_timeout)
            .field("fwmark", &self.fwmark)
            .field("port_window", &self.port_window);
        #[cfg(unix)]
        f.field("before_connect", &self.before_connect.is_some());
        f.finish_non_exhaustive()
    }
}

/// When a silent connection is probed, and when it is given up: by default 30 s after the peer
/// was last heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Keepalive {
    pub(crate) idle: Duration,
    pub(crate) interval: Duration,
    pub(crate) probes: u32,
}

/// Linux: 1 to `MAX_TCP_KEEPIDLE` and `MAX_TCP_KEEPINTVL`, in whole seconds (`net/tcp.h`).
const MIN_KEEPALIVE: Duration = Duration::from_secs(1);
const MAX_KEEPALIVE: Duration = Duration::from_secs(32767);
/// Linux: `MAX_TCP_KEEPCNT`.
const MAX_PROBES: u32 = 127;

impl Keepalive {
    /// Silence before the first probe, 1 s to 32767 s, in whole seconds. Default: 15 s.
    #[must_use]
    pub fn idle(mut self, idle: Duration) -> Self {
        self.idle = idle;
        self
    }

    /// Time between probes, 1 s to 32767 s, in whole seconds. Default: 5 s. Where a system has
    /// no such option for a socket (OpenBSD, Solaris) its own holds.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Probes without an answer that end the connection, 1 to 127. Default: 3. Where a system has
    /// no such option for a socket its own holds.
    #[must_use]
    pub fn probes(mut self, probes: u32) -> Self {
        self.probes = probes;
        self
    }
}

impl Default for Keepalive {
    fn default() -> Self {
        Self { idle: Duration::from_secs(15), interval: Duration::from_secs(5), probes: 3 }
    }
}

/// Where a dial looks for its local port: in a window of a few ports, at a random place.
///
/// Connects to one destination search the whole range for a free port, and once half of it is in
/// use (14,000 connections) the search is what a connect costs: measured on Linux 6.18, 965 µs
/// instead of 14 µs. A window bounds the search: 14.5 to 16 µs up to nine tenths in use. A window
/// without a free port is left for another one at random; after four of them the dial searches
/// the whole range. Each such conflict is counted, see
/// [`ShardStats::port_conflicts`](crate::ShardStats::port_conflicts).
///
/// Where the kernel has no `IP_LOCAL_PORT_RANGE` (before 6.3, or in a sandbox) dials connect as
/// without a window, and the log says so once for each shard.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct PortWindow {
    pub(crate) size: u16,
    pub(crate) range: Option<RangeInclusive<u16>>,
}

impl PortWindow {
    /// Ports of a window, from 1 on. Default: 128.
    #[must_use]
    pub fn size(mut self, ports: u16) -> Self {
        self.size = ports;
        self
    }

    /// The ports to choose from, within `net.ipv4.ip_local_port_range` (the kernel passes over
    /// what lies outside). Default: all of that range, as it was when the shard first dialled.
    #[must_use]
    pub fn range(mut self, ports: RangeInclusive<u16>) -> Self {
        self.range = Some(ports);
        self
    }

    fn check(&self, system: Option<RangeInclusive<u16>>) -> Result<(), BuildError> {
        if self.size == 0 {
            let setting = "sockets.port_window.size";
            return Err(refused(setting, self.size.to_string(), "1 to 65535"));
        }
        let Some(range) = &self.range else {
            return Ok(());
        };
        let bounds = system.unwrap_or(1..=u16::MAX);
        if range.is_empty() || !bounds.contains(range.start()) || !bounds.contains(range.end()) {
            let value = format!("{range:?}");
            let allowed = "a range within net.ipv4.ip_local_port_range";
            return Err(refused("sockets.port_window.range", value, allowed));
        }
        Ok(())
    }
}

impl Default for PortWindow {
    fn default() -> Self {
        Self { size: 128, range: None }
    }
}

/// `net.ipv4.ip_local_port_range` of this thread's network namespace; it holds for IPv6 too.
pub(crate) fn system_ports() -> Option<RangeInclusive<u16>> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut ports = text.split_whitespace().map(str::parse);
    match (ports.next()?, ports.next()?) {
        (Ok(first), Ok(last)) => Some(first..=last),
        _ => None,
    }
}

fn refused(setting: &'static str, value: String, allowed: &'static str) -> BuildError {
    BuildError::Setting { setting, value, allowed }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keepalive(change: impl FnOnce(Keepalive) -> Keepalive) -> SocketOptions {
        SocketOptions::default().keepalive(change(Keepalive::default()))
    }

    #[test]
    fn what_the_kernel_would_refuse_is_refused_by_name() {
        let absurd = [
            ("sockets.keepalive.idle", keepalive(|k| k.idle(Duration::from_millis(999)))),
            ("sockets.keepalive.interval", keepalive(|k| k.interval(Duration::MAX))),
            ("sockets.keepalive.probes", keepalive(|k| k.probes(0))),
            ("sockets.keepalive.probes", keepalive(|k| k.probes(128))),
        ];
        for (name, options) in absurd {
            let error = options.check().unwrap_err().to_string();
            assert!(error.starts_with(name) && error.contains("must be"), "{error}");
        }
        SocketOptions::default().check().unwrap();
        keepalive(|k| k.idle(MAX_KEEPALIVE).probes(127)).check().unwrap();
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_user_timeout_is_in_whole_milliseconds() {
        for timeout in [Duration::ZERO, Duration::from_micros(999), Duration::MAX] {
            let error = SocketOptions::default().user_timeout(timeout).check().unwrap_err();
            assert!(error.to_string().starts_with("sockets.user_timeout"), "{error}");
        }
        SocketOptions::default().user_timeout(Duration::from_millis(1)).check().unwrap();
    }

    #[test]
    fn a_window_lies_within_the_systems_range() {
        let system = || Some(32768..=60999);
        let window = PortWindow::default;
        window().check(system()).unwrap();
        window().range(40000..=40003).check(system()).unwrap();
        for (name, window) in [
            ("sockets.port_window.size", window().size(0)),
            #[allow(clippy::reversed_empty_ranges)]
            ("sockets.port_window.range", window().range(40003..=40000)),
            ("sockets.port_window.range", window().range(1024..=40000)),
            ("sockets.port_window.range", window().range(60000..=61000)),
        ] {
            let error = window.check(system()).unwrap_err().to_string();
            assert!(error.starts_with(name), "{error}");
        }
        assert!(window().range(0..=9).check(None).is_err(), "port 0 is none");
    }

    #[test]
    fn a_source_address_is_for_its_family_and_never_passed_over() {
        let v4: IpAddr = "10.0.0.1".parse().unwrap();
        let v6: IpAddr = "2001:db8::1".parse().unwrap();
        let none = SocketOptions::default();
        assert_eq!(none.source_for(v4).unwrap(), None);
        let one = none.source(v4);
        assert_eq!(one.source_for(v4).unwrap(), Some(v4));
        let error = one.source_for(v6).unwrap_err().to_string();
        assert!(error.contains("10.0.0.1") && error.contains("2001:db8::1"), "{error}");
        let both = one.source(v6);
        assert_eq!(both.source_for(v6).unwrap(), Some(v6));
        assert_eq!(both.source_for(v4).unwrap(), Some(v4));
    }
}
