//! What is kept of the sessions with one server under one identity, for the next handshakes.

use crossbeam_queue::ArrayQueue;
use tokio_rustls::rustls::{
    NamedGroup,
    client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue},
    pki_types::ServerName,
};

use crate::sync::{AtomicU32, Ordering};

/// The sessions of one identity, which has one server name: what rustls calls that is not looked
/// at. Nobody waits for anybody here; who comes in between does without a session, which costs a
/// full handshake.
#[derive(Debug)]
pub(super) struct Sessions {
    /// Tickets of TLS 1.3, the oldest first; each is used once.
    tickets: ArrayQueue<Tls13ClientSessionValue>,
    /// The session of TLS 1.2, which is used again and again.
    session: ArrayQueue<Tls12ClientSessionValue>,
    /// The key exchange that the server chose last; 0 for none.
    group: AtomicU32,
}

impl Sessions {
    /// Room for so many tickets, one at the least.
    pub(super) fn new(tickets: usize) -> Self {
        Self {
            tickets: ArrayQueue::new(tickets.max(1)),
            session: ArrayQueue::new(1),
            group: AtomicU32::new(0),
        }
    }
}

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        // Relaxed: a hint.
        self.group.store(u16::from(group).into(), Ordering::Relaxed);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        // Relaxed: a hint.
        let group = u16::try_from(self.group.load(Ordering::Relaxed)).ok()?;
        (group != 0).then(|| group.into())
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.session.force_push(value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        let session = self.session.pop()?;
        // No room means that a newer one has come meanwhile.
        let _ = self.session.push(session.clone());
        Some(session)
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.session.pop();
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.tickets.force_push(value);
    }

    /// The newest, which is the last to expire: after a long rest the oldest would all be tried in
    /// vain first.
    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let mut older: Vec<_> =
            core::iter::from_fn(|| self.tickets.pop()).take(self.tickets.capacity()).collect();
        let newest = older.pop();
        for ticket in older {
            // No room means that newer ones have come meanwhile.
            let _ = self.tickets.push(ticket);
        }
        newest
    }
}
