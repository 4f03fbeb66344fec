//! Hears what the pool tells, and holds it against the rules.

use std::sync::Arc;

use corepool::{BreakerState, Observer, PoolEvent};

use crate::world::World;

/// The observer of a seed.
pub struct Watcher(pub Arc<World>);

impl Observer for Watcher {
    fn on_event(&self, event: &PoolEvent<'_>) {
        match *event {
            PoolEvent::Opened { .. } => self.0.with(|state| state.account.opened += 1),
            PoolEvent::Closed { .. } => self.0.with(|state| state.account.ended += 1),
            PoolEvent::BreakerChanged { endpoint, from, to, open_for } => {
                self.0.note("breaker changed");
                self.0.trace(format_args!("the breaker of {endpoint}: {from}, {to}"));
                if !is_legal(from, to) || open_for.is_some() != (to == BreakerState::Open) {
                    self.0.violate(format!(
                        "INV-8: {endpoint} went from {from} to {to}, {open_for:?}"
                    ));
                }
            }
            PoolEvent::LeakSuspected { .. } => self.0.note("leak suspected"),
            PoolEvent::LeakReturned { .. } => self.0.note("leak returned"),
            PoolEvent::AddressesChanged { .. } => self.0.note("addresses changed"),
            PoolEvent::DescriptorPressure { .. } => self.0.note("descriptor pressure"),
            // Nothing here panics on purpose in a worker: it is an assertion of the library's.
            PoolEvent::ShardPanicked { message, .. } => {
                self.0.violate(format!("a worker panicked: {message}"));
            }
            _ => {}
        }
    }
}

/// The edges of the figure in the design, and an operator's word at any time.
fn is_legal(from: BreakerState, to: BreakerState) -> bool {
    use BreakerState::{Closed, ForcedClosed, ForcedOpen, HalfOpen, Open};
    match (from, to) {
        (Closed, Open) | (Open, HalfOpen) | (HalfOpen, Open | Closed) => true,
        // By a reset, or because a force ends.
        (Open | ForcedOpen | ForcedClosed, Closed) => true,
        (_, ForcedOpen | ForcedClosed) => from != to,
        _ => false,
    }
}
