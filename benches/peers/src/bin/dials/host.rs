//! The machine: cores, a network of our own, and what a reader must know of both.

use std::{
    error::Error,
    fs, io,
    path::PathBuf,
    process::{Command, Stdio},
};

use nix::{
    mount::{MsFlags, mount, umount},
    sched::{CloneFlags, CpuSet, sched_getaffinity, sched_setaffinity, unshare},
    unistd::Pid,
};

/// The first and the last core that we may run on: the client's, and the acceptor's.
///
/// # Errors
/// The system's, and when there is but one core.
pub(crate) fn cores() -> Result<(usize, usize), Box<dyn Error>> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let mut cores = (0..CpuSet::count()).filter(|core| allowed.is_set(*core).unwrap_or(false));
    let first = cores.next().ok_or("no core")?;
    let last = cores.next_back().ok_or("two cores are needed: one for each end")?;
    Ok((first, last))
}

/// Keeps this process on one core.
///
/// # Errors
/// The system's.
pub(crate) fn pin(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// Moves this process to a network of its own, where nobody else's connections are, and brings its
/// loopback up. Children are born there.
///
/// # Errors
/// Without the privilege for it.
pub(crate) fn own_network() -> Result<(), Box<dyn Error>> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status()?;
    if up.success() { Ok(()) } else { Err("ip(8) did not bring the loopback up".into()) }
}

/// Has packets of our loopback received on `core` instead of inside the sender's system call, as
/// from a network card. `None` turns it off.
///
/// # Errors
/// The system's.
pub(crate) fn receive_on(core: Option<usize>) -> Result<(), Box<dyn Error>> {
    // /sys shows the network that it was mounted in: ours needs a mount of its own.
    let at: PathBuf = std::env::temp_dir().join(format!("sys-{}", std::process::id()));
    fs::create_dir_all(&at)?;
    mount(Some("sysfs"), &at, Some("sysfs"), MsFlags::empty(), None::<&str>)?;
    let mask = core.map_or(0, |core| 1_u64 << core);
    let written = fs::write(at.join("class/net/lo/queues/rx-0/rps_cpus"), format!("{mask:x}"));
    umount(&at)?;
    fs::remove_dir(&at)?;
    Ok(written?)
}

/// Whether processes may be started in the real-time class, in which no other tenant of the machine
/// preempts them.
pub(crate) fn has_fifo() -> bool {
    let tried = Command::new("chrt").args(["-f", "1", "true"]).stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
}
