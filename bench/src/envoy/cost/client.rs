//! The smallest client and server there can be, so that most of the machine is left to Envoy.

use crate::rulesets::headers;
use anyhow::{Context, Result, ensure};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
};

const HEAD_END: &[u8] = b"\r\n\r\n";

/// A connection on which requests follow each other.
pub(super) struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    buffer: Vec<u8>,
}

impl Connection {
    pub(super) fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let mut request = String::new();
        let mut host = "";
        for (name, value) in headers() {
            match name {
                ":authority" => host = value,
                ":path" => request = format!("GET {value} HTTP/1.1\r\nhost: {host}\r\n"),
                // The request has no body.
                ":method" | ":scheme" | "content-type" | "content-length" => {}
                _ => request.push_str(&format!("{name}: {value}\r\n")),
            }
        }
        request.push_str("\r\n");
        Ok(Self { stream, request: request.into_bytes(), buffer: Vec::new() })
    }

    /// Sends requests, each when the one before is answered.
    pub(super) fn send(&mut self, requests: u32) -> Result<()> {
        for _ in 0..requests {
            self.exchange()?;
        }
        Ok(())
    }

    /// Sends a request and looks at the answer: what is measured has to work.
    pub(super) fn check(&mut self, header: Option<&str>) -> Result<()> {
        self.exchange()?;
        let answer = String::from_utf8_lossy(&self.buffer).to_ascii_lowercase();
        ensure!(answer.starts_with("http/1.1 200 "), "Envoy answers {answer}");
        match header {
            Some(header) => ensure!(answer.contains(&format!("\n{header}: ")), "no {header} in {answer}"),
            None => ensure!(!answer.contains("x-halftone"), "a decision in {answer}"),
        }
        Ok(())
    }

    fn exchange(&mut self) -> Result<()> {
        self.stream.write_all(&self.request)?;
        read_message(&mut self.stream, &mut self.buffer)?.context("Envoy closed the connection")
    }
}

/// Reads a head and the body that its `content-length` announces; `None` when the peer is gone.
fn read_message(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<Option<()>> {
    buffer.clear();
    let mut part = [0; 16 << 10];
    loop {
        let read = stream.read(&mut part)?;
        if read == 0 {
            return Ok(None);
        }
        buffer.extend_from_slice(&part[..read]);
        let end = buffer.windows(HEAD_END.len()).position(|window| window == HEAD_END);
        if let Some(end) = end {
            let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
            let length =
                head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            if buffer.len() >= end + HEAD_END.len() + length.unwrap_or(0) {
                return Ok(Some(()));
            }
        }
    }
}

/// Answers every request with 200, until the program ends.
pub(super) fn serve() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(stream));
        }
    });
    Ok(address)
}

fn answer(mut stream: TcpStream) {
    let mut buffer = Vec::new();
    let _ = stream.set_nodelay(true);
    while let Ok(Some(())) = read_message(&mut stream, &mut buffer) {
        if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").is_err() {
            return;
        }
    }
}
