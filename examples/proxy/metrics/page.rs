//! The text format.

use core::{fmt::Write as _, time::Duration};

use corepool::HistogramSnapshot;

#[derive(Clone, Copy)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A page in the making.
#[derive(Default)]
pub(super) struct Page {
    text: String,
    name: &'static str,
}

impl Page {
    /// Begins a metric; the samples that follow belong to it.
    pub(super) fn family(&mut self, name: &'static str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.name = name;
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: u64) {
        self.series("", labels.iter().copied());
        let _ = writeln!(self.text, " {value}");
    }

    /// A distribution. Of its fine buckets, four to one here.
    pub(super) fn histogram(&mut self, labels: &[(&str, &str)], times: &HistogramSnapshot) {
        let mut seen = 0;
        for (at, (bound, count)) in times.buckets().enumerate() {
            seen += count;
            if at % COARSER != 0 || bound == HistogramSnapshot::LONGEST {
                continue;
            }
            // What is in the bucket was cut to whole microseconds: it is below the next one.
            let bound = (bound + Duration::from_micros(1)).as_secs_f64().to_string();
            self.series("_bucket", labels.iter().copied().chain([("le", bound.as_str())]));
            let _ = writeln!(self.text, " {seen}");
        }
        self.series("_bucket", labels.iter().copied().chain([("le", "+Inf")]));
        let _ = writeln!(self.text, " {seen}");
        self.series("_sum", labels.iter().copied());
        let _ = writeln!(self.text, " {}", times.sum().as_secs_f64());
        self.series("_count", labels.iter().copied());
        let _ = writeln!(self.text, " {seen}");
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }

    fn series<'a>(&mut self, suffix: &str, labels: impl Iterator<Item = (&'a str, &'a str)>) {
        self.text.push_str(self.name);
        self.text.push_str(suffix);
        let mut before = '{';
        for (label, value) in labels {
            self.text.push(before);
            self.text.push_str(label);
            self.text.push_str("=\"");
            self.escaped(value);
            self.text.push('"');
            before = ',';
        }
        if before == ',' {
            self.text.push('}');
        }
    }

    fn escaped(&mut self, value: &str) {
        for c in value.chars() {
            match c {
                '\\' => self.text.push_str("\\\\"),
                '"' => self.text.push_str("\\\""),
                '\n' => self.text.push_str("\\n"),
                c => self.text.push(c),
            }
        }
    }
}

/// The pool has two buckets for each octave; here there is one for every two octaves.
const COARSER: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut page = Page::default();
        page.family("m", Kind::Gauge, "A metric.");
        page.sample(&[("a", "x\\y\"z\n"), ("b", "")], 7);
        page.sample(&[], 8);
        let lines: Vec<_> = page.text.lines().collect();
        let expected =
            ["# HELP m A metric.", "# TYPE m gauge", r#"m{a="x\\y\"z\n",b=""} 7"#, "m 8"];
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_histogram_without_anything_in_it_has_all_its_buckets() {
        let mut page = Page::default();
        page.family("m", Kind::Histogram, "A metric.");
        page.histogram(&[("a", "x")], &HistogramSnapshot::EMPTY);
        let lines: Vec<_> = page.text.lines().skip(2).collect();
        assert_eq!(lines[0], r#"m_bucket{a="x",le="0.000002"} 0"#);
        assert_eq!(lines[1], r#"m_bucket{a="x",le="0.000008"} 0"#);
        let last = [
            r#"m_bucket{a="x",le="33.554432"} 0"#,
            r#"m_bucket{a="x",le="+Inf"} 0"#,
            r#"m_sum{a="x"} 0"#,
            r#"m_count{a="x"} 0"#,
        ];
        assert_eq!(lines[lines.len() - 4..], last);
    }
}
