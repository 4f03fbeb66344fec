//! Which local ports a dial may take: the striping of `IP_LOCAL_PORT_RANGE`.

use core::{
    cell::{Cell, OnceCell},
    ops::RangeInclusive,
};
use std::{
    hash::{BuildHasher, RandomState},
    io,
    sync::Arc,
};

use crate::{
    sockets::{PortWindow, SocketOptions, system_ports},
    sync::{AtomicU64, Ordering},
};

/// How often a shard's dials found no free port where they looked.
#[derive(Debug, Default)]
pub(crate) struct PortConflicts(AtomicU64);

impl PortConflicts {
    fn note(&self) {
        // Relaxed: a statistic.
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        // Relaxed: a snapshot.
        self.0.load(Ordering::Relaxed)
    }
}

/// The local ports as one shard's driver deals them out.
#[derive(Debug)]
pub(super) struct Ports {
    conflicts: Arc<PortConflicts>,
    /// The system's range, read when it is first needed.
    system: OnceCell<RangeInclusive<u16>>,
    random: Cell<u64>,
    /// The kernel has no `IP_LOCAL_PORT_RANGE`.
    unsupported: Cell<bool>,
}

/// Where the next connect of a dial may look for a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// Wherever the system's settings say; nothing was ever set on the socket.
    Any,
    /// From the first to the last of these; zeros take an earlier choice back.
    Within(u16, u16),
}

/// Windows that a dial tries before it searches the whole range. With 97 % of the ports in use
/// one window of 128 in fifty has none free.
const WINDOWS: u8 = 4;
/// `net.ipv4.ip_local_port_range` where it cannot be read: Linux's default.
const USUAL_RANGE: RangeInclusive<u16> = 32768..=60999;

impl Ports {
    pub(super) fn new(conflicts: Arc<PortConflicts>) -> Self {
        // An odd seed, because a xorshift that starts from zero stays there.
        let seed = RandomState::new().hash_one(0) | 1;
        Self {
            conflicts,
            system: OnceCell::new(),
            random: Cell::new(seed),
            unsupported: Cell::new(false),
        }
    }

    /// A connect found no port, or no source address that can reach its destination
    /// (`EADDRNOTAVAIL` says no more).
    pub(super) fn conflict(&self) {
        self.conflicts.note();
    }

    /// The choice of a dial that connected in vain `tries` times; `None` when there is no other.
    pub(super) fn choose(&self, options: &SocketOptions, tries: u8) -> Option<Choice> {
        let window = options.port_window.as_ref().filter(|_| !self.unsupported.get());
        match window {
            None => (tries == 0).then_some(Choice::Any),
            Some(window) => self.choose_window(window, tries),
        }
    }

    fn choose_window(&self, window: &PortWindow, tries: u8) -> Option<Choice> {
        let range = window
            .range
            .as_ref()
            .unwrap_or_else(|| self.system.get_or_init(|| system_ports().unwrap_or(USUAL_RANGE)));
        let (first, last) = (*range.start(), *range.end());
        let spare = last.saturating_sub(first).saturating_add(1).saturating_sub(window.size);
        // When one window is all there is, there is no other place to look.
        let windows = if spare == 0 { 0 } else { WINDOWS };
        if tries < windows {
            let at = first + (self.next_random() % (u64::from(spare) + 1)) as u16;
            Some(Choice::Within(at, at + (window.size - 1)))
        } else if tries == windows {
            Some(match window.range {
                Some(_) => Choice::Within(first, last),
                None => Choice::Within(0, 0),
            })
        } else {
            None
        }
    }

    /// xorshift64 (Marsaglia 2003, "Xorshift RNGs", §3): it spreads dials, it hides nothing.
    fn next_random(&self) -> u64 {
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.set(x);
        x
    }

