//! The trace that a request belongs to, as its headers say.

use http::{HeaderMap, HeaderName, HeaderValue};

/// A trace and the span in it that sent the request.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Context {
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    pub sampled: bool,
    /// Which headers it came in, and goes on in.
    form: Form,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Form {
    /// W3C, with its flags.
    TraceParent(u8),
    /// B3 in several headers; whether the trace's id had 64 bits only.
    B3 { short: bool },
    /// OpenCensus' binary form, used by gRPC.
    GrpcBinary,
}

impl Context {
    /// W3C's header counts before B3's, because it says more.
    #[must_use]
    pub fn parse(headers: &HeaderMap) -> Option<Self> {
        let text = |name: &HeaderName| headers.get(name)?.to_str().ok();
        if let Some(parent) = text(&TRACEPARENT) {
            return trace_parent(parent);
        }
        if let Some(binary) = text(&GRPC_TRACE_BIN) {
            return grpc_binary(binary);
        }
        let trace = text(&B3_TRACE_ID)?;
        let short = trace.len() == 16;
        let trace_id = if short {
            hex::<16>(&format!("{trace:0>32}"))?
        } else {
            hex(trace)?
        };
        let sampled = text(&B3_SAMPLED).is_some_and(|value| matches!(value, "1" | "true"));
        let debug = text(&B3_FLAGS) == Some("1");
        valid(
            trace_id,
            hex(text(&B3_SPAN_ID)?)?,
            sampled || debug,
            Form::B3 { short },
        )
    }

    /// The trace's id as people read it.
    #[must_use]
    pub fn trace_id_text(&self) -> String {
        to_hex(&self.trace_id)
    }

    /// The context that `span_id` passes on.
    pub(crate) const fn child(self, span_id: [u8; 8]) -> Self {
        Self { span_id, ..self }
    }

