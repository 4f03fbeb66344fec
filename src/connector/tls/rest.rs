//! A TLS session that nobody waits on: what has come for it at rest, and its end.

use std::io::{self, Read, Write};

use tokio_rustls::rustls::ClientConnection;

use super::stream::Secured;
use crate::{Condition, Inspect, Stream};

/// How often a look reads, 4 KiB at most each time. A peer whose tickets and new keys are more than
/// that is no peer to wait for.
const READS: usize = 16;

/// Takes what has come from the socket, without waiting, and judges it by what it is inside.
///
/// Not by a poll of the stream: a task that has used up its share of the scheduler would be told
/// "pending" without a look.
pub(super) fn inspect(stream: &mut Secured, how: Inspect) -> Condition {
    let (stream, session) = stream.get_mut();
    for _ in 0..READS {
        match session.process_new_packets() {
            Ok(state) if state.plaintext_bytes_to_read() > 0 => return Condition::UnexpectedBytes,
            Ok(state) if state.peer_has_closed() => return Condition::Closed,
            // What is still to be sent must not wait for the next caller.
            Ok(_) if !flush(stream, session) => return Condition::Unusable,
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, "a TLS session broke at rest");
                return Condition::Unusable;
            }
        }
        match session.read_tls(&mut AtOnce { stream, how }) {
            // Without a close_notify: who is at rest has lost nothing.
            Ok(0) => return Condition::Closed,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Condition::Usable,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.raw_os_error().is_some() => return Condition::Reset,
            // rustls' own: it has no room for what came.
            Err(_) => return Condition::Unusable,
        }
    }
    Condition::Unusable
}

/// Tells the peer that nothing more comes, if it takes that without waiting.
pub(super) fn say_goodbye(stream: &mut Secured) {
    let (stream, session) = stream.get_mut();
    session.send_close_notify();
    flush(stream, session);
}

/// Sends what the session has to send, as far as that goes without waiting; whether all of it went.
fn flush(stream: &Stream, session: &mut ClientConnection) -> bool {
    while session.wants_write() {
        match session.write_tls(&mut AtOnce { stream, how: Inspect::Glance }) {
            Ok(1..) => {}
            Ok(0) | Err(_) => return false,
        }
    }
    true
}

/// A stream of which nobody waits for anything.
struct AtOnce<'a> {
    stream: &'a Stream,
    how: Inspect,
}

impl Read for AtOnce<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.stream.read_at_once(buf, self.how)
    }
}

impl Write for AtOnce<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.stream.write_at_once(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
