//! The command line of a candidate: `LISTEN ORIGIN keep-alive|close`.

use std::{env, net::SocketAddr, process};

/// What a candidate is told.
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// Where clients connect to.
    pub listen: SocketAddr,
    /// Where requests go.
    pub origin: SocketAddr,
    /// Whether a connection to the origin serves more than one request.
    pub reuse: bool,
}

impl Args {
    /// The process's own; ends it with status 2 when they cannot be read.
    pub fn parse() -> Self {
        let args: Vec<_> = env::args().skip(1).collect();
        Self::from_words(&args).unwrap_or_else(|| {
            eprintln!("usage: LISTEN ORIGIN keep-alive|close");
            process::exit(2);
        })
    }

    fn from_words(words: &[String]) -> Option<Self> {
        let [listen, origin, mode] = words else {
            return None;
        };
        let reuse = match mode.as_str() {
            "keep-alive" => true,
            "close" => false,
            _ => return None,
        };
        Some(Self { listen: listen.parse().ok()?, origin: origin.parse().ok()?, reuse })
    }
}
