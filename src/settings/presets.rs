//! Starting points. [`crate::sizing`] has the figures' sources and what to ask of them.

use super::{AtStreamLimit, EndpointSettings, Settings};

impl Settings {
    /// For upstreams in the same network; see [`EndpointSettings::lan`].
    pub fn lan() -> Self {
        Self { endpoint: EndpointSettings::lan(), ..Self::default() }
    }

    /// For upstreams across the internet; see [`EndpointSettings::wan`].
    pub fn wan() -> Self {
        Self { endpoint: EndpointSettings::wan(), ..Self::default() }
    }

    /// For gRPC over shared connections; see [`EndpointSettings::grpc`].
    pub fn grpc() -> Self {
        Self { endpoint: EndpointSettings::grpc(), ..Self::default() }
    }
}

impl EndpointSettings {
    /// For an upstream in the same network: short waits, quick to give up.
    ///
    /// * Connect timeout 2 s, of the recommended 2 to 5: Linux repeats a lost SYN after a second,
    ///   so this survives the loss of one.
    /// * Idle timeout 60 s, of the recommended 60 to 120, and below the 75 s of nginx.
    /// * Acquire timeout 5 s.
    /// * 5 connections kept idle, of the recommended 5 to 10, dialled when the endpoint is first
    ///   used and again when none is left.
    pub fn lan() -> Self {
        let mut policy = Self::default();
        policy.capacity.min_idle = 5;
        policy.capacity.warm_up = 5;
        policy.capacity.rewarm = true;
        policy.lifetime.idle_timeout_ms = 60_000;
        policy.timeouts.connect_timeout_ms = 2_000;
        policy.timeouts.acquire_timeout_ms = 5_000;
        policy
    }

    /// For an upstream across the internet: dials are dear, silence may be a middlebox.
    ///
    /// * Connect timeout 10 s, of the recommended 10 to 30: it survives the loss of three SYNs,
    ///   which Linux repeats after 1, 3 and 7 s, and more often from 6.5 on. 20 s with the
    ///   connector's handshake.
    /// * Idle timeout 300 s, of the recommended 300 to 600. Few origins are that patient: lower it
    ///   to just below theirs.
    /// * Acquire timeout 30 s, so that a checkout outlasts its own dial.
    /// * 10 connections kept idle, of the recommended 5 to 10, dialled when the endpoint is first
    ///   used and again when none is left.
    /// * Keepalive after 60 s of silence, then every 15 s, three times: a peer that vanished
    ///   without a FIN is found within 105 s, and address translators, of which some forget a
    ///   flow after four minutes, remember it.
    /// * A ping, where one is switched on, may take 5 s and fail three times.
    pub fn wan() -> Self {
        let mut policy = Self::default();
        policy.capacity.min_idle = 10;
        policy.capacity.warm_up = 10;
        policy.capacity.rewarm = true;
        policy.lifetime.idle_timeout_ms = 300_000;
        policy.health.ping_timeout_ms = 5_000;
        policy.health.ping_max_failures = 3;
        policy.timeouts.connect_timeout_ms = 10_000;
        policy.timeouts.total_connect_timeout_ms = Some(20_000);
        policy.timeouts.acquire_timeout_ms = 30_000;
        policy.sockets.keepalive_idle_s = Some(60);
        policy.sockets.keepalive_interval_s = Some(15);
        policy.sockets.keepalive_probes = Some(3);
        policy
    }

    /// For a gRPC upstream whose connections are shared ([`Pool::streams`](crate::Pool::streams)).
    /// The options of [the gRPC pool] that many are modelled on, in this pool's words:
    ///
    /// | there | here | preset |
    /// |---|---|---|
    /// | `MaxIdle` 8 | `capacity.max_idle` | 8 |
    /// | `MaxActive` 64 | `capacity.max_live`, `streams.max_connections` | 64 |
    /// | `MaxConcurrentStreams` 64 | `streams.max_streams` | 64, and never more than the peer allows |
    /// | `Reuse: true` | `streams.at_limit`: oversubscribe | oversubscribe, as far as the peer allows |
    /// | `Reuse: false` | `streams.at_limit`: overflow | |
    /// | `KeepAliveTime` 10 s | [`Http2Keepalive`], of the connector's options | none |
    /// | windows of 1 GiB | [`Http2Options`], of the connector's | 64 KiB and 1 MiB |
    ///
    /// What it does not take over: eight connections dialled ahead, of which the first carries 64
    /// calls; PINGs every 10 s, to which a server answers with `too_many_pings` unless it was told
    /// to bear them (gRPC's `keepalive.md`: at most every five minutes); windows that let one slow
    /// reader hold a gigabyte. The other figures are gRPC's own: a connect may take 20 s
    /// (`connection-backoff.md`), data may stay unacknowledged for 20 s (gRFC A18), a connection
    /// without calls is kept for 30 min (grpc-go's `WithIdleTimeout`).
    ///
    /// [the gRPC pool]: https://github.com/shimingyah/pool
    #[cfg_attr(feature = "http2", doc = "[`Http2Keepalive`]: crate::Http2Keepalive")]
    #[cfg_attr(feature = "http2", doc = "[`Http2Options`]: crate::Http2Options")]
    #[cfg_attr(not(feature = "http2"), doc = "[`Http2Keepalive`]: https://docs.rs/corepool")]
    #[cfg_attr(not(feature = "http2"), doc = "[`Http2Options`]: https://docs.rs/corepool")]
    pub fn grpc() -> Self {
        let mut policy = Self::default();
        policy.capacity.set_max_live(64);
        policy.capacity.max_idle = 8;
        policy.streams.max_connections = 64;
        policy.streams.max_streams = 64;
        policy.streams.at_limit = AtStreamLimit::Oversubscribe;
        policy.lifetime.idle_timeout_ms = 1_800_000;
        policy.timeouts.connect_timeout_ms = 20_000;
        policy.timeouts.acquire_timeout_ms = 30_000;
        policy.sockets.user_timeout_ms = Some(20_000);
        policy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_presets_keep_to_the_recommended_ranges() {
        let (lan, wan) = (EndpointSettings::lan(), EndpointSettings::wan());
        assert!((60_000..=120_000).contains(&lan.lifetime.idle_timeout_ms));
        assert!((300_000..=600_000).contains(&wan.lifetime.idle_timeout_ms));
        assert!((2_000..=5_000).contains(&lan.timeouts.connect_timeout_ms));
        assert!((10_000..=30_000).contains(&wan.timeouts.connect_timeout_ms));
        for policy in [lan, wan] {
            assert!((5..=10).contains(&policy.capacity.min_idle));
            assert!(policy.timeouts.acquire_timeout_ms >= policy.timeouts.total_connect_ms());
        }
    }

    #[test]
    fn the_one_for_grpc_is_the_grpc_pools_without_its_mistakes() {
        let policy = EndpointSettings::grpc();
        policy.check().unwrap();
        assert_eq!((policy.capacity.max_live, policy.capacity.max_idle), (64, 8));
        assert_eq!((policy.streams.max_connections, policy.streams.max_streams), (64, 64));
        assert_eq!((policy.capacity.warm_up, policy.capacity.min_idle), (0, 0));
        assert!(policy.timeouts.acquire_timeout_ms >= policy.timeouts.total_connect_ms());
    }
}