    /// Makes a choice hold for a socket's next connect.
    ///
    /// # Errors
    /// When the kernel refuses for another reason than that it knows no such option.
    #[cfg(target_os = "linux")]
    pub(super) fn confine(
        &self,
        socket: std::os::fd::BorrowedFd<'_>,
        choice: Choice,
    ) -> io::Result<()> {
        use nix::{errno::Errno, sys::socket::setsockopt};
        let Choice::Within(first, last) = choice else {
            return Ok(());
        };
        match setsockopt(&socket, LocalPortRange, &(u32::from(last) << 16 | u32::from(first))) {
            Ok(()) => Ok(()),
            Err(error @ (Errno::ENOPROTOOPT | Errno::EINVAL)) => {
                self.unsupported.set(true);
                tracing::warn!(
                    %error,
                    "the kernel has no IP_LOCAL_PORT_RANGE (Linux 6.3): dials go without a window"
                );
                Ok(())
            }
            Err(error) => Err(super::options::refused("the port window", error.into())),
        }
    }

    /// Elsewhere a window cannot be asked for.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn confine<S>(&self, _socket: &S, choice: Choice) -> io::Result<()> {
        debug_assert_eq!(choice, Choice::Any);
        Ok(())
    }
}

/// The first port in the lower half, the last in the upper; see ip(7).
#[cfg(target_os = "linux")]
#[derive(Clone, Copy)]
struct LocalPortRange;

#[cfg(target_os = "linux")]
mod sockopt {
    use nix::{libc, sys::socket::sockopt::SetStruct};

    use super::LocalPortRange;

    /// `linux/in.h`; not in libc yet.
    const IP_LOCAL_PORT_RANGE: libc::c_int = 51;

    nix::setsockopt_impl!(
        LocalPortRange,
        libc::IPPROTO_IP,
        IP_LOCAL_PORT_RANGE,
        u32,
        SetStruct<'_, u32>
    );
}

/// Whether a connect failed for want of a local port.
pub(super) fn is_conflict(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    fn choices(window: PortWindow) -> Vec<Choice> {
        let ports = Ports::new(Arc::default());
        let options = SocketOptions::default().port_window(window);
        (0..).map_while(|tries| ports.choose(&options, tries)).collect()
    }

    #[test]
    fn windows_come_first_and_the_whole_range_last() {
        for _ in 0..1000 {
            let choices = choices(PortWindow::default().size(16).range(40000..=40099));
            let [windows @ .., whole] = &choices[..] else { panic!("no choice") };
            assert_eq!(windows.len(), usize::from(WINDOWS));
            for window in windows {
                let &Choice::Within(first, last) = window else { panic!("{window:?}") };
                assert!(40000 <= first && last <= 40099 && last - first == 15, "{window:?}");
            }
            assert_eq!(*whole, Choice::Within(40000, 40099));
        }
    }

    #[test]
    fn every_place_of_a_range_is_used() {
        let seen: std::collections::BTreeSet<u16> = (0..200)
            .flat_map(|_| choices(PortWindow::default().size(2).range(40000..=40003)))
            .filter_map(|choice| match choice {
                Choice::Within(first, last) if last - first == 1 => Some(first),
                _ => None,
            })
            .collect();
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [40000, 40001, 40002]);
    }

    #[test]
    fn a_range_no_larger_than_a_window_is_tried_once() {
        let whole = [Choice::Within(40000, 40003)];
        assert_eq!(choices(PortWindow::default().range(40000..=40003)), whole);
        assert_eq!(choices(PortWindow::default().size(u16::MAX)), [Choice::Within(0, 0)]);
        let all = PortWindow::default().size(1).range(1..=u16::MAX);
        assert_eq!(choices(all).len(), usize::from(WINDOWS) + 1);
    }

    #[test]
    fn without_a_window_or_where_it_is_unknown_a_dial_connects_once() {
        let ports = Ports::new(Arc::default());
        let plain = SocketOptions::default();
        assert_eq!(ports.choose(&plain, 0), Some(Choice::Any));
        assert_eq!(ports.choose(&plain, 1), None);
        ports.unsupported.set(true);
        let window = plain.port_window(PortWindow::default());
        assert_eq!(ports.choose(&window, 0), Some(Choice::Any));
        assert_eq!(ports.choose(&window, 1), None);
    }
}
