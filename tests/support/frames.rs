//! An HTTP/2 peer that sends what it likes, frame by frame.
#![allow(dead_code, unreachable_pub)] // each test file uses its part

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread::{self, JoinHandle},
    time::Duration,
};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub const MAX_CONCURRENT_STREAMS: u16 = 3;
pub const INITIAL_WINDOW_SIZE: u16 = 4;

pub const NO_ERROR: u32 = 0;
pub const PROTOCOL_ERROR: u32 = 1;
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// `:status: 200`, by HPACK's static table.
pub const OK: &[u8] = &[0x88];

/// A field without a place in a table. Names and values have less than 127 bytes.
pub fn field(name: &str, value: &str) -> Vec<u8> {
    let mut block = vec![0];
    for text in [name, value] {
        block.push(u8::try_from(text.len()).unwrap());
        block.extend_from_slice(text.as_bytes());
    }
    block
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The code of a RST_STREAM or a GOAWAY.
    pub fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    pub fn is_last(&self) -> bool {
        self.flags & END_STREAM != 0
    }
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

pub fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (name, value) in values {
        payload.extend_from_slice(&name.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    }
    frame(SETTINGS, 0, 0, &payload)
}

/// One accepted connection.
pub struct Peer(pub TcpStream);

/// How long a peer waits for what it expects.
const PATIENCE: Duration = Duration::from_secs(5);

impl Peer {
    /// A listener, whose first connection is served by a script.
    pub fn script<R: Send + 'static>(
        script: impl FnOnce(Self) -> R + Send + 'static,
    ) -> (SocketAddr, JoinHandle<R>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (address, thread::spawn(move || script(Self::accept(&listener))))
    }

    /// The next connection of a listener.
    pub fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    /// Reads the client's preface.
    pub fn greeted(&mut self) {
        let mut preface = [0; 24];
        self.0.read_exact(&mut preface).unwrap();
        assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    }

    /// Both sides' SETTINGS.
    pub fn shake_hands(&mut self, values: &[(u16, u32)]) {
        self.greeted();
        self.say(&settings(values));
        let theirs = self.next(SETTINGS);
        assert_eq!(theirs.flags, 0);
        self.send(SETTINGS, ACK, 0, &[]);
        assert_eq!(self.next(SETTINGS).flags, ACK);
    }

    pub fn say(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.say(&frame(kind, flags, stream, payload));
    }

    /// A response's head, of these fields beside its status.
    pub fn respond(&mut self, stream: u32, fields: &[Vec<u8>], end: bool) {
        let block = [OK, &fields.concat()].concat();
        let flags = END_HEADERS | if end { END_STREAM } else { 0 };
        self.send(HEADERS, flags, stream, &block);
    }

    pub fn reset(&mut self, stream: u32, code: u32) {
        self.send(RST_STREAM, 0, stream, &code.to_be_bytes());
    }

    pub fn go_away(&mut self, last: u32, code: u32, said: &[u8]) {
        let payload = [&last.to_be_bytes()[..], &code.to_be_bytes(), said].concat();
        self.send(GOAWAY, 0, 0, &payload);
    }

    /// A PING and its answer: all that was sent before is read.
    pub fn sync(&mut self) {
        self.send(PING, 0, 0, b"in order");
        while self.next(PING).payload != b"in order" {}
    }

    /// The next frame.
    ///
    /// # Errors
    /// When the connection has ended, or nothing has come for some seconds.
    pub fn read(&mut self) -> io::Result<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head)?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.0.read_exact(&mut payload)?;
        Ok(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload })
    }

    /// The next frame of a kind; what comes before it is passed over.
    pub fn next(&mut self, kind: u8) -> Frame {
        loop {
            match self.read() {
                Ok(frame) if frame.kind == kind => return frame,
                Ok(_) => {}
                Err(error) => panic!("no frame of kind {kind}: {error}"),
            }
        }
    }

    /// The streams of the next requests.
    pub fn requests(&mut self, count: usize) -> Vec<u32> {
        (0..count).map(|_| self.next(HEADERS).stream).collect()
    }

    /// All frames until the connection ends.
    pub fn rest(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        loop {
            match self.read() {
                Ok(frame) => frames.push(frame),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    panic!("the connection stays open, after {frames:?}")
                }
                Err(_) => return frames,
            }
        }
    }

    /// Whether nothing more comes for a while, and the connection stays.
    pub fn is_open(&mut self) -> bool {
        self.0.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let read = self.0.read(&mut [0]);
        self.0.set_read_timeout(Some(PATIENCE)).unwrap();
        read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    /// Writes the same for as long as somebody reads it; how many bytes that was.
    pub fn flood(&mut self, bytes: &[u8], most: usize) -> usize {
        self.0.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        let block = bytes.repeat((64 << 10) / bytes.len());
        let mut written = 0;
        while written < most {
            match self.0.write(&block) {
                Ok(count) => written += count,
                Err(_) => break,
            }
        }
        written
    }
}
