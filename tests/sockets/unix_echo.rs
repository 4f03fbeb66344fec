//! An origin on a unix socket.

use std::{
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use crate::support::Ended;

/// Says back what it hears, and reports how its connections end.
#[derive(Debug)]
pub(crate) struct UnixEcho {
    path: PathBuf,
    ended: mpsc::Receiver<Ended>,
    accepted: mpsc::Receiver<UnixStream>,
}

/// A path that no other test uses.
pub(crate) fn fresh_path() -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("corepool-{}-{number}.sock", std::process::id()))
}

impl UnixEcho {
    pub(crate) fn start() -> Self {
        let path = fresh_path();
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let (ended, ends) = mpsc::channel();
        let (accepting, accepted) = mpsc::channel();
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let _ = accepting.send(stream.try_clone().unwrap());
                let ended = ended.clone();
                thread::spawn(move || ended.send(echo(stream)));
            }
        });
        Self { path, ended: ends, accepted }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The next connection made to it.
    pub(crate) fn next(&self) -> UnixStream {
        self.accepted.recv_timeout(Duration::from_secs(5)).expect("a connection arrives")
    }

    /// How the next connection that ends ends.
    pub(crate) fn next_end(&self) -> Ended {
        self.ended.recv_timeout(Duration::from_secs(5)).expect("a connection ends")
    }
}

impl Drop for UnixEcho {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn echo(mut stream: UnixStream) -> Ended {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ended::Fin,
            Ok(n) => {
                if stream.write_all(&buffer[..n]).is_err() {
                    return Ended::Reset;
                }
            }
            Err(_) => return Ended::Reset,
        }
    }
}
