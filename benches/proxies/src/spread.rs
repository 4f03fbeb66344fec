//! Medians with their spread.

use std::fmt;

/// The middle of some figures, and how far they reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The lowest.
    pub least: f64,
    /// The middle, or the mean of the two in the middle.
    pub median: f64,
    /// The highest.
    pub most: f64,
}

impl Spread {
    /// `None` of nothing.
    pub fn of(figures: impl Iterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<_> = figures.collect();
        sorted.sort_by(f64::total_cmp);
        let (&least, &most) = (sorted.first()?, sorted.last()?);
        let half = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[half]
        } else {
            (sorted[half - 1] + sorted[half]) / 2.0
        };
        Some(Self { least, median, most })
    }
}

/// `12.3 [12.1..12.9]`, with the precision asked for.
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(0);
        let Self { least, median, most } = self;
        write!(f, "{median:.digits$} [{least:.digits$}..{most:.digits$}]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let spread = |figures: &[f64]| Spread::of(figures.iter().copied());
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[3.0, 1.0, 9.0]).unwrap().median, 3.0);
        let four = spread(&[4.0, 1.0, 2.0, 9.0]).unwrap();
        assert_eq!(format!("{four:.1}"), "3.0 [1.0..9.0]");
    }
}
