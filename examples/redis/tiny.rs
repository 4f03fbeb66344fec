//! What stands in for Redis on a machine that has none: as much of it as the example needs, in
//! memory.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::server::LOGINS;

type Command = Vec<Vec<u8>>;
/// The database, and the name.
type Key = (u32, Vec<u8>);
type Store = HashMap<Key, Vec<u8>>;

/// Starts it. It ends with the runtime.
pub(crate) async fn start() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let store = Arc::<Mutex<Store>>::default();
    tokio::spawn(async move {
        let mut sessions = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let store = Arc::clone(&store);
            // How a client ends its session is the client's choice.
            sessions.spawn(async move { Session::default().serve(stream, &store).await });
        }
    });
    Ok(address)
}

#[derive(Default)]
struct Session {
    database: u32,
    /// Between MULTI and EXEC.
    queued: Option<Vec<Command>>,
    /// What stood there at the WATCH.
    watched: Vec<(Key, Option<Vec<u8>>)>,
}

impl Session {
    async fn serve(mut self, stream: TcpStream, store: &Mutex<Store>) -> io::Result<()> {
        // Answers of a pipeline are several small writes.
        stream.set_nodelay(true)?;
        let mut stream = BufReader::new(stream);
        while let Some(command) = read(&mut stream).await? {
            let answer = {
                let mut store = store.lock().unwrap_or_else(PoisonError::into_inner);
                self.answer(&command, &mut store)
            };
            stream.write_all(&answer).await?;
        }
        Ok(())
    }

    fn answer(&mut self, command: &Command, store: &mut Store) -> Vec<u8> {
        let name = command[0].to_ascii_uppercase();
        if let Some(queued) = &mut self.queued
            && name != b"EXEC"
        {
            queued.push(command.clone());
            return b"+QUEUED\r\n".to_vec();
        }
        match (&*name, &command[1..]) {
            (b"PING", []) => b"+PONG\r\n".to_vec(),
            (b"AUTH", [user, password]) => {
                let known = |login: &(&str, &str)| {
                    (login.0.as_bytes(), login.1.as_bytes()) == (&**user, &**password)
                };
                if LOGINS.iter().any(known) { ok() } else { error("WRONGPASS no such login") }
            }
            (b"SELECT", [database]) => match number(database) {
                Some(database) => {
                    self.database = database;
                    ok()
                }
                None => error("ERR invalid DB index"),
            },
            (b"SET", [key, value]) => {
                store.insert((self.database, key.clone()), value.clone());
                ok()
            }
            (b"GET", [key]) => bulk(store.get(&(self.database, key.clone()))),
            (b"INCR", [key]) => self.add(key, 1, store),
            (b"INCRBY", [key, number]) => match self::number(number) {
                Some(number) => self.add(key, number, store),
                None => error(NO_NUMBER),
            },
            (b"WATCH", keys) => {
                let keys = keys.iter().map(|key| (self.database, key.clone()));
                self.watched.extend(keys.map(|key| (key.clone(), store.get(&key).cloned())));
                ok()
            }
            (b"MULTI", []) => {
                self.queued = Some(Vec::new());
                ok()
            }
            (b"EXEC", []) => {
                let (queued, watched) = (self.queued.take(), std::mem::take(&mut self.watched));
                let Some(queued) = queued else { return error("ERR EXEC without MULTI") };
                if watched.iter().any(|(key, value)| store.get(key) != value.as_ref()) {
                    return b"*-1\r\n".to_vec();
                }
                let mut answers = format!("*{}\r\n", queued.len()).into_bytes();
                for command in &queued {
                    answers.extend(self.answer(command, store));
                }
                answers
            }
            _ => error("ERR unknown command"),
        }
    }

    fn add(&self, key: &[u8], more: i64, store: &mut Store) -> Vec<u8> {
        let value = store.entry((self.database, key.to_vec())).or_insert_with(|| b"0".to_vec());
        let Some(sum) = number::<i64>(value).and_then(|value| value.checked_add(more)) else {
            return error(NO_NUMBER);
        };
        *value = sum.to_string().into_bytes();
        format!(":{sum}\r\n").into_bytes()
    }
}

const NO_NUMBER: &str = "ERR value is not an integer or out of range";

/// A command: an array of texts, each with its length. `None` at the end.
async fn read(stream: &mut BufReader<TcpStream>) -> io::Result<Option<Command>> {
    let Some(count) = length(stream, b'*').await? else {
        return Ok(None);
    };
    let mut command = Vec::new();
    for _ in 0..count {
        let length = length(stream, b'$').await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut text = vec![0; length + 2];
        stream.read_exact(&mut text).await?;
        text.truncate(length);
        command.push(text);
    }
    if command.is_empty() { Err(io::ErrorKind::InvalidData.into()) } else { Ok(Some(command)) }
}

async fn length(stream: &mut BufReader<TcpStream>, kind: u8) -> io::Result<Option<usize>> {
    let mut line = Vec::new();
    if stream.read_until(b'\n', &mut line).await? == 0 {
        return Ok(None);
    }
    let length = line.strip_prefix(&[kind]).and_then(|line| line.strip_suffix(b"\r\n"));
    let length = length.and_then(number).filter(|length| *length <= LONGEST);
    length.map(Some).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The longest text that it takes.
const LONGEST: usize = 1 << 20;

fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn ok() -> Vec<u8> {
    b"+OK\r\n".to_vec()
}

fn error(text: &str) -> Vec<u8> {
    format!("-{text}\r\n").into_bytes()
}

fn bulk(value: Option<&Vec<u8>>) -> Vec<u8> {
    match value {
        Some(value) => [format!("${}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat(),
        None => b"$-1\r\n".to_vec(),
    }
}
