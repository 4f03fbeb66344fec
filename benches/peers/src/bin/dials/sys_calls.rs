//! System calls of a process, counted by the kernel's tracepoint through perf(1).

use std::process::{Command, Stdio};

/// Counts the system calls of a command, all threads, from its start to its end.
///
/// `None` where perf cannot: it is not there, or may not.
pub(crate) fn count(program: &str, args: &[String]) -> Option<u64> {
    let output = Command::new("perf")
        .args(["stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "--", program])
        .args(args)
        .stdout(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().find(|line| line.contains("raw_syscalls"))?;
    line.split(',').next()?.parse().ok()
}
