//! Bodies: bytes in, data and trailers out. No I/O.

use super::{
    Framing,
    parse::{self, Refused, find_end, take},
};
use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, StatusCode};

/// What comes next of a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    Data {
        data: Bytes,
        /// Nothing follows.
        last: bool,
    },
    /// Nothing follows.
    Trailers(HeaderMap),
    End,
}

/// Where in a body the reader is.
#[derive(Debug, Default)]
pub(super) enum Decoder {
    #[default]
    Ended,
    Length(u64),
    Chunked(Chunked),
    UntilClose,
}

#[derive(Debug)]
pub(super) struct Chunked {
    place: Place,
    /// How many bytes of chunk extensions may still come.
    extensions_left: usize,
}

#[derive(Copy, Clone, Debug)]
enum Place {
    Size,
    Data(u64),
    DataEnd,
    Trailers { searched: usize },
}

impl Decoder {
    pub(super) const fn new(framing: Framing) -> Self {
        match framing {
            Framing::None | Framing::Length(0) => Self::Ended,
            Framing::Length(n) => Self::Length(n),
            Framing::Chunked => Self::Chunked(Chunked {
                place: Place::Size,
                extensions_left: MAX_EXTENSIONS,
            }),
            Framing::UntilClose => Self::UntilClose,
        }
    }

    /// How much is still to come, when that is known.
    pub(super) const fn left(&self) -> Option<u64> {
        match self {
            Self::Ended => Some(0),
            Self::Length(left) => Some(*left),
            Self::Chunked(_) | Self::UntilClose => None,
        }
    }

    /// Takes what comes next; nothing when more bytes are needed for it.
    pub(super) fn decode(&mut self, unread: &mut BytesMut) -> Result<Option<Event>, Refused> {
        let event = match self {
            Self::Ended => Some(Event::End),
            Self::Length(left) => take_data(unread, *left).map(|data| {
                *left -= data.len() as u64;
                Event::Data {
                    last: *left == 0,
                    data,
                }
            }),
            Self::UntilClose => take_data(unread, u64::MAX).map(|data| Event::Data { data, last: false }),
            Self::Chunked(chunked) => chunked.decode(unread)?,
        };
        if matches!(
            event,
            Some(Event::Data { last: true, .. } | Event::Trailers(_) | Event::End)
        ) {
            *self = Self::Ended;
        }
        Ok(event)
    }

    /// The sender has closed. `false`: in the middle of the body.
    pub(super) fn close(&mut self) -> bool {
        let complete = matches!(self, Self::Ended | Self::UntilClose);
        *self = Self::Ended;
        complete
    }
}

impl Chunked {
    fn decode(&mut self, unread: &mut BytesMut) -> Result<Option<Event>, Refused> {
        loop {
            match &mut self.place {
                Place::Size => {
                    let Some(size) = take_size(unread, &mut self.extensions_left)? else {
                        return Ok(None);
                    };
                    self.place = match size {
                        0 => Place::Trailers { searched: 0 },
                        size => Place::Data(size),
                    };
                }
                Place::Data(left) => {
                    let Some(data) = take_data(unread, *left) else {
                        return Ok(None);
                    };
                    *left -= data.len() as u64;
                    let mut last = false;
                    if *left == 0 {
                        self.place = Place::DataEnd;
                        // Mostly the end has come along: whoever knows that need not wait for it apart.
                        last = take_prefix(unread, b"\r\n0\r\n\r\n");
                    }
                    return Ok(Some(Event::Data { data, last }));
                }
                Place::DataEnd => match unread.get(..2) {
                    Some(b"\r\n") => {
                        unread.advance(2);
                        self.place = Place::Size;
                    }
                    Some(_) => return Err(malformed("chunk longer than its size")),
                    None => return Ok(None),
                },
                Place::Trailers { searched } => {
                    let found = find_end(unread, *searched)?;
                    if found.unwrap_or(unread.len()) > MAX_TRAILER_BYTES {
                        return Err(malformed("trailers too large"));
                    }
                    let Some(end) = found else {
                        *searched = unread.len();
                        return Ok(None);
                    };
                    let section = take(unread, end);
                    let trailers = parse::trailers(&section)?;
                    return Ok(Some(if trailers.is_empty() {
                        Event::End
                    } else {
                        Event::Trailers(trailers)
                    }));
                }
            }
        }
    }
}

fn take_data(unread: &mut BytesMut, at_most: u64) -> Option<Bytes> {
    let len = usize::try_from(at_most).unwrap_or(usize::MAX).min(unread.len());
    (len > 0).then(|| take(unread, len))
}

fn take_prefix(unread: &mut BytesMut, prefix: &[u8]) -> bool {
    let found = unread.starts_with(prefix);
    if found {
        take(unread, prefix.len());
    }
    found
}

/// Reads the line before a chunk. Its extensions are checked, counted and dropped.
fn take_size(unread: &mut BytesMut, extensions_left: &mut usize) -> Result<Option<u64>, Refused> {
    let Some(end) = memchr::memchr(b'\n', unread) else {
        if unread.len() > MAX_SIZE_LINE {
            return Err(malformed("chunk size line too long"));
        }
        return Ok(None);
    };
    let line = unread.get(..end).unwrap_or_default();
    let line = line
        .strip_suffix(b"\r")
        .ok_or(malformed("line ends without CR"))?;
    if line.len() > MAX_SIZE_LINE {
        return Err(malformed("chunk size line too long"));
    }
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let (digits, extensions) = line.split_at(digits);
    let size = hex(digits).ok_or(malformed("invalid chunk size"))?;
    if !is_extensions(extensions) {
        return Err(malformed("invalid chunk extension"));
    }
    *extensions_left = extensions_left
        .checked_sub(extensions.len())
        .ok_or(malformed("too many chunk extensions"))?;
    unread.advance(end + 1);
    Ok(Some(size))
}

fn hex(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    let size = u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    (size <= MAX_CHUNK).then_some(size)
}

fn is_extensions(text: &[u8]) -> bool {
    let printable = |b: &u8| *b == b'\t' || (*b >= b' ' && *b != 0x7f);
    match text.trim_ascii_start() {
        [] => text.is_empty(),
        [b';', ..] => text.iter().all(printable),
        _ => false,
    }
}

const fn malformed(reason: &'static str) -> Refused {
    Refused {
        status: StatusCode::BAD_REQUEST,
        reason,
    }
}

const MAX_SIZE_LINE: usize = 256;
/// For a whole body: extensions on many small chunks cost their reader more than their sender.
const MAX_EXTENSIONS: usize = 16 * 1024;
const MAX_TRAILER_BYTES: usize = 8 * 1024;
const MAX_CHUNK: u64 = i64::MAX as u64;

#[cfg(test)]
mod tests;
