//! One setting against its range.

use core::ops::RangeInclusive;

use super::SettingsError;

/// The most connections, callers or dials that a limit may name.
pub(super) const MAX_CONNECTIONS: u64 = 1 << 24;

/// A setting that holds a number, or may.
pub(crate) trait Ranged {
    /// Whether it may hold none.
    const CAN_BE_OFF: bool = false;

    /// The number, if it holds one.
    fn number(&self) -> Option<u64>;
}

impl Ranged for u16 {
    fn number(&self) -> Option<u64> {
        Some(u64::from(*self))
    }
}

impl Ranged for u32 {
    fn number(&self) -> Option<u64> {
        Some(u64::from(*self))
    }
}

impl Ranged for usize {
    fn number(&self) -> Option<u64> {
        Some(*self as u64)
    }
}

impl<N: Ranged> Ranged for Option<N> {
    const CAN_BE_OFF: bool = true;

    fn number(&self) -> Option<u64> {
        self.as_ref().and_then(Ranged::number)
    }
}

/// Refuses a number outside its range.
pub(crate) fn in_range<R: Ranged>(
    field: &str,
    setting: &R,
    range: RangeInclusive<u64>,
) -> Result<(), SettingsError> {
    match setting.number() {
        Some(number) if !range.contains(&number) => {
            let off = if R::CAN_BE_OFF { ", or off" } else { "" };
            let allowed = format!("{} to {}{off}", range.start(), range.end());
            Err(SettingsError::new(field, number, allowed))
        }
        _ => Ok(()),
    }
}
