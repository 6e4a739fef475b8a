//! A server that keeps what it is sent and reads it more strictly than any other would.
//!
//! Whatever only a lenient server could read is an offence of the proxy before it: two servers might read it
//! differently.

use parking_lot::Mutex;
use std::{net::SocketAddr, sync::Arc};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

pub(crate) struct Recorder {
    pub(crate) addr: SocketAddr,
    log: Arc<Mutex<Log>>,
    _tasks: JoinSet<()>,
}

#[derive(Default, Debug)]
pub(crate) struct Log {
    /// `METHOD target host body`, in the order in which they were complete.
    pub(crate) messages: Vec<String>,
    /// What followed an upgrade.
    pub(crate) tunnelled: Vec<u8>,
    pub(crate) offences: Vec<String>,
}

impl Recorder {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let log = Arc::<Mutex<Log>>::default();
        let (mut tasks, shared) = (JoinSet::new(), log.clone());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((io, _)) = listener.accept().await {
                connections.spawn(serve(io, shared.clone()));
            }
        });
        Self {
            addr,
            log,
            _tasks: tasks,
        }
    }

    /// What came since the last time.
    pub(crate) fn take(&self) -> Log {
        std::mem::take(&mut self.log.lock())
    }
}

async fn serve(mut io: TcpStream, log: Arc<Mutex<Log>>) {
    let mut bytes = Vec::new();
    loop {
        match read(&bytes) {
            Read::Message { message, len } => {
                bytes.drain(..len);
                log.lock().messages.push(message.shown());
                if io.write_all(answer(&message)).await.is_err() {
                    return;
                }
                if message.switches() {
                    return tunnel(io, bytes, &log).await;
                }
            }
            Read::Incomplete => {
                if !matches!(io.read_buf(&mut bytes).await, Ok(1..)) {
                    return;
                }
                if bytes.starts_with(b"\r\n") {
                    log.lock()
                        .offences
                        .push("a message that begins with an empty line".into());
                    return;
                }
            }
            Read::Offence(why) => {
                let shown = String::from_utf8_lossy(&bytes).into_owned();
                log.lock().offences.push(format!("{why}: {shown:?}"));
                return;
            }
        }
    }
}

async fn tunnel(mut io: TcpStream, first: Vec<u8>, log: &Mutex<Log>) {
    log.lock().tunnelled.extend(first);
    let mut bytes = Vec::new();
    while matches!(io.read_buf(&mut bytes).await, Ok(1..)) {
        log.lock().tunnelled.append(&mut bytes);
    }
}

fn answer(message: &Message) -> &'static [u8] {
    match message {
        _ if message.target == "/switch" => {
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: test\r\n\r\n"
        }
        _ if message.switches() => b"HTTP/1.1 200 OK\r\n\r\n",
        _ if message.method == "HEAD" => b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n",
        _ => b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    }
}

struct Message {
    method: String,
    target: String,
    host: String,
    body: Vec<u8>,
}

impl Message {
    fn switches(&self) -> bool {
        self.target == "/switch" || self.method == "CONNECT"
    }

    fn shown(&self) -> String {
        let body = String::from_utf8_lossy(&self.body);
        format!("{} {} {} {body}", self.method, self.target, self.host)
            .trim_end()
            .to_owned()
    }
}

