//! Settings that are a choice.

use super::ranges::Ranged;

/// What a checkout does when the endpoint has `max_live` connections and none is idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Deserialize, serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum AtLimit {
    /// It lines up, at most `acquire_timeout_ms`. `wait` in a file.
    #[default]
    Wait,
    /// It fails at once. `reject` in a file.
    Reject,
    /// It gets a connection above the limit, one of at most `max_overflow`, which is closed when
    /// it comes back. `overflow` in a file.
    Overflow,
}

/// What a caller does when an endpoint has `streams.max_connections` connections and each has
/// `streams.max_streams` streams, or as many as its peer allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Deserialize, serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum AtStreamLimit {
    /// It lines up, at most `acquire_timeout_ms`. `wait` in a file.
    #[default]
    Wait,
    /// It fails at once. `reject` in a file.
    Reject,
    /// It gets a connection of its own, above `streams.max_connections` but within
    /// `capacity.max_live`, which is closed after its stream. `overflow` in a file.
    Overflow,
    /// It shares a connection beyond `streams.max_streams`, as far as the peer allows, and lines up
    /// beyond that. `oversubscribe` in a file.
    Oversubscribe,
}

/// Which of the idle connections a checkout takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Deserialize, serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum Order {
    /// The one that has rested longest: all are used in turn, and none rests long enough to be
    /// closed while there is traffic. `fifo` in a file.
    #[default]
    Fifo,
    /// The one that came back last: the same few stay warm, and the others time out. `lifo` in a
    /// file.
    Lifo,
}

/// What a checkout that would have to dial does while the breaker is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Deserialize, serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum AtOpen {
    /// It fails at once. `fail_fast` in a file.
    #[default]
    FailFast,
    /// It dials a connection of its own, which is not pooled. `direct` in a file.
    Direct,
}

/// Whether a checkout looks at the socket (`recv` with `MSG_PEEK`) before it hands it out.
///
/// A peer's FIN or RST is reported without that; the look costs a system call (150 to 280 ns) and
/// sees besides, without waiting for the report, what the kernel knows already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Deserialize, serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum Peek {
    /// Not at all. `"never"` in a file.
    #[default]
    Never,
    /// At every connection that has rested. `"always"` in a file.
    Always,
    /// At those that have rested longer than this. `{ idle_longer_than_ms = 500 }` in a file;
    /// 500 ms is HikariCP's alive bypass window.
    IdleLongerThanMs(u32),
}

impl Ranged for Peek {
    fn number(&self) -> Option<u64> {
        match self {
            Self::Never | Self::Always => None,
            Self::IdleLongerThanMs(millis) => Some(u64::from(*millis)),
        }
    }
}
