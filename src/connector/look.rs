//! How a connection that is no reactor's secret is looked at: what waits to be read on it.

use std::io;

use super::Condition;

/// What one attempt to read a byte, without taking it, says of a connection at rest.
pub(super) fn condition(peeked: &io::Result<usize>) -> Condition {
    match peeked {
        Ok(0) => Condition::Closed,
        Ok(_) => Condition::UnexpectedBytes,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Condition::Usable,
        // Reset, timed out, out of reach: whatever it is, the connection is no more.
        Err(_) => Condition::Reset,
    }
}

/// Looks without waiting, whatever mode the socket is in.
#[cfg(unix)]
pub(super) fn peek(socket: &impl std::os::fd::AsRawFd) -> io::Result<usize> {
    use nix::sys::socket::{MsgFlags, recv};
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    loop {
        match recv(socket.as_raw_fd(), &mut [0; 1], flags) {
            Err(nix::errno::Errno::EINTR) => {}
            outcome => return Ok(outcome?),
        }
    }
}

/// Looks without waiting; the socket is in non-blocking mode.
#[cfg(not(unix))]
pub(super) fn peek(socket: &impl std::os::windows::io::AsSocket) -> io::Result<usize> {
    socket2::SockRef::from(socket).peek(&mut [core::mem::MaybeUninit::uninit()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_read_says_how_a_connection_is() {
        use io::ErrorKind::{ConnectionReset, HostUnreachable, TimedOut, WouldBlock};
        assert_eq!(condition(&Ok(0)), Condition::Closed);
        assert_eq!(condition(&Ok(1)), Condition::UnexpectedBytes);
        assert_eq!(condition(&Err(WouldBlock.into())), Condition::Usable);
        for kind in [ConnectionReset, HostUnreachable, TimedOut] {
            assert_eq!(condition(&Err(kind.into())), Condition::Reset);
        }
    }
}
