//! The command line.

use std::{net::SocketAddr, path::PathBuf, process::exit};

use crate::{candidates::Candidate, meter::Plan};

const HELP: &str = "\
Opens and closes loopback TCP connections, beside the peers.

  --quick           one repetition of few connections, for a smoke check
  --reps N          repetitions (default 9)
  --only A,B        candidates whose names contain one of these
  --out FILE        writes the tables there too
  --no-fifo         leaves both ends in the normal scheduling class
";

/// Tells a client to close before it dials again; see [`Plan::apart`].
pub(crate) const APART: &str = "apart";

/// What this process is.
#[derive(Debug)]
pub(crate) enum Mode {
    /// The one that the user started.
    Campaign(Options),
    Acceptor {
        core: usize,
    },
    /// One sample.
    Client {
        candidate: Candidate,
        plan: Plan,
        core: usize,
    },
}

/// What the user asked for.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) quick: bool,
    pub(crate) reps: usize,
    pub(crate) only: Vec<String>,
    pub(crate) out: Option<PathBuf>,
    pub(crate) fifo: bool,
}

/// # Errors
/// When an argument is unknown or has no value; the error names it.
pub(crate) fn parse(args: impl Iterator<Item = String>) -> Result<Mode, String> {
    let args: Vec<String> = args.collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["acceptor", core] => Ok(Mode::Acceptor { core: number(core)? }),
        ["client", name, to, batch, connections, core, ref rest @ ..] => {
            let to: SocketAddr = to.parse().map_err(|_| format!("no address: {to}"))?;
            let candidate =
                Candidate::named(name).ok_or_else(|| format!("no candidate is called {name}"))?;
            let apart = rest == [APART];
            let (batch, connections) = (number(batch)?, number(connections)?);
            let plan = Plan { to, batch, connections, apart };
            Ok(Mode::Client { candidate, plan, core: number(core)? })
        }
        _ => campaign(args.into_iter()).map(Mode::Campaign),
    }
}

fn campaign(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options { quick: false, reps: 9, only: Vec::new(), out: None, fifo: true };
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} wants a value"));
        match arg.as_str() {
            "--quick" => (options.quick, options.reps) = (true, 1),
            "--reps" => options.reps = number(&value()?)?,
            "--only" => options.only = value()?.split(',').map(str::to_owned).collect(),
            "--out" => options.out = Some(value()?.into()),
            "--no-fifo" => options.fifo = false,
            // Cargo gives it to every bench.
            "--bench" => {}
            "--help" | "-h" => {
                print!("{HELP}");
                exit(0);
            }
            _ => return Err(format!("{arg} is no option; see --help")),
        }
    }
    Ok(options)
}

fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("{text} is no number"))
}
