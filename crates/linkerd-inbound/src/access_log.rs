//! One line for each request that came in, written by a thread of its own so that no request waits for a terminal.

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header, request::Parts};
use linkerd_http::{End, Observe};
use linkerd_metrics::Counter;
use linkerd_policy::Id;
use linkerd_stack::Cause;
use linkerd_trace::Context;
use serde_json::json;
use std::{
    fmt::Write as _,
    io::{self, Write},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum AccessLogFormat {
    Apache,
    Json,
}

/// Takes the lines. Clones share the thread that writes them.
#[derive(Clone, Debug)]
pub struct AccessLog {
    messages: mpsc::SyncSender<Message>,
    /// Counts lines that were too many for the writer.
    dropped: Arc<Counter>,
}

enum Message {
    Line(Box<Line>),
    /// Answered when all before it is written.
    Flush(mpsc::SyncSender<()>),
}

/// A request under way; written when it, or its response, has ended.
#[derive(Debug)]
pub(crate) struct Entry {
    log: AccessLog,
    started: Instant,
    request_bytes: Arc<AtomicU64>,
    line: Option<Box<Line>>,
}

/// What is written.
#[derive(Debug)]
struct Line {
    time: SystemTime,
    client: SocketAddr,
    client_id: Option<Id>,
    method: Method,
    uri: Uri,
    version: Version,
    host: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    trace_id: String,
    /// Absent when the stream was reset.
    status: Option<StatusCode>,
    cause: Option<Cause>,
    request_bytes: u64,
    response_bytes: u64,
    processing: Duration,
    total: Duration,
}

/// Counts a request's body.
struct RequestBytes(Arc<AtomicU64>);

impl AccessLog {
    /// Starts the thread that writes to `out`.
    ///
    /// # Errors
    /// When there can be no further thread.
    pub fn start(
        format: AccessLogFormat,
        out: impl Write + Send + 'static,
        dropped: Arc<Counter>,
    ) -> io::Result<Self> {
        let (messages, receiver) = mpsc::sync_channel(QUEUE);
        thread::Builder::new()
            .name("access-log".into())
            .spawn(move || write_all(format, out, &receiver))?;
        Ok(Self { messages, dropped })
    }

    /// Waits until what was logged so far is written, but not for long.
    pub fn flush(&self) {
        let (done, written) = mpsc::sync_channel(1);
        if self.messages.try_send(Message::Flush(done)).is_ok() {
            let _ = written.recv_timeout(FLUSH);
        }
    }

    pub(crate) fn begin(&self, parts: &Parts, client: SocketAddr, client_id: Option<&Id>) -> Entry {
        let header = |name: HeaderName| parts.headers.get(name).cloned();
        let line = Line {
            time: SystemTime::now(),
            client,
            client_id: client_id.cloned(),
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            version: parts.version,
            host: header(header::HOST),
            user_agent: header(header::USER_AGENT),
            trace_id: trace_id(&parts.headers),
            status: None,
            cause: None,
            request_bytes: 0,
            response_bytes: 0,
            processing: Duration::ZERO,
            total: Duration::ZERO,
        };
        Entry {
            log: self.clone(),
            started: Instant::now(),
            request_bytes: Arc::default(),
            line: Some(Box::new(line)),
        }
    }

    fn write(&self, line: Box<Line>) {
        if self.messages.try_send(Message::Line(line)).is_err() {
            self.dropped.incr();
        }
    }
}

impl Entry {
    pub(crate) fn request_body(&self) -> impl Observe + 'static {
        RequestBytes(self.request_bytes.clone())
    }

    /// The response has begun; its end comes through [`Observe`].
    pub(crate) fn response(&mut self, status: StatusCode, cause: Option<Cause>) {
        let processing = self.started.elapsed();
        if let Some(line) = &mut self.line {
            line.status = Some(status);
            line.cause = cause;
            line.processing = processing;
        }
    }

    /// The stream is reset without a response.
    pub(crate) fn failed(mut self, cause: Cause) {
        self.finish(Some(cause));
    }

    fn finish(&mut self, cause: Option<Cause>) {
        let Some(mut line) = self.line.take() else { return };
        line.total = self.started.elapsed();
        line.request_bytes = self.request_bytes.load(Relaxed);
        line.cause = line.cause.or(cause);
        self.log.write(line);
    }
}

impl Observe for Entry {
    fn data(&mut self, bytes: usize) {
        if let Some(line) = &mut self.line {
            line.response_bytes += bytes as u64;
        }
    }

    fn end(&mut self, end: End<'_>) {
        self.finish(match end {
            End::Complete(_) => None,
            End::Failed(error) => Some(error.cause()),
            End::Dropped => Some(Cause::DownstreamClosed),
        });
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.finish(Some(Cause::DownstreamClosed));
    }
}

impl Observe for RequestBytes {
    fn data(&mut self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Relaxed);
    }
}

/// W3C's or B3's trace, else what stands for one elsewhere.
fn trace_id(headers: &HeaderMap) -> String {
    if let Some(context) = Context::parse(headers) {
        return context.trace_id_text();
    }
    OTHER_IDS
        .iter()
        .find_map(|name| headers.get(*name)?.to_str().ok())
        .unwrap_or_default()
        .to_owned()
}