enum Read {
    Message { message: Message, len: usize },
    Incomplete,
    Offence(&'static str),
}

/// One message of the grammar of RFC 9112, without anything that is optional in it.
fn read(bytes: &[u8]) -> Read {
    let Some(head_len) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
        return Read::Incomplete;
    };
    let head = &bytes[..head_len];
    let lines = split(head, b"\r\n");
    if lines
        .iter()
        .any(|line| line.iter().any(|b| matches!(b, 0 | b'\r' | b'\n')))
    {
        return Read::Offence("a control character in the head");
    }
    let Ok([method, target, b"HTTP/1.1" | b"HTTP/1.0"]) = <[&[u8]; 3]>::try_from(split(lines[0], b" "))
    else {
        return Read::Offence("no request line");
    };
    let mut headers = Vec::new();
    for line in &lines[1..] {
        let Some(colon) = line.iter().position(|b| *b == b':') else {
            return Read::Offence("a header without a colon");
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.is_empty() || !name.iter().all(|b| is_token(*b)) {
            return Read::Offence("a header's name");
        }
        headers.push((name.to_ascii_lowercase(), value));
    }
    let all = |name: &[u8]| -> Vec<&[u8]> {
        let named = headers.iter().filter(|(n, _)| n == name);
        named.map(|(_, value)| *value).collect()
    };
    let hosts = all(b"host");
    if hosts.len() > 1 {
        return Read::Offence("more than one host");
    }
    let host = hosts.first().copied().unwrap_or_default();
    let target = match target.strip_prefix(b"http://") {
        None => target,
        Some(rest) => match rest.strip_prefix(host) {
            Some(path) if path.starts_with(b"/") => path,
            _ => return Read::Offence("a target of another host"),
        },
    };
    if !all(b"proxy-connection").is_empty() {
        return Read::Offence("a message that no proxy has processed");
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let rest = &bytes[head_len + 4..];
    let body = match (
        all(b"content-length").as_slice(),
        all(b"transfer-encoding").as_slice(),
    ) {
        ([], []) => Ok(Some((Vec::new(), 0))),
        ([len], []) => content(rest, len),
        ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") => chunks(rest),
        _ => Err("ambiguous framing"),
    };
    match body {
        Err(why) => Read::Offence(why),
        Ok(None) => Read::Incomplete,
        Ok(Some((body, len))) => Read::Message {
            message: Message {
                method: text(method),
                target: text(target),
                host: text(host),
                body,
            },
            len: head_len + 4 + len,
        },
    }
}

/// A body and how many bytes it took.
type Body = Result<Option<(Vec<u8>, usize)>, &'static str>;

fn content(rest: &[u8], len: &[u8]) -> Body {
    if len.is_empty() || !len.iter().all(u8::is_ascii_digit) {
        return Err("a content-length of other than digits");
    }
    let len = std::str::from_utf8(len).unwrap().parse::<usize>();
    let len = len.map_err(|_| "a content-length that overflows")?;
    Ok(rest.get(..len).map(|body| (body.to_vec(), len)))
}

fn chunks(rest: &[u8]) -> Body {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let Some(line) = rest[at..].windows(2).position(|w| w == b"\r\n") else {
            return Ok(None);
        };
        let digits = &rest[at..at + line];
        if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err("a chunk's size");
        }
        let size = usize::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
        at += line + 2;
        if size == 0 {
            return trailers(rest, at).map(|end| end.map(|end| (body, end)));
        }
        let Some(data) = rest.get(at..at + size + 2) else {
            return Ok(None);
        };
        if !data.ends_with(b"\r\n") {
            return Err("a chunk without its end");
        }
        body.extend(&data[..size]);
        at += size + 2;
    }
}

fn trailers(rest: &[u8], mut at: usize) -> Result<Option<usize>, &'static str> {
    loop {
        let Some(line) = rest[at..].windows(2).position(|w| w == b"\r\n") else {
            return Ok(None);
        };
        let field = &rest[at..at + line];
        at += line + 2;
        if field.is_empty() {
            return Ok(Some(at));
        }
        let name = field.split(|b| *b == b':').next().unwrap_or_default();
        if name.len() == field.len() || !name.iter().all(|b| is_token(*b)) {
            return Err("a trailer");
        }
        for framing in [&b"content-length"[..], b"transfer-encoding", b"host"] {
            if name.eq_ignore_ascii_case(framing) {
                return Err("a trailer that frames");
            }
        }
    }
}

fn split<'a>(bytes: &'a [u8], at: &[u8]) -> Vec<&'a [u8]> {
    let (mut parts, mut rest) = (Vec::new(), bytes);
    while let Some(end) = rest.windows(at.len()).position(|w| w == at) {
        parts.push(&rest[..end]);
        rest = &rest[end + at.len()..];
    }
    parts.push(rest);
    parts
}

fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

#[test]
fn what_is_ambiguous_is_an_offence() {
    let post = |headers: &str, body: &str| format!("POST / HTTP/1.1\r\nhost: a\r\n{headers}\r\n{body}");
    for bytes in [
        post("content-length: 1\r\ncontent-length: 1\r\n", "a"),
        post("content-length: +1\r\n", "a"),
        post("content-length: 1\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n"),
        post("transfer-encoding: gzip, chunked\r\n", "0\r\n\r\n"),
        post("transfer-encoding: chunked\r\n", "1;a=b\r\na\r\n0\r\n\r\n"),
        post("transfer-encoding: chunked\r\n", "1\r\nab0\r\n\r\n"),
        post("x : y\r\n", ""),
        post("x: a\r\n folded\r\n", ""),
        post("x: a\ny: b\r\n", ""),
        post("host: b\r\n", ""),
        "GET http://b/ HTTP/1.1\r\nhost: a\r\n\r\n".into(),
    ] {
        assert!(matches!(read(bytes.as_bytes()), Read::Offence(_)), "{bytes:?}");
    }
    let plain = post("transfer-encoding: chunked\r\n", "1\r\na\r\n0\r\nx: y\r\n\r\n");
    let Read::Message { message, len } = read(plain.as_bytes()) else {
        panic!("a plain message is none")
    };
    assert_eq!((message.shown().as_str(), len), ("POST / a a", plain.len()));
}
