//! HTTP written by hand: requests that no client library would send.

use anyhow::{Context, Result, bail, ensure};
use std::{net::SocketAddr, pin::pin, time::Duration};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

/// How long an answer may take before a connection counts as broken.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes of the longest head that is read.
const MAX_HEAD: usize = 1 << 20;

/// A name and a value, whatever bytes they are.
pub type Field = (Vec<u8>, Vec<u8>);

/// What is sent. Nothing is checked and nothing is added but what frames the body.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// The method.
    pub method: Vec<u8>,
    /// The path.
    pub path: Vec<u8>,
    /// The host.
    pub authority: Vec<u8>,
    /// Lines of headers, in order.
    pub headers: Vec<Field>,
    /// The body; with trailers it is sent in a chunk.
    pub body: Vec<u8>,
    /// Lines of trailers.
    pub trailers: Vec<Field>,
}

impl Message {
    /// A `GET` of a path with headers.
    #[must_use]
    pub fn get(path: &str, headers: &[(&str, &[u8])]) -> Self {
        Self {
            method: b"GET".to_vec(),
            path: path.into(),
            authority: b"models.test".to_vec(),
            headers: fields(headers),
            ..Self::default()
        }
    }

    /// A `POST` with a body, and trailers after it.
    #[must_use]
    pub fn post(path: &str, headers: &[(&str, &[u8])], trailers: &[(&str, &[u8])]) -> Self {
        Self {
            method: b"POST".to_vec(),
            body: b"body".to_vec(),
            trailers: fields(trailers),
            ..Self::get(path, headers)
        }
    }
}

/// Lines of headers from pairs.
#[must_use]
pub fn fields(pairs: &[(&str, &[u8])]) -> Vec<Field> {
    pairs.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec())).collect()
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A response, with its body.
    Response(u16, Vec<u8>),
    /// The stream or the connection was ended without one.
    Ended,
}

impl Answer {
    /// The status; 0 when there is none.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Response(status, _) => *status,
            Self::Ended => 0,
        }
    }

    /// What a [`Mirror`](crate::Mirror) got.
    ///
    /// # Errors
    /// When the request did not get there.
    pub fn seen(&self) -> Result<crate::Seen> {
        match self {
            Self::Response(200, body) => {
                // A gRPC message has its length before it.
                let text = if body.starts_with(b"{") { body } else { body.get(5..).unwrap_or_default() };
                Ok(serde_json::from_slice(text)?)
            }
            other => bail!("no answer of a backend: {}", other.status()),
        }
    }
}

/// A client with a connection that is opened anew when it was ended.
pub enum Client {
    /// Of HTTP/1.1.
    Http1(SocketAddr, Option<BufReader<TcpStream>>),
    /// Of HTTP/2.
    Http2(SocketAddr, Option<Http2>),
}

impl Client {
    /// One of HTTP/1.1 and one of HTTP/2.
    #[must_use]
    pub fn both(address: SocketAddr) -> [Self; 2] {
        [Self::Http1(address, None), Self::Http2(address, None)]
    }

    /// Sends a message and waits for what comes back.
    ///
    /// # Errors
    /// When it cannot connect, or nothing comes back.
    pub async fn send(&mut self, message: &Message) -> Result<Answer> {
        tokio::time::timeout(PATIENCE, async {
            match self {
                Self::Http1(address, connection) => {
                    let mut stream = match connection.take() {
                        Some(stream) => stream,
                        None => BufReader::new(connect(*address).await?),
                    };
                    let answer = send_http1(&mut stream, message).await;
                    let Ok((answer, stays)) = answer else { return Ok(Answer::Ended) };
                    *connection = stays.then_some(stream);
                    Ok(answer)
                }
                Self::Http2(address, connection) => {
                    let mut http2 = match connection.take() {
                        Some(http2) => http2,
                        None => Http2::connect(*address).await?,
                    };
                    let (answer, stays) = http2.send(message).await;
                    *connection = stays.then_some(http2);
                    Ok(answer)
                }
            }
        })
        .await
        .context("nothing came back")?
    }
}

async fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Each byte as the character of the same number.
#[must_use]
pub fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

