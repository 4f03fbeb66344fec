//! Sets a socket up before it connects.

use core::fmt;
use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use socket2::{SockAddr, SockRef, TcpKeepalive};

use crate::sockets::{Keepalive, SocketOptions};

/// Sets what a TCP socket is to have but `TCP_NODELAY` and the port window, which the drivers
/// have ways of their own for.
///
/// # Errors
/// When the system refuses an option; the error names it.
pub(super) fn set_up_tcp(
    socket: &SockRef<'_>,
    to: IpAddr,
    options: &SocketOptions,
) -> io::Result<()> {
    if let Some(keepalive) = options.keepalive {
        socket
            .set_tcp_keepalive(&times_of(keepalive))
            .map_err(|error| refused(format_args!("{keepalive:?}"), error))?;
    }
    #[cfg(target_os = "linux")]
    set_linux(socket, options)?;
    #[cfg(unix)]
    run_hook(&**socket, options)?;
    let source = options.source_for(to).map_err(|error| refused("the source address", error))?;
    if let Some(source) = source {
        bind_to(socket, source)
            .map_err(|error| refused(format_args!("the source address {source}"), error))?;
    }
    Ok(())
}

fn times_of(keepalive: Keepalive) -> TcpKeepalive {
    let times = TcpKeepalive::new().with_time(keepalive.idle);
    #[cfg(any(target_vendor = "apple", target_os = "freebsd", target_os = "netbsd"))]
    let times = times.with_interval(keepalive.interval).with_retries(keepalive.probes);
    #[cfg(any(target_os = "linux", target_os = "android", windows))]
    let times = times.with_interval(keepalive.interval).with_retries(keepalive.probes);
    times
}

#[cfg(target_os = "linux")]
fn set_linux(socket: &SockRef<'_>, options: &SocketOptions) -> io::Result<()> {
    if let Some(timeout) = options.user_timeout {
        socket
            .set_tcp_user_timeout(Some(timeout))
            .map_err(|error| refused("TCP_USER_TIMEOUT", error))?;
    }
    if let Some(mark) = options.fwmark {
        socket.set_mark(mark).map_err(|error| {
            let needs = if error.kind() == io::ErrorKind::PermissionDenied {
                " (it needs CAP_NET_ADMIN or, from Linux 5.17 on, CAP_NET_RAW)"
            } else {
                ""
            };
            refused(format_args!("the fwmark {mark}{needs}"), error)
        })?;
    }
    Ok(())
}

/// The hook is someone else's code: a panic in it must not end the shard.
///
/// # Errors
/// The hook's own.
#[cfg(unix)]
pub(super) fn run_hook(socket: &impl std::os::fd::AsFd, options: &SocketOptions) -> io::Result<()> {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    let Some(hook) = &options.before_connect else {
        return Ok(());
    };
    catch_unwind(AssertUnwindSafe(|| hook(socket.as_fd())))
        .unwrap_or_else(|_| Err(io::Error::other("it panicked")))
        .map_err(|error| refused("the hook before the connect", error))
}

fn bind_to(socket: &SockRef<'_>, source: IpAddr) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use nix::{
            errno::Errno,
            sys::socket::{setsockopt, sockopt::IpBindAddressNoPort},
        };
        match setsockopt(&**socket, IpBindAddressNoPort, &true) {
            // Before 4.2 the bind takes a port of its own.
            Ok(()) | Err(Errno::ENOPROTOOPT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    socket.bind(&SockAddr::from(SocketAddr::new(source, 0)))
}

/// An option that the system refused. Of no kind of its own: `EADDRNOTAVAIL` from a bind is not
/// the want of ports that it is from a connect.
#[derive(Debug)]
struct Refused {
    option: String,
    source: io::Error,
}

/// The error of a dial whose socket could not be set up.
pub(super) fn refused(option: impl fmt::Display, source: io::Error) -> io::Error {
    io::Error::other(Refused { option: option.to_string(), source })
}

/// Whether a dial failed because its socket could not be set up: nobody was asked yet.
pub(crate) fn is_refused(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|cause| cause.is::<Refused>())
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.option, self.source)
    }
}

impl std::error::Error for Refused {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}
