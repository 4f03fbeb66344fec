//! What `./run` has measured, as it wrote it down: one line each, separated by tabs.

/// One timed run of one candidate.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Which candidate.
    pub name: String,
    /// Which cell of the table.
    pub cell: Cell,
    /// In which round; the candidates of one round ran one after the other.
    pub rep: u32,
    /// Share of the CPU time that was spent in the kernel, 0 to 1.
    pub system: f64,
    /// CPU time, µs per request.
    pub cpu_us: f64,
    /// Share of the run that the proxy was ready to run but did not have its core, 0 to 1.
    pub waited: f64,
    /// Requests per second.
    pub rate: f64,
    /// Latency in µs: median, 99th and 99.9th percentile.
    pub latency_us: [f64; 3],
    /// Requests that failed.
    pub errors: u64,
}

/// The conditions of a sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Towards the origin: `keep-alive` or `close`.
    pub mode: String,
    /// Concurrent clients.
    pub clients: u32,
}

/// System calls of one candidate under one condition.
#[derive(Clone, Debug, PartialEq)]
pub struct Syscalls {
    /// Which candidate.
    pub name: String,
    /// Which cell of the table.
    pub cell: Cell,
    /// Calls per request.
    pub each: f64,
}

/// One kind of system call of one candidate, as strace saw it.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Which candidate.
    pub name: String,
    /// Towards the origin: `keep-alive` or `close`.
    pub mode: String,
    /// The call's name.
    pub call: String,
    /// Calls per request.
    pub each: f64,
}

/// All of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples {
    /// Timed runs.
    pub samples: Vec<Sample>,
    /// Counted system calls.
    pub syscalls: Vec<Syscalls>,
    /// What they were.
    pub calls: Vec<Call>,
}

impl Samples {
    /// Reads all lines.
    ///
    /// # Errors
    /// The first line that is none of ours.
    pub fn read<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let mut all = Self::default();
        for line in lines {
            all.add(line).ok_or_else(|| format!("not a sample: {line}"))?;
        }
        Ok(all)
    }

    fn add(&mut self, line: &str) -> Option<()> {
        let words: Vec<_> = line.split('\t').collect();
        match words[..] {
            ["sample", name, mode, clients, rep, ref figures @ ..] => {
                let figures: Vec<f64> =
                    figures.iter().map(|word| word.parse().ok()).collect::<Option<_>>()?;
                let [user, system, on_ns, off_ns, requests, us, p50, p99, p999, errors] =
                    figures[..]
                else {
                    return None;
                };
                self.samples.push(Sample {
                    name: name.to_owned(),
                    cell: Cell::new(mode, clients)?,
                    rep: rep.parse().ok()?,
                    system: system / (user + system).max(1.0),
                    cpu_us: on_ns / 1e3 / requests,
                    waited: off_ns / 1e3 / us,
                    rate: requests / us * 1e6,
                    latency_us: [p50, p99, p999],
                    errors: errors as u64,
                });
            }
            ["syscalls", name, mode, clients, calls, requests] => self.syscalls.push(Syscalls {
                name: name.to_owned(),
                cell: Cell::new(mode, clients)?,
                each: per_request(calls, requests)?,
            }),
            ["call", name, mode, call, calls, requests] => self.calls.push(Call {
                name: name.to_owned(),
                mode: mode.to_owned(),
                call: call.to_owned(),
                each: per_request(calls, requests)?,
            }),
            _ => return None,
        }
        Some(())
    }
}

impl Cell {
    fn new(mode: &str, clients: &str) -> Option<Self> {
        Some(Self { mode: mode.to_owned(), clients: clients.parse().ok()? })
    }
}

fn per_request(calls: &str, requests: &str) -> Option<f64> {
    Some(calls.parse::<f64>().ok()? / requests.parse::<f64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_are_written() {
        let lines = [
            "sample\tnginx\tclose\t64\t2\t30\t90\t1200000000\t20000000\t100000\t2000000\t600\t900\t1500\t0",
            "syscalls\tnginx\tclose\t64\t1200\t100",
            "call\tnginx\tclose\trecvfrom\t200\t100",
        ];
        let read = Samples::read(lines.into_iter()).unwrap();
        let cell = Cell { mode: "close".to_owned(), clients: 64 };
        let [sample] = &read.samples[..] else { panic!("{read:?}") };
        assert_eq!((&sample.cell, sample.rep, sample.errors), (&cell, 2, 0));
        assert_eq!((sample.cpu_us, sample.system, sample.waited), (12.0, 0.75, 0.01));
        assert_eq!((sample.rate, sample.latency_us), (50_000.0, [600.0, 900.0, 1500.0]));
        assert_eq!((read.syscalls[0].each, read.calls[0].each), (12.0, 2.0));
    }

    #[test]
    fn other_lines_are_refused() {
        for line in ["", "sample\tnginx\tclose\t64\t2\t30", "syscalls\ta\tclose\t8\tx\t1"] {
            Samples::read([line].into_iter()).unwrap_err();
        }
    }
}
