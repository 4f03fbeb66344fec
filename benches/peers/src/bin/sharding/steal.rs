//! The ways to steal.

/// Whether a caller takes a connection of another shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steal {
    /// Never: no endpoint has as many idle connections as the threshold wants.
    Off,
    /// Whenever its own shard has none.
    On,
    /// When the endpoint has twice as many idle ones as there are shards: the default.
    Thresholded,
    /// When the endpoint has so many idle ones.
    From(u32),
}

impl Steal {
    /// Those that are held against each other for every number of shards.
    pub const ALL: [Self; 3] = [Self::Off, Self::On, Self::Thresholded];

    /// As a setting of the pool; `None` is the default.
    pub fn threshold(self) -> Option<u32> {
        match self {
            Self::Off => Some(u32::MAX),
            Self::On => Some(1),
            Self::Thresholded => None,
            Self::From(idle) => Some(idle),
        }
    }

    pub fn describe(self, shards: usize) -> String {
        match self {
            Self::Off => "off".to_owned(),
            Self::On => "on".to_owned(),
            Self::Thresholded => Self::From(2 * shards as u32).describe(shards),
            Self::From(idle) => format!("from {idle} idle"),
        }
    }

    /// As a curve is called that has a point for each number of shards.
    pub fn name(self) -> String {
        match self {
            Self::Thresholded => "from 2 × shards idle (default)".to_owned(),
            other => other.describe(0),
        }
    }
}
