//! Proves what a port window is worth when local ports run short: the time of one connect to one
//! address with 60, 90 and 97 % of a small port range taken, with corepool's window and without.
//!
//! `cargo run --release --bin ports -- --out FILE`; see `README.md` and `--help`. It needs the
//! privilege to make a network of its own, whose range it can set.
#![cfg_attr(not(target_os = "linux"), allow(unused))]

#[cfg(target_os = "linux")]
mod campaign;
#[cfg(target_os = "linux")]
mod candidates;
#[cfg(target_os = "linux")]
#[path = "../dials/host.rs"]
#[allow(dead_code)] // what the other bench uses of it
mod host;

#[cfg(target_os = "linux")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    campaign::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("this bench is for Linux");
}
