//! HTTP and HTTP/2 by hand, for what no decent client sends.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::Duration,
};

use super::process::PATIENCE;

/// The answer to bytes sent as they are: all that came back until the server closed the connection.
pub(crate) struct RawAnswer(pub(crate) Vec<u8>);

impl RawAnswer {
    /// The status of the first answer, if the bytes are an HTTP/1 answer at all.
    pub(crate) fn status(&self) -> Option<u16> {
        let text = String::from_utf8_lossy(&self.0);
        text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|status| status.parse().ok())
    }

    /// The value of a header of the first answer.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let text = self.text();
        let head = text.split("\r\n\r\n").next().unwrap_or_default();
        head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }

    /// The JSON body of the first answer.
    pub(crate) fn json(&self) -> serde_json::Value {
        let text = self.text();
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
        // The body may be chunked; it is one object either way.
        let (start, end) = (body.find('{').unwrap_or(0), body.rfind('}').map_or(0, |end| end + 1));
        serde_json::from_str(body.get(start..end).unwrap_or_default()).unwrap_or_default()
    }
}

/// A listener of the pair.
#[derive(Clone, Debug)]
pub(crate) enum Listener {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Sends `bytes`, and reads until the connection is closed, `done` with what came, or silent for a while.
pub(crate) fn exchange(listener: &Listener, bytes: &[u8], done: impl Fn(&[u8]) -> bool) -> RawAnswer {
    const SILENCE: Option<Duration> = Some(Duration::from_secs(8));
    match listener {
        Listener::Tcp(address) => {
            let stream = TcpStream::connect_timeout(address, PATIENCE).expect("the listener takes connections");
            stream.set_read_timeout(SILENCE).expect("a socket has a timeout");
            talk(stream, bytes, done)
        }
        Listener::Unix(path) => {
            let stream = UnixStream::connect(path).expect("the listener takes connections");
            stream.set_read_timeout(SILENCE).expect("a socket has a timeout");
            talk(stream, bytes, done)
        }
    }
}

fn talk(mut stream: impl Read + Write, bytes: &[u8], done: impl Fn(&[u8]) -> bool) -> RawAnswer {
    // A server may well close before it has read everything.
    let _ = stream.write_all(bytes).and_then(|()| stream.flush());
    let mut answer = Vec::new();
    let mut buffer = [0; 16 * 1024];
    while !done(&answer) {
        match stream.read(&mut buffer) {
            Ok(length) if length > 0 => answer.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            _ => break,
        }
    }
    RawAnswer(answer)
}

/// Whether these bytes are a whole HTTP/1 answer, as far as its own headers say. A server may keep the connection for a while.
fn is_whole(bytes: &[u8], has_body: bool) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let head = head.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")).and_then(|length| length.trim().parse::<usize>().ok());
    !has_body
        || length
            .map_or_else(|| head.contains("\ntransfer-encoding: chunked") && body.ends_with("0\r\n\r\n"), |length| body.len() >= length)
}

/// One HTTP/1.1 request, after which the server closes the connection. `headers` are whole lines.
pub(crate) fn request(address: SocketAddr, method: &str, target: &str, headers: &[&str], body: &[u8]) -> RawAnswer {
    let mut bytes = format!("{method} {target} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n").into_bytes();
    for header in headers {
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    exchange(&Listener::Tcp(address), &bytes, |answer| is_whole(answer, method != "HEAD"))
}

/// The status that a GET gets, or none when nobody answers.
pub(crate) fn status_of(address: SocketAddr, target: &str) -> Option<u16> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let bytes = format!("GET {target} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    talk(stream, bytes.as_bytes(), |answer| is_whole(answer, true)).status()
}

/// HTTP/2 frames (RFC 9113).
pub(crate) mod h2 {
    /// What a client sends first, with empty settings.
    pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
    pub(crate) const DATA: u8 = 0x0;
    pub(crate) const HEADERS: u8 = 0x1;
    pub(crate) const RST_STREAM: u8 = 0x3;
    pub(crate) const SETTINGS: u8 = 0x4;
    pub(crate) const PING: u8 = 0x6;
    pub(crate) const GOAWAY: u8 = 0x7;
    pub(crate) const CONTINUATION: u8 = 0x9;
    pub(crate) const END_STREAM: u8 = 0x1;
    pub(crate) const END_HEADERS: u8 = 0x4;

    #[derive(Debug)]
    pub(crate) struct Frame {
        pub(crate) kind: u8,
        pub(crate) flags: u8,
        pub(crate) stream: u32,
        pub(crate) payload: Vec<u8>,
    }

    pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("a frame is small").to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], kind, flags];
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(payload);
        bytes
    }

    /// A header block: every field a literal that is not indexed, not compressed.
    pub(crate) fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
        let mut block = Vec::new();
        for (name, value) in fields {
            block.push(0);
            for text in [name, value] {
                length(&mut block, text.len());
                block.extend_from_slice(text.as_bytes());
            }
        }
        block
    }

    /// An HPACK integer with a prefix of seven bits (RFC 7541 section 5.1).
    fn length(block: &mut Vec<u8>, mut length: usize) {
        if length < 127 {
            block.push(u8::try_from(length).expect("below 127"));
            return;
        }
        block.push(127);
        length -= 127;
        while length >= 128 {
            block.push(u8::try_from(length % 128).expect("below 128") | 0x80);
            length /= 128;
        }
        block.push(u8::try_from(length).expect("below 128"));
    }

    /// The whole frames in what a server has sent.
    pub(crate) fn frames(mut bytes: &[u8]) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some((head, rest)) = bytes.split_at_checked(9) {
            let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let Some((payload, rest)) = rest.split_at_checked(length) else { break };
            let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
            frames.push(Frame { kind: head[3], flags: head[4], stream, payload: payload.to_vec() });
            bytes = rest;
        }
        frames
    }

    /// A setting in the first SETTINGS frame of a server.
    pub(crate) fn setting(frames: &[Frame], id: u16) -> Option<u32> {
        let settings = frames.iter().find(|frame| frame.kind == SETTINGS && frame.flags == 0)?;
        settings
            .payload
            .chunks_exact(6)
            .find(|entry| entry[..2] == id.to_be_bytes())
            .map(|entry| u32::from_be_bytes([entry[2], entry[3], entry[4], entry[5]]))
    }
}
