//! What the kernel's io_uring can do: asked in one place, decided in one place.
//!
//! | Linux | what the driver has from there on |
//! |---|---|
//! | 5.7 | the least: a CONNECT that waits for a non-blocking socket (`IORING_FEAT_FAST_POLL`); before, it ends with `EINPROGRESS`. CLOSE and the probe are of 5.6 |
//! | 5.17 | no completion for what succeeds and tells nothing (`IOSQE_CQE_SKIP_SUCCESS`) |
//! | 5.19 | no interrupt for a completion (`COOP_TASKRUN`), SOCKET |
//! | 6.0 | a ring that promises one submitter (`SINGLE_ISSUER`) |
//! | 6.7 | options without a system call (the SETSOCKOPT command) |

use core::fmt;
use std::{io, os::fd::AsRawFd};

use io_uring::{Builder, IoUring, Probe, opcode, squeue, types::Fd};
use nix::libc;

use super::ON;

/// What the driver cannot do without.
const NEEDED: [(u8, &str); 4] = [
    (opcode::Connect::CODE, "CONNECT"),
    (opcode::Close::CODE, "CLOSE"),
    (opcode::PollAdd::CODE, "POLL_ADD"),
    (opcode::AsyncCancel::CODE, "ASYNC_CANCEL"),
];

/// A rung of the ladder of set-up flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rung {
    /// 6.0.
    SingleIssuer,
    /// 5.19.
    CoopTaskrun,
    /// No flag.
    Plain,
}

impl Rung {
    /// From the top down.
    pub(super) const LADDER: [Self; 3] = [Self::SingleIssuer, Self::CoopTaskrun, Self::Plain];

    pub(super) fn ask(self, builder: &mut Builder) {
        // The runtime polls the ring, so completions need no interrupt: they run at the thread's
        // next system call.
        match self {
            Self::SingleIssuer => {
                Self::CoopTaskrun.ask(builder);
                builder.setup_single_issuer();
            }
            Self::CoopTaskrun => {
                builder.setup_coop_taskrun().setup_taskrun_flag().setup_submit_all();
            }
            Self::Plain => {}
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::SingleIssuer => "single_issuer, coop_taskrun",
            Self::CoopTaskrun => "coop_taskrun",
            Self::Plain => "plain",
        }
    }
}

/// What a kernel says that it has, before anything is made of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer {
    pub(crate) rung: Rung,
    /// One bit for each operation.
    operations: u64,
    nodrop: bool,
    submit_stable: bool,
    pub(crate) fast_poll: bool,
    pub(crate) skip_success: bool,
    /// Whether the SETSOCKOPT command did what it should.
    pub(crate) setsockopt: bool,
}

impl Offer {
    /// Asks the kernel, and tries out what it does not tell.
    ///
    /// # Errors
    /// When it refuses the probe, or to run anything: some sandboxes allow the set-up alone.
    pub(super) fn of(io: &mut IoUring, rung: Rung) -> io::Result<Self> {
        let mut probe = Probe::new();
        io.submitter().register_probe(&mut probe)?;
        let supported = (0..u64::BITS as u8).filter(|&code| probe.is_supported(code));
        let operations = supported.fold(0, |all, code| all | 1 << code);
        try_out(io, &opcode::Nop::new().build())?;
        Ok(Self {
            rung,
            operations,
            nodrop: io.params().is_feature_nodrop(),
            submit_stable: io.params().is_feature_submit_stable(),
            fast_poll: io.params().is_feature_fast_poll(),
            skip_success: io.params().is_feature_skip_cqe_on_success(),
            setsockopt: probe.is_supported(opcode::SetSockOpt::CODE) && has_setsockopt(io),
        })
    }

    fn has(&self, operation: u8) -> bool {
        self.operations & 1 << operation != 0
    }

    /// The same kernel without an operation.
    #[cfg(test)]
    pub(crate) fn lose(&mut self, operation: u8) {
        self.operations &= !(1 << operation);
    }
}

/// What the driver uses of the kernel, beyond the least that it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Features {
    pub(crate) rung: Rung,
    /// `IORING_OP_SOCKET`; socket(2) without.
    pub(crate) socket: bool,
    /// `SOCKET_URING_OP_SETSOCKOPT`; setsockopt(2) without.
    pub(crate) setsockopt: bool,
    /// `IOSQE_CQE_SKIP_SUCCESS`; without, what needs no completion has one all the same.
    pub(crate) skip_success: bool,
}

