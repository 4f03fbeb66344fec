//! Values of flags, checked as they are read: the error names the flag and what it takes.

use core::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};

/// A value, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OrOff<T>(pub(crate) Option<T>);

/// A whole number within bounds; the error says which.
pub(crate) fn whole<T>(least: u32, most: u32) -> impl Fn(&str) -> Result<T, String> + Clone
where
    T: TryFrom<u32>,
{
    move |text| {
        let number = text.parse::<u32>().ok().filter(|n| (least..=most).contains(n));
        number
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| format!("expected a whole number from {least} to {most}"))
    }
}

/// Seconds, fractions allowed.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    text.parse::<f64>()
        .ok()
        // Also refuses NaN, which is in no range.
        .filter(|seconds| (SECONDS_LEAST..=SECONDS_MOST).contains(seconds))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| format!("expected seconds from {SECONDS_LEAST} to {SECONDS_MOST}"))
}

/// What `value` takes, or `off`.
pub(crate) fn or_off<T>(
    value: impl Fn(&str) -> Result<T, String> + Clone,
) -> impl Fn(&str) -> Result<OrOff<T>, String> + Clone {
    move |text| {
        if text == "off" {
            return Ok(OrOff(None));
        }
        value(text).map(|value| OrOff(Some(value))).map_err(|error| format!("{error}, or off"))
    }
}

/// One of a few words.
pub(crate) fn choice<T>(
    choices: &'static [(&'static str, T)],
) -> impl TypedValueParser<Value = T> + use<T>
where
    T: Copy + Send + Sync + 'static,
{
    let names = choices.iter().map(|(name, _)| *name);
    PossibleValuesParser::new(names).try_map(|word| {
        let chosen = choices.iter().find(|(name, _)| *name == word);
        chosen.map(|(_, chosen)| *chosen).ok_or("none of the possible values")
    })
}

/// Milliseconds, as settings have them. What [`seconds`] takes fits.
pub(crate) fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// The pool's clock ticks in milliseconds.
const SECONDS_LEAST: f64 = 0.001;

/// A day.
const SECONDS_MOST: f64 = 86_400.0;