/// The bytes that [`latin1`] made a text of.
#[must_use]
pub fn bytes(latin1: &str) -> Vec<u8> {
    latin1.chars().map(|char| u8::try_from(u32::from(char)).unwrap_or(b'?')).collect()
}

/// The first line and the headers of an HTTP/1.1 message.
pub(crate) struct Head {
    pub(crate) start: String,
    pub(crate) headers: Vec<(String, String)>,
}

impl Head {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let mut named = self.headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        named.next().map(|(_, value)| value.as_str())
    }
}

/// Reads up to the empty line; `None` when the connection ends before.
pub(crate) async fn read_head(stream: &mut (impl AsyncBufRead + Unpin)) -> Result<Option<Head>> {
    let Some(start) = read_line(stream).await? else { return Ok(None) };
    Ok(Some(Head { start: latin1(&start), headers: read_fields(stream).await? }))
}

async fn read_fields(stream: &mut (impl AsyncBufRead + Unpin)) -> Result<Vec<(String, String)>> {
    let mut fields = Vec::new();
    let mut size = 0;
    loop {
        let line = read_line(stream).await?.context("it ends within the headers")?;
        if line.is_empty() {
            return Ok(fields);
        }
        size += line.len();
        ensure!(size < MAX_HEAD, "the headers do not end");
        let colon = line.iter().position(|&byte| byte == b':').unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default();
        // The blank that Envoy writes; whatever else is there belongs to the value.
        let value = value.strip_prefix(b" ").unwrap_or(value);
        fields.push((latin1(&line[..colon]), latin1(value)));
    }
}

async fn read_line(stream: &mut (impl AsyncBufRead + Unpin)) -> Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    stream.read_until(b'\n', &mut line).await?;
    match line.strip_suffix(b"\n") {
        Some(text) => Ok(Some(text.strip_suffix(b"\r").unwrap_or(text).to_vec())),
        None => Ok(None),
    }
}

/// A body in chunks, and its trailers.
pub(crate) async fn read_chunked(
    stream: &mut (impl AsyncBufRead + Unpin),
) -> Result<(Vec<u8>, Vec<(String, String)>)> {
    let mut body = Vec::new();
    loop {
        let line = read_line(stream).await?.context("it ends within the chunks")?;
        let size = latin1(&line);
        let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16)?;
        if size == 0 {
            return Ok((body, read_fields(stream).await?));
        }
        let start = body.len();
        body.resize(start + size, 0);
        stream.read_exact(&mut body[start..]).await?;
        read_line(stream).await?;
    }
}

/// The bytes of an HTTP/1.1 request.
#[must_use]
pub fn http1(message: &Message) -> Vec<u8> {
    let mut bytes =
        [&message.method[..], b" ", &message.path, b" HTTP/1.1\r\nhost: ", &message.authority, b"\r\n"]
            .concat();
    let line = |bytes: &mut Vec<u8>, (name, value): &Field| {
        bytes.extend([name, &b": "[..], value, b"\r\n"].concat());
    };
    message.headers.iter().for_each(|field| line(&mut bytes, field));
    if !message.trailers.is_empty() {
        let size = format!("{:x}", message.body.len());
        bytes.extend([b"transfer-encoding: chunked\r\n\r\n", size.as_bytes(), b"\r\n"].concat());
        bytes.extend([&message.body[..], b"\r\n0\r\n"].concat());
        message.trailers.iter().for_each(|field| line(&mut bytes, field));
    } else if !message.body.is_empty() {
        bytes.extend(format!("content-length: {}\r\n\r\n", message.body.len()).as_bytes());
        bytes.extend(&message.body);
        return bytes;
    }
    bytes.extend(b"\r\n");
    bytes
}