impl Features {
    /// # Errors
    /// When the kernel has less than the driver needs; the error names it.
    pub(super) fn choose(offer: &Offer) -> io::Result<Self> {
        let unsupported = |what: String| io::Error::new(io::ErrorKind::Unsupported, what);
        for (code, name) in NEEDED {
            if !offer.has(code) {
                return Err(unsupported(format!("the kernel's io_uring has no {name}")));
            }
        }
        if !offer.nodrop || !offer.submit_stable {
            let what = "the kernel's io_uring may drop completions (older than 5.5)";
            return Err(unsupported(what.to_owned()));
        }
        if !offer.fast_poll {
            let what = "the kernel's io_uring does not wait for a connect (older than 5.7)";
            return Err(unsupported(what.to_owned()));
        }
        Ok(Self {
            rung: offer.rung,
            socket: offer.has(opcode::Socket::CODE),
            setsockopt: offer.has(opcode::SetSockOpt::CODE) && offer.setsockopt,
            skip_success: offer.skip_success,
        })
    }

    /// The flags of an entry whose success tells nothing.
    pub(super) fn quiet(self) -> squeue::Flags {
        if self.skip_success { squeue::Flags::SKIP_SUCCESS } else { squeue::Flags::empty() }
    }
}

/// For the log and the statistics.
impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.rung.as_str())?;
        let names = [
            (self.socket, "SOCKET"),
            (self.setsockopt, "SETSOCKOPT"),
            (self.skip_success, "CQE_SKIP_SUCCESS"),
        ];
        let mut before = "; without ";
        for (_, name) in names.iter().filter(|(has, _)| !has) {
            write!(f, "{before}{name}")?;
            before = ", ";
        }
        Ok(())
    }
}

/// Runs one operation to its end.
fn try_out(io: &mut IoUring, entry: &squeue::Entry) -> io::Result<i32> {
    // SAFETY: the callers' entries refer to nothing, or to what outlives this call.
    unsafe { io.submission().push(entry) }.map_err(|_| io::ErrorKind::OutOfMemory)?;
    loop {
        match io.submit_and_wait(1) {
            Ok(_) => break,
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
    let entry = io.completion().next().ok_or(io::ErrorKind::Unsupported)?;
    Ok(entry.result())
}

/// The probe knows only URING_CMD as a whole, so the option is set for once.
fn has_setsockopt(io: &mut IoUring) -> bool {
    let Ok(socket) = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
    else {
        return false;
    };
    let nodelay = opcode::SetSockOpt::new(
        Fd(socket.as_raw_fd()),
        libc::IPPROTO_TCP as u32,
        libc::TCP_NODELAY as u32,
        (&raw const ON).cast(),
        size_of_val(&ON) as u32,
    )
    .build();
    matches!(try_out(io, &nodelay), Ok(0)) && socket.tcp_nodelay().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn everything() -> Offer {
        Offer {
            rung: Rung::SingleIssuer,
            operations: !0,
            nodrop: true,
            submit_stable: true,
            fast_poll: true,
            skip_success: true,
            setsockopt: true,
        }
    }

    fn without(lose: impl Fn(&mut Offer)) -> io::Result<Features> {
        let mut offer = everything();
        lose(&mut offer);
        Features::choose(&offer)
    }

    #[test]
    fn what_is_there_is_used_and_nothing_else() {
        let all = Features {
            rung: Rung::SingleIssuer,
            socket: true,
            setsockopt: true,
            skip_success: true,
        };
        assert_eq!(without(|_| {}).unwrap(), all);
        let no_socket = without(|offer| offer.lose(opcode::Socket::CODE)).unwrap();
        assert_eq!(no_socket, Features { socket: false, ..all });
        let no_command = Features { setsockopt: false, ..all };
        assert_eq!(without(|offer| offer.lose(opcode::SetSockOpt::CODE)).unwrap(), no_command);
        assert_eq!(without(|offer| offer.setsockopt = false).unwrap(), no_command);
        let no_skip = without(|offer| offer.skip_success = false).unwrap();
        assert_eq!(no_skip, Features { skip_success: false, ..all });
        assert!(all.quiet() == squeue::Flags::SKIP_SUCCESS && no_skip.quiet().is_empty());
    }

    #[test]
    fn a_kernel_with_less_than_the_least_is_refused_by_name() {
        for (code, name) in NEEDED {
            let error = without(|offer| offer.lose(code)).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
        for (lose, release) in [
            ((|offer| offer.nodrop = false) as fn(&mut Offer), "5.5"),
            (|offer| offer.submit_stable = false, "5.5"),
            (|offer| offer.fast_poll = false, "5.7"),
        ] {
            let error = without(lose).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::Unsupported);
            assert!(error.to_string().contains(release), "{error}");
        }
    }

    #[test]
    fn features_tell_what_is_missing() {
        let text = without(|_| {}).unwrap().to_string();
        assert_eq!(text, "single_issuer, coop_taskrun");
        let least = without(|offer| {
            offer.rung = Rung::Plain;
            offer.lose(opcode::Socket::CODE);
            offer.setsockopt = false;
            offer.skip_success = false;
        });
        let text = least.unwrap().to_string();
        assert_eq!(text, "plain; without SOCKET, SETSOCKOPT, CQE_SKIP_SUCCESS");
    }
}
