//! Which origin a request goes to: they take turns, and those that are known to be down are passed
//! over.
//!
//! "Down" is what their circuit breakers say. A half-open one gets its turn, because somebody has
//! to find out whether the origin is back; if it is not, that request makes a detour.

use core::cell::Cell;

use corepool::BreakerState;

use crate::upstream::Upstream;

/// One shard's handles to the origins, of which there is at least one.
#[derive(Debug)]
pub(crate) struct Origins {
    upstreams: Vec<Upstream>,
    next: Cell<usize>,
}

/// The way of one request.
#[derive(Debug)]
pub(crate) struct Route<'a> {
    origins: &'a Origins,
    at: usize,
    detoured: bool,
}

impl Origins {
    /// `first` has the first turn.
    pub(crate) fn new(upstreams: Vec<Upstream>, first: usize) -> Self {
        Self { upstreams, next: Cell::new(first) }
    }

    /// The way of the next request: to the origin whose turn it is. One whose breaker is open is
    /// passed over, unless all are.
    pub(crate) fn route(&self) -> Route<'_> {
        let turn = self.next.get() % self.upstreams.len();
        let at = match self.upstreams.len() {
            1 => turn,
            _ => self.from(turn).unwrap_or(turn),
        };
        self.next.set(at + 1);
        Route { origins: self, at, detoured: false }
    }

    /// The first that may be dialled, from one on and round.
    fn from(&self, start: usize) -> Option<usize> {
        let count = self.upstreams.len();
        (0..count)
            .map(|step| (start + step) % count)
            .find(|at| may_be_dialled(&self.upstreams[*at]))
    }
}

impl<'a> Route<'a> {
    /// Where it leads.
    pub(crate) fn upstream(&self) -> &'a Upstream {
        &self.origins.upstreams[self.at]
    }

    /// Leads it to the next origin that may be dialled, because this one cannot be: once, and
    /// `false` when there is none.
    pub(crate) fn detour(&mut self) -> bool {
        !core::mem::replace(&mut self.detoured, true) && self.elsewhere()
    }

    /// Leads it to the next origin that may be dialled; `false`, and nowhere else, when there is
    /// none.
    pub(crate) fn elsewhere(&mut self) -> bool {
        match self.origins.from(self.at + 1).filter(|other| *other != self.at) {
            Some(other) => {
                self.at = other;
                true
            }
            None => false,
        }
    }
}

fn may_be_dialled(upstream: &Upstream) -> bool {
    !matches!(upstream.streams().group().breaker(), BreakerState::Open | BreakerState::ForcedOpen)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use corepool::{BreakerMode, Endpoint, HttpClient, HttpConnector, TlsConnector};

    use super::*;
    use crate::{tls, upstream::Pool};

    /// So many origins. Nobody dials them.
    fn origins(count: u16) -> (Pool, Origins) {
        let tls = TlsConnector::builder().crypto_provider(tls::provider()).build().unwrap();
        let connector = HttpConnector::new().over(tls);
        let pool = Pool::builder(connector).shards(1).pin(false).build().unwrap();
        let endpoint = |port| Endpoint::from(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let client = HttpClient::without_copies(pool.clone());
        let upstreams = (1..=count).map(|port| client.origin(endpoint(port))).collect();
        (pool, Origins::new(upstreams, 0))
    }

    fn force_breaker(origins: &Origins, at: usize, mode: BreakerMode) {
        origins.upstreams[at].streams().group().force_breaker(mode);
    }

    fn turns(origins: &Origins, count: usize) -> Vec<usize> {
        (0..count).map(|_| origins.route().at).collect()
    }

    #[test]
    fn they_take_turns() {
        let (_pool, origins) = origins(3);
        assert_eq!(turns(&origins, 7), [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn an_open_breaker_is_passed_over_and_its_turns_are_shared() {
        let (_pool, origins) = origins(3);
        force_breaker(&origins, 0, BreakerMode::ForcedOpen);
        assert_eq!(turns(&origins, 5), [1, 2, 1, 2, 1]);
        force_breaker(&origins, 0, BreakerMode::Auto);
        assert_eq!(turns(&origins, 3), [2, 0, 1]);
    }

    #[test]
    fn with_all_breakers_open_they_take_turns_all_the_same() {
        let (_pool, origins) = origins(2);
        (0..2).for_each(|at| force_breaker(&origins, at, BreakerMode::ForcedOpen));
        assert_eq!(turns(&origins, 3), [0, 1, 0]);
        assert!(!origins.route().detour(), "there is nobody to turn to");
    }

    #[test]
    fn there_is_one_detour_and_it_leads_elsewhere() {
        let (_pool, origins) = origins(3);
        force_breaker(&origins, 1, BreakerMode::ForcedOpen);
        let mut route = origins.route();
        assert!(route.detour());
        assert_eq!(route.at, 2);
        assert!(!route.detour());
        assert_eq!(route.at, 2);
    }

    #[test]
    fn a_single_origin_has_no_detour() {
        let (_pool, origins) = origins(1);
        assert!(!origins.route().detour());
    }

    #[test]
    fn a_retry_elsewhere_may_come_back_by_a_detour() {
        let (_pool, origins) = origins(2);
        let mut route = origins.route();
        assert!(route.elsewhere());
        assert_eq!(route.at, 1);
        assert!(route.detour());
        assert_eq!(route.at, 0);
    }
}
