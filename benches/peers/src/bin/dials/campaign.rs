//! All samples of all candidates, and the tables of them.

use std::{
    collections::BTreeMap,
    error::Error,
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use corepool_peers::report;

use crate::{
    candidates::{ALL, Candidate, REFERENCE},
    host,
    meter::Sample,
    options::{APART, Options},
    spread::Spread,
    sys_calls,
};

const BATCHES: [usize; 4] = [1, 8, 64, 256];
/// Those that are timed with their closes apart, too.
const APART_BATCHES: [usize; 2] = [1, 64];
/// Runs of two lengths, whose difference leaves start and end out.
const COUNTED: [usize; 2] = [4096, 12288];

/// Where a connection's packets are received.
#[derive(Clone, Copy, Debug)]
struct Regime {
    name: &'static str,
    /// Whether on the acceptor's core.
    apart: bool,
    connections: usize,
}

const INLINE: Regime = Regime { name: "inline", apart: false, connections: 16384 };
const ASYNC: Regime = Regime { name: "async", apart: true, connections: 6144 };

/// By candidate, in the order of [`ALL`], and batch.
type Samples = BTreeMap<(usize, usize), Vec<Sample>>;

struct Campaign<'a> {
    options: &'a Options,
    candidates: Vec<Candidate>,
    program: String,
    fifo: bool,
    core: usize,
    to: String,
}

const COMMAND: &str = "cargo run --release --manifest-path benches/peers/Cargo.toml --bin dials -- \
                       --out benches/results/dials.md";

/// # Errors
/// When a process cannot be started, or one of them fails.
pub(crate) fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let (client_core, acceptor_core) = host::cores()?;
    let title = "Open and close of loopback TCP connections";
    let mut report = report::head(title, COMMAND, options.quick);
    let network = host::own_network();
    if let Err(error) = &network {
        writeln!(report, "No network of our own ({error}): no async regime.\n")?;
    }
    let fifo = options.fifo && host::has_fifo();
    let class = if fifo { "SCHED_FIFO 1" } else { "the normal scheduling class" };
    let wanted = |name: &str| {
        options.only.is_empty() || options.only.iter().any(|part| name.contains(part.as_str()))
    };
    let candidates = ALL.into_iter().filter(|candidate| wanted(candidate.name)).collect();
    let program = std::env::current_exe()?.to_string_lossy().into_owned();
    let (mut acceptor, to) = start_acceptor(command(&program, fifo), acceptor_core)?;
    let campaign = Campaign { options, candidates, program, fifo, core: client_core, to };
    writeln!(
        report,
        "{} repetitions, shuffled, a process for each sample; both ends in {class}.",
        options.reps
    )?;
    let regimes = if network.is_ok() { &[INLINE, ASYNC][..] } else { &[INLINE] };
    for regime in regimes {
        if network.is_ok() {
            host::receive_on(regime.apart.then_some(acceptor_core))?;
        }
        campaign.measure(*regime, &mut report)?;
    }
    acceptor.kill()?;
    acceptor.wait()?;
    print!("{report}");
    if let Some(out) = &options.out {
        fs::write(out, report)?;
    }
    Ok(())
}

/// A process of this program. Neither end is to wait for a core: while the acceptor does, its queue
/// fills, and a SYN that finds no place in it comes again after a second.
fn command(program: &str, fifo: bool) -> Command {
    if !fifo {
        return Command::new(program);
    }
    let mut command = Command::new("chrt");
    command.args(["-f", "1", program]);
    command
}