/// The answer, and whether the connection stays.
async fn send_http1(stream: &mut BufReader<TcpStream>, message: &Message) -> Result<(Answer, bool)> {
    // Who is refused halfway gets the answer while it still writes, and nobody reads the rest.
    let (mut read, mut write) = tokio::io::split(stream);
    let bytes = http1(message);
    let writing = async {
        let _ = write.write_all(&bytes).await;
    };
    let reading = async {
        let mut read = BufReader::new(&mut read);
        loop {
            let head = read_head(&mut read).await?.context("no answer")?;
            let status = head.start.split(' ').nth(1).context("no status")?.parse::<u16>()?;
            if (100..200).contains(&status) && status != 101 {
                continue;
            }
            let mut body = Vec::new();
            let mut stays = !head.get("connection").is_some_and(|value| value.contains("close"));
            if message.method == b"HEAD" || matches!(status, 101 | 204 | 304) {
            } else if head.get("transfer-encoding").is_some() {
                (body, _) = read_chunked(&mut read).await?;
            } else if let Some(length) = head.get("content-length") {
                body.resize(length.parse()?, 0);
                read.read_exact(&mut body).await?;
            } else {
                stays = false;
                read.read_to_end(&mut body).await?;
            }
            return Ok((Answer::Response(status, body), stays));
        }
    };
    let (mut reading, mut writing) = (pin!(reading), pin!(writing));
    tokio::select! {
        () = &mut writing => reading.await,
        answer = &mut reading => Ok((answer?.0, false)),
    }
}

/// A connection of HTTP/2, with one stream at a time.
pub struct Http2 {
    stream: BufReader<TcpStream>,
    next_stream: u32,
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;

/// Bytes of the largest frame that everybody takes.
const FRAME: usize = 16_384;
/// Room for all that will ever come.
const WINDOW: u32 = 1 << 30;

impl Http2 {
    async fn connect(address: SocketAddr) -> Result<Self> {
        let mut stream = BufReader::new(connect(address).await?);
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
        // No table (1): then the status stands in full in every answer. No pushes (2). A large window (4).
        let setting = |id: u16, value: u32| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
        let settings = [setting(1, 0), setting(2, 0), setting(4, WINDOW)].concat();
        stream.write_all(&frame(SETTINGS, 0, 0, &settings)).await?;
        stream.write_all(&frame(WINDOW_UPDATE, 0, 0, &WINDOW.to_be_bytes())).await?;
        Ok(Self { stream, next_stream: 1 })
    }

    async fn send(&mut self, message: &Message) -> (Answer, bool) {
        let id = self.next_stream;
        self.next_stream += 2;
        let pseudo: [(&[u8], &[u8]); 4] = [
            (b":method", &message.method),
            (b":scheme", b"http"),
            (b":authority", &message.authority),
            (b":path", &message.path),
        ];
        let mut block = Vec::new();
        pseudo.iter().for_each(|(name, value)| literal(&mut block, name, value));
        message.headers.iter().for_each(|(name, value)| literal(&mut block, name, value));
        let mut ends = message.body.is_empty() && message.trailers.is_empty();
        let mut bytes = headers(id, &block, ends);
        if !message.body.is_empty() {
            ends = message.trailers.is_empty();
            bytes.extend(frame(DATA, if ends { END_STREAM } else { 0 }, id, &message.body));
        }
        if !ends {
            let mut block = Vec::new();
            message.trailers.iter().for_each(|(name, value)| literal(&mut block, name, value));
            bytes.extend(headers(id, &block, true));
        }
        // Who is refused halfway has the answer, or the end, to read.
        let _ = self.stream.write_all(&bytes).await;
        match self.read(id).await {
            Ok((answer, stays)) => (answer, stays),
            Err(_) => (Answer::Ended, false),
        }
    }