/// Ends when nobody can log any more, or nobody can read it.
fn write_all(format: AccessLogFormat, mut out: impl Write, messages: &mpsc::Receiver<Message>) {
    let mut text = String::new();
    while let Ok(first) = messages.recv() {
        let mut flushed = None;
        for message in std::iter::once(first).chain(messages.try_iter().take(BATCH)) {
            match message {
                Message::Line(line) => line.print(format, &mut text),
                Message::Flush(done) => flushed = Some(done),
            }
        }
        if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
            return;
        }
        text.clear();
        drop(flushed);
    }
}

impl Line {
    fn print(&self, format: AccessLogFormat, out: &mut String) {
        match format {
            AccessLogFormat::Apache => self.print_apache(out),
            AccessLogFormat::Json => self.print_json(out),
        }
        out.push('\n');
    }

    fn timestamp(&self) -> String {
        prost_types::Timestamp::from(self.time).to_string()
    }

    fn client_id(&self) -> &str {
        self.client_id.as_ref().map_or("-", Id::as_str)
    }

    /// `client.addr client.id - [timestamp] "METHOD uri VERSION" status bytes`
    fn print_apache(&self, out: &mut String) {
        let status = self
            .status
            .map_or_else(|| "-".to_owned(), |s| s.as_u16().to_string());
        let _ = write!(
            out,
            "{} {} - [{}] \"",
            self.client,
            self.client_id(),
            self.timestamp()
        );
        for c in format!("{} {} {:?}", self.method, self.uri, self.version).chars() {
            match c {
                '"' | '\\' => out.extend(['\\', c]),
                c if c.is_control() => out.extend(c.escape_default()),
                c => out.push(c),
            }
        }
        let _ = write!(out, "\" {status} {}", self.response_bytes);
    }

    fn print_json(&self, out: &mut String) {
        let text = |value: &Option<HeaderValue>| {
            let bytes = value.as_ref().map(HeaderValue::as_bytes).unwrap_or_default();
            String::from_utf8_lossy(bytes).into_owned()
        };
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let line = json!({
            "client.addr": self.client.to_string(),
            "client.id": self.client_id(),
            "timestamp": self.timestamp(),
            "method": self.method.as_str(),
            "uri": self.uri.to_string(),
            "version": format!("{:?}", self.version),
            "host": text(&self.host),
            "user_agent": text(&self.user_agent),
            "trace_id": self.trace_id,
            "request_bytes": self.request_bytes,
            "status": self.status.map(|s| s.as_u16()),
            "response_bytes": self.response_bytes,
            "total_ns": nanos(self.total),
            "processing_ns": nanos(self.processing),
            "error": self.cause.map(Cause::code),
        });
        let _ = write!(out, "{line}");
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Message")
    }
}

const OTHER_IDS: [&str; 2] = ["x-request-id", "x-amzn-trace-id"];
/// Lines that may wait for the writer.
const QUEUE: usize = 4_096;
const BATCH: usize = 256;
const FLUSH: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;
    use linkerd_http::Body;
    use parking_lot::Mutex;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: AccessLogFormat, request: http::request::Builder) -> String {
        let out = Shared::default();
        let log = AccessLog::start(format, out.clone(), Arc::default()).unwrap();
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let id = Id::dns("client.test").unwrap();
        let mut entry = log.begin(&parts, "10.0.0.1:4321".parse().unwrap(), Some(&id));
        entry.response(StatusCode::FORBIDDEN, Some(Cause::Unauthorized));
        drop(Body::empty().observe(entry));
        log.flush();
        let written = out.0.lock().clone();
        String::from_utf8(written).unwrap()
    }

    #[test]
    fn apache_lines_are_of_one_piece() {
        let line = logged(AccessLogFormat::Apache, Request::builder().uri("/a\"b?c"));
        assert!(line.starts_with("10.0.0.1:4321 client.test - [2"), "{line}");
        assert!(line.ends_with("Z] \"GET /a\\\"b?c HTTP/1.1\" 403 0\n"), "{line}");
    }

    #[test]
    fn json_lines_have_the_trace_and_the_cause() {
        let request = Request::builder()
            .uri("/a")
            .header("host", "web")
            .header("user-agent", "curl \"x\"")
            .header("x-request-id", "other")
            .header(
                "traceparent",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
            );
        let line: serde_json::Value = serde_json::from_str(&logged(AccessLogFormat::Json, request)).unwrap();
        assert_eq!(line["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(
            (&line["host"], &line["user_agent"]),
            (&json!("web"), &json!("curl \"x\""))
        );
        assert_eq!(
            (&line["status"], &line["error"]),
            (&json!(403), &json!("unauthorized"))
        );
        assert!(line["total_ns"].as_u64() >= line["processing_ns"].as_u64());
    }

    /// A terminal that nobody reads.
    struct Stuck(mpsc::Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nobody_waits_for_a_writer_that_is_stuck() {
        let (release, stuck) = mpsc::channel();
        let dropped = Arc::<Counter>::default();
        let log = AccessLog::start(AccessLogFormat::Json, Stuck(stuck), dropped.clone()).unwrap();
        let (parts, ()) = Request::new(()).into_parts();
        for _ in 0..QUEUE + BATCH + 100 {
            drop(log.begin(&parts, "10.0.0.1:4321".parse().unwrap(), None));
        }
        assert!(
            (98..=100 + BATCH as u64).contains(&dropped.value()),
            "{}",
            dropped.value()
        );
        drop(release);
    }
}
