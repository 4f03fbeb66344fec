//! Proves what a connection costs to open and close, in batches of 1, 8, 64 and 256: CPU, system
//! calls and connections per second of corepool on each of its drivers beside what else there is.
//!
//! `cargo run --release --bin dials -- --out FILE`; see `README.md` and `--help`.
//!
//! The acceptor is a process on the last core, each sample a fresh process on the first; candidates
//! and batches are shuffled anew in every repetition.
#![cfg_attr(not(target_os = "linux"), allow(unused))]

#[cfg(target_os = "linux")]
mod acceptor;
#[cfg(target_os = "linux")]
mod campaign;
#[cfg(target_os = "linux")]
mod candidates;
#[cfg(target_os = "linux")]
mod host;
#[cfg(target_os = "linux")]
mod meter;
#[cfg(target_os = "linux")]
mod options;
#[cfg(target_os = "linux")]
mod spread;
#[cfg(target_os = "linux")]
mod sys_calls;

#[cfg(target_os = "linux")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    use self::options::Mode;
    match options::parse(std::env::args().skip(1))? {
        Mode::Campaign(options) => campaign::run(&options),
        Mode::Acceptor { core } => {
            host::pin(core)?;
            Ok(acceptor::serve()?)
        }
        Mode::Client { candidate, plan, core } => {
            host::pin(core)?;
            println!("{}", candidate.measure(plan));
            Ok(())
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("this bench is for Linux");
}
