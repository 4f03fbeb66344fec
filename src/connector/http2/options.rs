//! What an HTTP/2 connection tells its peer, and how it finds out that its peer has gone.

use core::time::Duration;

use h2::client::Builder;

/// How HTTP/2 connections are set up.
///
/// What a peer sends and nobody reads stays in memory, up to the windows: at most
/// [`stream_window`](Self::stream_window) for each stream and
/// [`connection_window`](Self::connection_window) for each connection. Large windows carry more over
/// long ways, and let slow readers hold more. The defaults are what Envoy advises for proxies that
/// do not trust their peers (its page on edge proxies): 64 KiB and 1 MiB. Then one stream carries
/// 64 KiB in a round trip, 500 Mbit/s at 1 ms, and it takes sixteen readers that have stopped to
/// hold up the other streams of their connection.
///
/// A value outside its range is brought into it.
///
/// ```
/// use std::time::Duration;
/// use corepool::{Http2Keepalive, Http2Options};
///
/// let options = Http2Options::default()
///     .stream_window(256 * 1024)
///     .connection_window(4 * 1024 * 1024)
///     .keepalive(Http2Keepalive::every(Duration::from_secs(60)));
/// # let _ = options;
/// ```
#[derive(Clone, Debug)]
pub struct Http2Options {
    stream_window: u32,
    connection_window: u32,
    max_frame_size: u32,
    max_header_list_size: u32,
    max_send_buffer: u32,
    max_reset_streams: u32,
    pub(super) keepalive: Option<Http2Keepalive>,
}

/// The largest window (RFC 9113 §6.9.1).
const MAX_WINDOW: u32 = (1 << 31) - 1;
/// What a connection's window is before anybody changes it (RFC 9113 §6.9.2). It cannot shrink.
const MIN_CONNECTION_WINDOW: u32 = (1 << 16) - 1;
/// The bounds of `SETTINGS_MAX_FRAME_SIZE` (RFC 9113 §6.5.2).
const FRAME_SIZES: (u32, u32) = (1 << 14, (1 << 24) - 1);

/// What unread frames below 256 bytes may take beside their data, in connection windows, until the
/// connection ends for it. h2 counts 256 bytes for each such frame, less its data, and by itself
/// allows half a window: two readers that stop, on streams of messages of 50 bytes, would end all
/// others.
const SMALL_FRAMES: usize = 16;

impl Http2Options {
    /// Bytes of one response that the peer may send ahead of its reader
    /// (`SETTINGS_INITIAL_WINDOW_SIZE`), 1 to 2³¹ − 1. Default: 64 KiB.
    #[must_use]
    pub fn stream_window(mut self, bytes: u32) -> Self {
        self.stream_window = bytes.clamp(1, MAX_WINDOW);
        self
    }

    /// Bytes of all responses of a connection together that the peer may send ahead of their
    /// readers, 65 535 to 2³¹ − 1. Default: 1 MiB.
    #[must_use]
    pub fn connection_window(mut self, bytes: u32) -> Self {
        self.connection_window = bytes.clamp(MIN_CONNECTION_WINDOW, MAX_WINDOW);
        self
    }

    /// The largest frame that the peer may send (`SETTINGS_MAX_FRAME_SIZE`), 16 384 to 2²⁴ − 1
    /// bytes. Default: 16 384, the least. A frame is read to its end before any other: large ones
    /// delay small ones.
    #[must_use]
    pub fn max_frame_size(mut self, bytes: u32) -> Self {
        self.max_frame_size = bytes.clamp(FRAME_SIZES.0, FRAME_SIZES.1);
        self
    }

    /// The most that a response's header fields may come to, decoded, with 32 bytes for each
    /// (`SETTINGS_MAX_HEADER_LIST_SIZE`); trailers likewise. Default: 64 KiB. A stream with more is
    /// reset; one with four times as much ends the connection.
    #[must_use]
    pub fn max_header_list_size(mut self, bytes: u32) -> Self {
        self.max_header_list_size = bytes;
        self
    }

    /// Bytes of one request's body that wait for the socket, from 1 on. Default: 64 KiB. What waits
    /// for the peer's window stays in the body.
    #[must_use]
    pub fn max_send_buffer(mut self, bytes: u32) -> Self {
        self.max_send_buffer = bytes.max(1);
        self
    }

    /// How many streams that we have reset are remembered, for a second each. Default: 1024. What a
    /// peer still sends on one that is forgotten counts as its fault, and after 1024 of those the
    /// connection ends: set it to as many requests as are cancelled on a connection in a second.
    #[must_use]
    pub fn max_reset_streams(mut self, streams: u32) -> Self {
        self.max_reset_streams = streams;
        self
    }

    /// Asks quiet peers whether they live. Default: no.
    #[must_use]
    pub fn keepalive(mut self, keepalive: Http2Keepalive) -> Self {
        self.keepalive = Some(keepalive);
        self
    }

    pub(super) fn builder(&self) -> Builder {
        let mut builder = Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(self.stream_window)
            .initial_connection_window_size(self.connection_window)
            .max_frame_size(self.max_frame_size)
            .max_header_list_size(self.max_header_list_size)
            .max_send_buffer_size(self.max_send_buffer as usize)
            .data_frame_budget((self.connection_window as usize).saturating_mul(SMALL_FRAMES))
            .max_concurrent_reset_streams(self.max_reset_streams as usize);
        builder
    }
}

impl Default for Http2Options {
    fn default() -> Self {
        Self {
            stream_window: 64 << 10,
            connection_window: 1 << 20,
            max_frame_size: FRAME_SIZES.0,
            max_header_list_size: 64 << 10,
            max_send_buffer: 64 << 10,
            max_reset_streams: 1024,
            keepalive: None,
        }
    }
}

/// How a peer is asked by PING whether it lives (RFC 9113 §6.7), as gRPC does (`doc/keepalive.md`
/// there, proposal A8).
///
/// One that answers with nothing at all in time is taken for gone: its streams end with an error. It
/// is asked once nothing has come from it for one to two intervals.
///
/// Servers limit how often they want to be asked: gRPC's allow once in five minutes where no data
/// flows, and say GOAWAY `too_many_pings` otherwise. Then the connector doubles its interval, for all
/// its connections, up to five minutes: peers that differ in this want connectors of their own.
#[derive(Clone, Copy, Debug)]
pub struct Http2Keepalive {
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    pub(super) without_streams: bool,
}

impl Http2Keepalive {
    /// After so long a silence. gRPC's clients do not ask unless told to, and not more often than
    /// every 10 s (A8). At least 1 ms.
    pub fn every(interval: Duration) -> Self {
        let interval = interval.max(Duration::from_millis(1));
        Self { interval, timeout: Duration::from_secs(20), without_streams: false }
    }

    /// How long the peer has for its answer. Default: 20 s, as gRPC's.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Whether a connection without an open stream is asked too. Default: no, as gRPC's. The pool
    /// asks connections at rest by `health.ping_interval_ms`.
    #[must_use]
    pub fn without_streams(mut self, on: bool) -> Self {
        self.without_streams = on;
        self
    }
}
