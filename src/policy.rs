//! How an endpoint's connections are made: what the engine has no use for.

use core::time::Duration;
use std::sync::Arc;

use crate::{
    Connector, Endpoint, EndpointSettings, SocketOptions, inner::Inner, resolve::Lifetimes,
};

/// How an endpoint's connections are made and kept: what the engine has no use for.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) settings: EndpointSettings,
    pub(crate) sockets: Arc<SocketOptions>,
}

impl Policy {
    pub(crate) fn new<C: Connector>(
        inner: &Inner<C>,
        endpoint: &Endpoint,
        settings: EndpointSettings,
    ) -> Self {
        let base = inner.parts.sockets.clone().unwrap_or_default();
        let sockets = Arc::new(base.with_settings(&settings.sockets).for_endpoint(endpoint));
        Self { settings, sockets }
    }

    pub(crate) fn lifetimes(&self) -> Lifetimes {
        let names = &self.settings.names;
        Lifetimes {
            min_ttl: millis(names.dns_min_ttl_ms),
            max_ttl: millis(names.dns_max_ttl_ms),
            default_ttl: millis(names.dns_default_ttl_ms),
            ..Lifetimes::default()
        }
    }

    /// How long the connect may take.
    pub(crate) fn connect_timeout(&self) -> Duration {
        millis(self.settings.timeouts.connect_timeout_ms)
    }

    /// How long a dial may take in all.
    pub(crate) fn total_timeout(&self) -> Duration {
        millis(self.settings.timeouts.total_connect_ms())
    }
}

/// Milliseconds as a duration.
pub(crate) const fn millis(millis: u32) -> Duration {
    Duration::from_millis(millis as u64)
}