    /// Writes the context into the headers that it came in.
    pub fn write(&self, headers: &mut HeaderMap) {
        match self.form {
            Form::TraceParent(flags) => {
                let value = format!(
                    "00-{}-{}-{flags:02x}",
                    to_hex(&self.trace_id),
                    to_hex(&self.span_id)
                );
                set(headers, TRACEPARENT, &value);
            }
            Form::GrpcBinary => {
                let mut binary = [0; GRPC_LENGTH];
                binary[2..18].copy_from_slice(&self.trace_id);
                binary[18] = 1;
                binary[19..27].copy_from_slice(&self.span_id);
                binary[27] = 2;
                binary[28] = u8::from(self.sampled);
                set(headers, GRPC_TRACE_BIN, &base64(&binary));
            }
            Form::B3 { short } => {
                if let Some(parent) = headers.insert(B3_SPAN_ID, value(&to_hex(&self.span_id))) {
                    headers.insert(B3_PARENT_ID, parent);
                }
                let trace = to_hex(&self.trace_id);
                set(headers, B3_TRACE_ID, if short { &trace[16..] } else { &trace });
            }
        }
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    headers.insert(name, value(text));
}

/// All that is written is hexadecimal digits, dashes or base64.
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

/// <https://www.w3.org/TR/trace-context/>: later versions may add to what version 00 has.
fn trace_parent(text: &str) -> Option<Context> {
    let mut parts = text.trim().split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let [version] = hex::<1>(version)?;
    if version == 0xff || (version == 0 && parts.next().is_some()) {
        return None;
    }
    let [flags] = hex::<1>(flags)?;
    valid(hex(trace)?, hex(span)?, flags & 1 == 1, Form::TraceParent(flags))
}

/// Version 0: the fields 0 (trace), 1 (span) and 2 (options) in order, each behind its number.
fn grpc_binary(text: &str) -> Option<Context> {
    let bytes = from_base64(text.trim())?;
    let [0, 0, fields @ ..] = bytes.as_slice() else {
        return None;
    };
    let (trace_id, fields) = fields.split_first_chunk::<16>()?;
    let [1, fields @ ..] = fields else { return None };
    let (span_id, fields) = fields.split_first_chunk::<8>()?;
    let sampled = matches!(fields, [2, options, ..] if options & 1 == 1);
    valid(*trace_id, *span_id, sampled, Form::GrpcBinary)
}

fn valid(trace_id: [u8; 16], span_id: [u8; 8], sampled: bool, form: Form) -> Option<Context> {
    let zero = trace_id == [0; 16] || span_id == [0; 8];
    (!zero).then_some(Context {
        trace_id,
        span_id,
        sampled,
        form,
    })
}

/// Exactly `N` bytes in hexadecimal.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Without padding, as gRPC writes binary metadata.
fn base64(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, b| bits << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for digit in 0..=chunk.len() {
            let index = (bits >> (18 - 6 * digit)) & 0x3f;
            out.push(char::from(BASE64[index as usize]));
        }
    }
    out
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=');
    if text.len() > MAX_BASE64 {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    for chunk in text.as_bytes().chunks(4) {
        let mut bits = 0_u32;
        for digit in chunk {
            let index = BASE64.iter().position(|b| b == digit)?;
            bits = bits << 6 | u32::try_from(index).ok()?;
        }
        bits <<= 6 * (4 - chunk.len());
        let whole = bits.to_be_bytes();
        bytes.extend_from_slice(whole.get(1..chunk.len())?);
    }
    Some(bytes)
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const MAX_BASE64: usize = 128;
const GRPC_LENGTH: usize = 29;
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const GRPC_TRACE_BIN: HeaderName = HeaderName::from_static("grpc-trace-bin");
const B3_TRACE_ID: HeaderName = HeaderName::from_static("x-b3-traceid");
const B3_SPAN_ID: HeaderName = HeaderName::from_static("x-b3-spanid");
const B3_PARENT_ID: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const B3_SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
const B3_FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    fn parsed(fields: &[(&'static str, &str)]) -> Option<(String, String, bool)> {
        let context = Context::parse(&headers(fields))?;
        Some((
            to_hex(&context.trace_id),
            to_hex(&context.span_id),
            context.sampled,
        ))
    }

    fn found(sampled: bool) -> Option<(String, String, bool)> {
        Some((TRACE.into(), SPAN.into(), sampled))
    }

    #[test]
    fn w3c_is_read_and_nonsense_is_not() {
        let parent = |value: &str| parsed(&[("traceparent", value)]);
        assert_eq!(parent(&format!("00-{TRACE}-{SPAN}-01")), found(true));
        assert_eq!(parent(&format!("00-{TRACE}-{SPAN}-00")), found(false));
        assert_eq!(parent(&format!("01-{TRACE}-{SPAN}-01-more")), found(true));
        for bad in [
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{}-{SPAN}-01", "é".repeat(16)),
            format!("00-{}-{SPAN}-01", "g".repeat(32)),
        ] {
            assert_eq!(parent(&bad), None, "{bad}");
        }
    }

    #[test]
    fn w3c_counts_before_b3() {
        let other = "11".repeat(16);
        let both = [
            ("traceparent", &*format!("00-{TRACE}-{SPAN}-01")),
            ("x-b3-traceid", &*other),
            ("x-b3-spanid", SPAN),
        ];
        assert_eq!(parsed(&both), found(true));
    }

    #[test]
    fn b3_may_be_short_and_is_passed_on_with_its_parent() {
        let mut map = headers(&[
            ("x-b3-traceid", &TRACE[16..]),
            ("x-b3-spanid", SPAN),
            ("x-b3-sampled", "1"),
        ]);
        let context = Context::parse(&map).unwrap();
        assert!(context.sampled && context.trace_id[..8] == [0; 8]);
        context.child([9; 8]).write(&mut map);
        assert_eq!(map["x-b3-traceid"], TRACE[16..]);
        assert_eq!(map["x-b3-spanid"], "0909090909090909");
        assert_eq!(map["x-b3-parentspanid"], SPAN);
    }

    #[test]
    fn every_form_is_read_back_as_it_was_written() {
        for form in [Form::TraceParent(1), Form::GrpcBinary] {
            let context = Context {
                trace_id: [7; 16],
                span_id: [8; 8],
                sampled: true,
                form,
            };
            let mut map = HeaderMap::new();
            context.write(&mut map);
            assert_eq!(Context::parse(&map), Some(context));
        }
    }

    proptest! {
        #[test]
        fn no_header_breaks_the_parser(value in "[ -~]{0,80}") {
            for name in ["traceparent", "grpc-trace-bin", "x-b3-traceid"] {
                let map = headers(&[(name, &value), ("x-b3-spanid", SPAN)]);
                let _ = Context::parse(&map);
            }
        }

        #[test]
        fn base64_is_read_back(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            prop_assert_eq!(from_base64(&base64(&bytes)), Some(bytes));
        }
    }
}
