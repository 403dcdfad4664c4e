//! A backend that answers with what it got, byte for byte.
//!
//! It reads HTTP/1.1 by hand: a server library would refuse, join or rewrite just what a test wants to see. HTTP/2,
//! which gRPC and trailers need, is left to a library.

use crate::wire::{latin1, read_chunked, read_head};
use anyhow::{Context, Result};
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use http_body_util::{BodyExt, Full};
use serde::{Deserialize, Serialize};
use std::{net::SocketAddr, sync::Arc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// What a websocket client sends as `sec-websocket-key`: the one of RFC 6455, section 1.3, whose answer is known.
pub const WEBSOCKET_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const WEBSOCKET_ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A request as a backend got it. Bytes of names and values stand for the characters of the same numbers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Seen {
    /// The name of the backend.
    pub by: String,
    /// The method.
    pub method: String,
    /// The path with the query.
    pub path: String,
    /// Lines of headers in order; over HTTP/2, lines of one name stand together.
    pub headers: Vec<(String, String)>,
    /// Lines of trailers.
    pub trailers: Vec<(String, String)>,
}

impl Seen {
    /// All values of that name, in order. Names are compared as a careless backend does: without regard to case, and
    /// with underscores for hyphens, as CGI has it.
    #[must_use]
    pub fn all(&self, name: &str) -> Vec<&str> {
        let alike = |other: &str| other.trim().to_ascii_lowercase().replace('_', "-") == name;
        let lines = self.headers.iter().chain(&self.trailers);
        lines.filter(|(other, _)| alike(other)).map(|(_, value)| value.as_str()).collect()
    }

    /// The value of a header that came in exactly one line.
    ///
    /// # Errors
    /// When it did not.
    pub fn one(&self, name: &str) -> Result<&str> {
        match self.all(name).as_slice() {
            [value] => Ok(value),
            values => {
                anyhow::bail!("{name}: {values:?} in {:?} with trailers {:?}", self.headers, self.trailers)
            }
        }
    }
}

/// A running backend.
pub struct Mirror {
    /// Where it speaks HTTP/1.1, with upgrades to websocket: first a message with what it got, then each one back.
    pub address: SocketAddr,
    /// Where it speaks HTTP/2, and gRPC.
    pub http2: SocketAddr,
    servers: [JoinHandle<()>; 2],
}

impl Mirror {
    /// Starts one.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start(name: &str) -> Result<Self> {
        let name: Arc<str> = name.into();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let of_http1 = name.clone();
        let http1 = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let name = of_http1.clone();
                tokio::spawn(async move {
                    // A client that goes away is no trouble of ours.
                    let _ = serve(stream, &name).await;
                });
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let for_http2 = listener.local_addr()?;
        let http2 = tokio::spawn(async move {
            let router = Router::new().fallback(answer).with_state(name);
            if let Err(error) = axum::serve(listener, router).await {
                eprintln!("a backend of the test broke: {error}");
            }
        });
        Ok(Self { address, http2: for_http2, servers: [http1, http2] })
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.servers.iter().for_each(JoinHandle::abort);
    }
}

async fn serve(stream: TcpStream, name: &str) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    while let Some(head) = read_head(&mut stream).await? {
        let mut parts = head.start.splitn(3, ' ').map(ToOwned::to_owned);
        let mut seen = Seen {
            by: name.to_owned(),
            method: parts.next().unwrap_or_default(),
            path: parts.next().unwrap_or_default(),
            headers: head.headers.clone(),
            trailers: Vec::new(),
        };
        if head.get("upgrade").is_some() {
            let upgrade = format!(
                "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {WEBSOCKET_ACCEPT}\r\n\r\n"
            );
            stream.write_all(upgrade.as_bytes()).await?;
            return echo(stream, &serde_json::to_vec(&seen)?).await;
        }
        if head.get("transfer-encoding").is_some() {
            (_, seen.trailers) = read_chunked(&mut stream).await?;
        } else if let Some(length) = head.get("content-length") {
            let mut body = vec![0; length.trim().parse()?];
            stream.read_exact(&mut body).await?;
        }
        let body = serde_json::to_vec(&seen)?;
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await?;
        if seen.method != "HEAD" {
            stream.write_all(&body).await?;
        }
    }
    Ok(())
}

/// Websocket messages: one that greets, and then each one back until the client closes.
async fn echo(mut stream: BufReader<TcpStream>, greeting: &[u8]) -> Result<()> {
    stream.write_all(&websocket_message(greeting, None)?).await?;
    loop {
        let (opcode, message) = read_websocket_message(&mut stream).await?;
        if opcode != TEXT {
            return Ok(());
        }
        stream.write_all(&websocket_message(&message, None)?).await?;
    }
}

const TEXT: u8 = 1;

/// A text message of a websocket (RFC 6455, section 5.2); a client's are masked.
///
/// # Errors
/// When it is too long for one.
pub fn websocket_message(text: &[u8], mask: Option<[u8; 4]>) -> Result<Vec<u8>> {
    let length = u16::try_from(text.len()).context("a long message")?;
    let mut message = vec![0x80 | TEXT, 126 | if mask.is_some() { 0x80 } else { 0 }];
    message.extend(length.to_be_bytes());
    match mask {
        None => message.extend(text),
        Some(mask) => {
            message.extend(mask);
            message.extend(text.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        }
    }
    Ok(message)
}

/// Reads a message of a websocket: its opcode and its bytes.
///
/// # Errors
/// When the connection ends.
pub async fn read_websocket_message(stream: &mut (impl AsyncReadExt + Unpin)) -> Result<(u8, Vec<u8>)> {
    let mut start = [0; 2];
    stream.read_exact(&mut start).await?;
    let length = match start[1] & 0x7f {
        126 => stream.read_u16().await?,
        short => short.into(),
    };
    let mut mask = [0; 4];
    if start[1] & 0x80 != 0 {
        stream.read_exact(&mut mask).await?;
    }
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await?;
    message.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    Ok((start[0] & 0xf, message))
}

async fn answer(State(name): State<Arc<str>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let is_grpc = parts.headers.get(header::CONTENT_TYPE).is_some_and(|ty| ty == "application/grpc");
    let trailers = body.collect().await.ok().and_then(|body| body.trailers().cloned()).unwrap_or_default();
    let seen = Seen {
        by: name.to_string(),
        method: parts.method.to_string(),
        path: parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        headers: lines(&parts.headers),
        trailers: lines(&trailers),
    };
    let text = serde_json::to_vec(&seen).unwrap_or_default();
    if !is_grpc {
        return text.into_response();
    }
    let length = u32::try_from(text.len()).unwrap_or_default();
    let message = [&[0], &length.to_be_bytes()[..], &text].concat();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::from(message).with_trailers(async { Some(Ok(trailers)) });
    ([(header::CONTENT_TYPE, "application/grpc")], Body::new(body)).into_response()
}

fn lines(headers: &HeaderMap) -> Vec<(String, String)> {
    headers.iter().map(|(name, value)| (name.to_string(), latin1(value.as_bytes()))).collect()
}