fn start_acceptor(mut command: Command, core: usize) -> Result<(Child, String), Box<dyn Error>> {
    command.args(["acceptor", &core.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let mut address = String::new();
    BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut address)?;
    Ok((child, address.trim().to_owned()))
}

impl Campaign<'_> {
    fn measure(&self, regime: Regime, report: &mut String) -> Result<(), Box<dyn Error>> {
        let Regime { connections, name, .. } = regime;
        let connections = if self.options.quick { 512 } else { connections };
        let mut turns: Vec<(usize, usize)> = (0..self.candidates.len())
            .flat_map(|candidate| BATCHES.map(|batch| (candidate, batch)))
            .collect();
        let (mut samples, mut apart) = (Samples::new(), Samples::new());
        for rep in 0..self.options.reps {
            eprintln!("{name}: repetition {} of {}", rep + 1, self.options.reps);
            fastrand::shuffle(&mut turns);
            for &(candidate, batch) in &turns {
                let arguments = self.arguments(self.candidates[candidate], batch, connections);
                samples.entry((candidate, batch)).or_default().push(self.sample(&arguments)?);
                if APART_BATCHES.contains(&batch) {
                    let arguments = [&arguments[..], &[APART.to_owned()]].concat();
                    apart.entry((candidate, batch)).or_default().push(self.sample(&arguments)?);
                }
            }
        }
        let of = |candidate, batch, value: fn(&Sample) -> f64| {
            Spread::of(samples.get(&(candidate, batch))?.iter().map(value))
        };
        writeln!(report, "\n## {name}: CPU µs per connection, median [quartiles]\n")?;
        self.table(report, |candidate, batch| {
            let cpu = of(candidate, batch, Sample::cpu_us)?;
            let reference = self.candidates.iter().position(|other| other.name == REFERENCE);
            let reference = reference.and_then(|at| of(at, batch, Sample::cpu_us));
            let ratio = reference.map_or(String::new(), |reference| {
                format!(" ({:.2} ×)", cpu.median / reference.median)
            });
            Some(format!("{cpu}{ratio}"))
        })?;
        if !regime.apart {
            writeln!(report, "\n## {name}: thousand connections per second\n")?;
            self.table(report, |candidate, batch| {
                let rate = of(candidate, batch, |sample| sample.per_second() / 1e3)?;
                Some(rate.to_string())
            })?;
        }
        writeln!(
            report,
            "\n## {name}: µs from a round's first dial to its last success, when the last round's \
             closes are over: p50 / p99\n"
        )?;
        let of = |candidate, batch, value: fn(&Sample) -> f64| {
            Spread::of(apart.get(&(candidate, batch))?.iter().map(value))
        };
        self.table(report, |candidate, batch| {
            let p50 = of(candidate, batch, |sample| sample.open_p50.as_nanos() as f64 / 1e3)?;
            let p99 = of(candidate, batch, |sample| sample.open_p99.as_nanos() as f64 / 1e3)?;
            Some(format!("{:.1} / {:.1}", p50.median, p99.median))
        })?;
        writeln!(report, "\n## {name}: system calls per connection\n")?;
        self.table(report, |candidate, batch| {
            let calls = self.system_calls(self.candidates[candidate], batch)?;
            Some(format!("{calls:.2}"))
        })?;
        Ok(())
    }

    /// A row for each candidate, a column for each batch.
    fn table(
        &self,
        report: &mut String,
        cell: impl Fn(usize, usize) -> Option<String>,
    ) -> Result<(), Box<dyn Error>> {
        let titles = BATCHES.map(|batch| format!("batch {batch}"));
        writeln!(report, "| candidate | {} |", titles.join(" | "))?;
        writeln!(report, "|---{}|", "|---".repeat(BATCHES.len()))?;
        for (candidate, Candidate { name, .. }) in self.candidates.iter().enumerate() {
            let cells =
                BATCHES.map(|batch| cell(candidate, batch).unwrap_or_else(|| "-".to_owned()));
            writeln!(report, "| {name} | {} |", cells.join(" | "))?;
        }
        Ok(())
    }

    fn arguments(&self, candidate: Candidate, batch: usize, connections: usize) -> Vec<String> {
        let numbers = [batch, connections, self.core].map(|number| number.to_string());
        let mut arguments = vec!["client".to_owned(), candidate.name.to_owned(), self.to.clone()];
        arguments.extend(numbers);
        arguments
    }

    fn sample(&self, arguments: &[String]) -> Result<Sample, Box<dyn Error>> {
        let mut command = command(&self.program, self.fifo);
        command.args(arguments).stderr(Stdio::inherit());
        let output = command.output()?;
        if !output.status.success() {
            return Err(format!("a client failed: {}", arguments.join(" ")).into());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().parse()?)
    }

    fn system_calls(&self, candidate: Candidate, batch: usize) -> Option<f64> {
        let [few, many] = COUNTED;
        let count = |n| sys_calls::count(&self.program, &self.arguments(candidate, batch, n));
        // The warm-up is an eighth on top.
        let more = (many - few) as f64 * 1.125;
        Some((count(many)? as f64 - count(few)? as f64) / more)
    }
}
