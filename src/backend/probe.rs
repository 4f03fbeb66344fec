//! Which driver a shard gets: asked for, or found out at run time.

use core::{fmt, str::FromStr};
use std::{io, sync::Arc};

use super::{Driver, PortConflicts, Reactor};

/// What a pool's shards dial, watch and close with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
#[non_exhaustive]
pub enum Backend {
    /// io_uring where the kernel lets us have a ring, tokio's reactor elsewhere. The environment
    /// variable `COREPOOL_BACKEND` (`io-uring` or `epoll`) decides instead when it is set.
    #[default]
    Auto,
    /// io_uring, or an error that says why not.
    IoUring,
    /// tokio's reactor: epoll on Linux, and whatever the other systems have.
    Epoll,
}

impl Backend {
    /// Its name on command lines and in configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::IoUring => "io-uring",
            Self::Epoll => "epoll",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A backend name that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown backend {0:?}: expected auto, io-uring or epoll")]
pub struct ParseBackendError(String);

impl FromStr for Backend {
    type Err = ParseBackendError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        [Self::Auto, Self::IoUring, Self::Epoll]
            .into_iter()
            .find(|backend| backend.as_str() == name)
            .ok_or_else(|| ParseBackendError(name.to_owned()))
    }
}

/// A shard's driver, and why it is this one.
pub(crate) struct Opened {
    pub(crate) driver: Box<dyn Driver>,
    pub(crate) reason: String,
}

/// Opens a driver for the current thread, which must run a tokio runtime.
///
/// # Errors
/// When the one asked for cannot be had, or none can.
pub(crate) fn open(
    backend: Backend,
    slots: usize,
    conflicts: &Arc<PortConflicts>,
) -> io::Result<Opened> {
    let by_reactor = |reason: String| {
        let driver = Box::new(Reactor::new(slots, Arc::clone(conflicts))?);
        Ok(Opened { driver, reason })
    };
    let by_uring = || open_uring(slots, conflicts);
    match backend {
        Backend::Epoll => by_reactor("asked for".to_owned()),
        Backend::IoUring => by_uring(),
        Backend::Auto => by_uring().or_else(|error| by_reactor(error.to_string())),
    }
}

#[cfg(target_os = "linux")]
fn open_uring(slots: usize, conflicts: &Arc<PortConflicts>) -> io::Result<Opened> {
    use super::uring::{Ring, Uring};
    let ring = Ring::new().map_err(explain)?;
    let reason = format!("the kernel has io_uring ({})", ring.features());
    Ok(Opened { driver: Box::new(Uring::new(ring, slots, Arc::clone(conflicts))), reason })
}

#[cfg(not(target_os = "linux"))]
fn open_uring(_slots: usize, _conflicts: &Arc<PortConflicts>) -> io::Result<Opened> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "io_uring is Linux's"))
}

/// Says what an errno of `io_uring_setup` or of the trial means and what to do about it.
#[cfg(target_os = "linux")]
fn explain(error: io::Error) -> io::Error {
    use nix::libc;
    let why = match error.raw_os_error() {
        Some(libc::ENOSYS) => "this kernel has no io_uring",
        Some(libc::EPERM | libc::EACCES) => {
            "io_uring is denied here, by a seccomp filter or kernel.io_uring_disabled"
        }
        Some(libc::EINVAL) => "this kernel's io_uring is too old",
        Some(libc::ENOMEM) => "no memory for the ring: RLIMIT_MEMLOCK is too low",
        Some(libc::EMFILE | libc::ENFILE) => "no descriptor left for the ring",
        _ => "no ring",
    };
    io::Error::new(error.kind(), format!("{why}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_are_named_as_on_the_command_line() {
        for backend in [Backend::Auto, Backend::IoUring, Backend::Epoll] {
            assert_eq!(backend.to_string().parse(), Ok(backend));
        }
        let error = "uring".parse::<Backend>().unwrap_err();
        assert!(error.to_string().contains("io-uring"), "{error}");
    }
}
