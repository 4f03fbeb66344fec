//! The origin as the client sees it: a process to start, to command and to hear.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Lines, Write},
    net::SocketAddr,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

type Failure = Box<dyn std::error::Error>;

/// When the origin sent a FIN.
#[derive(Clone, Copy, Debug)]
pub struct Fin {
    /// The clock before the call that sent it.
    pub before: u64,
    /// The clock after it: the FIN is at the client.
    pub after: u64,
}

/// A running origin. It ends when this is dropped.
#[derive(Debug)]
pub struct Origin {
    child: Child,
    commands: Option<ChildStdin>,
    answers: Lines<BufReader<ChildStdout>>,
    pub address: SocketAddr,
}

impl Origin {
    /// Starts this program once more, as an origin that waits for so many connections.
    ///
    /// # Errors
    /// When it does not start or does not listen.
    pub fn start(host: &str, count: usize) -> Result<Self, Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["origin", &format!("{host}:0"), &count.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (commands, output) = (child.stdin.take(), child.stdout.take().ok_or("no output")?);
        let mut answers = BufReader::new(output).lines();
        let first = answers.next().ok_or("the origin ended")??;
        let address = first.strip_prefix("listening ").ok_or("no address")?.parse()?;
        Ok(Self { child, commands, answers, address })
    }

    /// Waits until all connections have been accepted.
    ///
    /// # Errors
    /// When it says something else.
    pub fn accepted(&mut self) -> Result<(), Failure> {
        let line = self.answers.next().ok_or("the origin ended")??;
        if line == "accepted" { Ok(()) } else { Err(line.into()) }
    }

    /// Has it close its connections over so long a time. [`Self::fins`] waits for that.
    ///
    /// # Errors
    /// When it is gone.
    pub fn close(&mut self, seed: u64, over: Duration) -> Result<(), Failure> {
        let commands = self.commands.as_mut().ok_or("the origin ended")?;
        Ok(writeln!(commands, "close {seed} {}", over.as_millis())?)
    }

    /// When each connection was closed, by the client's port.
    ///
    /// # Errors
    /// When it is gone, or what it says cannot be read.
    pub fn fins(&mut self, count: usize) -> Result<HashMap<u16, Fin>, Failure> {
        let mut fins = HashMap::with_capacity(count);
        while fins.len() < count {
            let line = self.answers.next().ok_or("the origin ended")??;
            let words: Vec<&str> = line.split(' ').collect();
            let [port, before, after] = words[..] else { return Err(line.into()) };
            fins.insert(port.parse()?, Fin { before: before.parse()?, after: after.parse()? });
        }
        Ok(fins)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.commands = None;
        let _ = self.child.wait();
    }
}