    /// The answer on a stream, and whether the connection stays.
    async fn read(&mut self, id: u32) -> Result<(Answer, bool)> {
        let mut found = None;
        let mut body = Vec::new();
        let mut stays = true;
        loop {
            let (kind, flags, stream, payload) = read_frame(&mut self.stream).await?;
            match kind {
                SETTINGS if flags & ACK == 0 => self.stream.write_all(&frame(SETTINGS, ACK, 0, &[])).await?,
                PING if flags & ACK == 0 => self.stream.write_all(&frame(PING, ACK, 0, &payload)).await?,
                // An error of the whole connection, which Envoy keeps for a second more.
                GOAWAY if payload.get(4..8).is_some_and(|error| error != [0; 4]) => {
                    return Ok((Answer::Ended, false));
                }
                GOAWAY => stays = false,
                RST_STREAM if stream == id && found.is_none() => return Ok((Answer::Ended, stays)),
                // An answer that came before the request was read: the rest of the request is not wanted.
                RST_STREAM if stream == id => {
                    return Ok((Answer::Response(found.unwrap_or_default(), body), stays));
                }
                HEADERS if stream == id && found.is_none() => {
                    let skipped =
                        usize::from(flags & PADDED != 0) + if flags & PRIORITY != 0 { 5 } else { 0 };
                    let status = status(payload.get(skipped..).unwrap_or_default())?;
                    found = (status >= 200).then_some(status);
                }
                DATA if stream == id => body.extend(&payload),
                _ => {}
            }
            if matches!(kind, HEADERS | DATA) && stream == id && flags & END_STREAM != 0 {
                return Ok((Answer::Response(found.context("no status")?, body), stays));
            }
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Headers or trailers in as many frames as they need.
fn headers(stream: u32, block: &[u8], ends_stream: bool) -> Vec<u8> {
    let pieces: Vec<&[u8]> = block.chunks(FRAME).collect();
    let pieces = if pieces.is_empty() { vec![block] } else { pieces };
    let last = pieces.len() - 1;
    let mut bytes = Vec::new();
    for (index, piece) in pieces.into_iter().enumerate() {
        let kind = if index == 0 { HEADERS } else { CONTINUATION };
        let ends = if index == 0 && ends_stream { END_STREAM } else { 0 };
        bytes.extend(frame(kind, ends | if index == last { END_HEADERS } else { 0 }, stream, piece));
    }
    bytes
}

/// A header in HPACK: neither indexed nor compressed, so that the bytes are the caller's.
fn literal(block: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    block.push(0);
    for text in [name, value] {
        length(block, text.len());
        block.extend(text);
    }
}

/// HPACK's integers, with seven bits in the first byte.
fn length(block: &mut Vec<u8>, length: usize) {
    let byte = |value: usize| u8::try_from(value).unwrap_or(0);
    if length < 127 {
        return block.push(byte(length));
    }
    block.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        block.push(byte(rest % 128 + 128));
        rest /= 128;
    }
    block.push(byte(rest));
}

async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> Result<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
    let mut payload = vec![0; usize::try_from(length)?];
    stream.read_exact(&mut payload).await?;
    Ok((head[3], head[4], id, payload))
}

/// The status, which is the first header of an answer: by its number in HPACK's table, or in full.
fn status(block: &[u8]) -> Result<u16> {
    const KNOWN: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    // The peer may say first that it uses no table either.
    let block = match block {
        [size, rest @ ..] if size >> 5 == 1 => rest,
        all => all,
    };
    match block {
        [indexed, ..] if (0x88..=0x8e).contains(indexed) => Ok(KNOWN[usize::from(indexed - 0x88)]),
        [_, length, digits @ ..] => {
            let size = usize::from(length & 0x7f);
            let digits = digits.get(..size).context("a status that is cut off")?;
            let text = if length & 0x80 == 0 { latin1(digits) } else { huffman_digits(digits) };
            text.parse().with_context(|| format!("the status {text:?}"))
        }
        _ => bail!("no status"),
    }
}

/// Digits in HPACK's Huffman code (RFC 7541, appendix B): 0 to 2 have five bits, 3 to 9 six.
fn huffman_digits(bytes: &[u8]) -> String {
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let number = |bits: &[u8]| bits.iter().fold(0u8, |number, bit| number * 2 + bit);
    let mut digits = String::new();
    let mut rest = &bits[..];
    while rest.len() >= 5 {
        let short = number(&rest[..5]);
        if short <= 2 {
            digits.push(char::from(b'0' + short));
            rest = &rest[5..];
        } else if let Some(long) = rest.get(..6).map(number).filter(|code| (0x19..=0x1f).contains(code)) {
            digits.push(char::from(b'3' + (long - 0x19)));
            rest = &rest[6..];
        } else {
            break;
        }
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_in_all_its_forms() {
        for (block, expected) in [
            (&[0x88][..], 200),
            (&[0x20, 0x8d], 404),
            (&[0x08, 3, b'4', b'0', b'3'], 403),
            // 503 and 431 in Huffman's code.
            (&[0x48, 0x83, 0b0110_1100, 0b0000_1100, 0b1111_1111], 503),
            (&[0x08, 0x83, 0b0110_1001, 0b1001_0000, 0b1111_1111], 431),
        ] {
            assert_eq!(status(block).unwrap(), expected, "{block:x?}");
        }
        assert!(status(&[]).is_err());
    }
}
