"""SPDY/3.1 on the wire: bytes in, frames out, and back. No I/O and no notion of a stream's life.

Kubernetes clients before WebSockets multiplex exec, attach and port-forward over this protocol, always with
moby/spdystream at one end. That peer knows no flow control: it sends without a window and drops WINDOW_UPDATE, so the
frame exists here and nobody acts on it. The format is that of
https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/ (sections in the comments are of that page).

Every error is fatal to the connection: the header blocks share one compression state, so that after a frame that
could not be read none that follows can be trusted.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

Headers = tuple[tuple[str, str], ...]
"""Lower-case names with their values; a name with several values is there several times, side by side."""

MAX_CONTROL_PAYLOAD = 64 * 1024  # bytes on the wire; Kubernetes' own SYN_STREAMs have less than 200
MAX_HEADER_BLOCK = 64 * 1024  # bytes after decompression
MAX_HEADERS = 100
MAX_FRAME_PAYLOAD = 2**24 - 1

_VERSION = 3
_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _HEADERS, _WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 8, 9
_FIN = 0x01
_UNIDIRECTIONAL = 0x02
_CLEAR_SETTINGS = 0x01
_ID_MASK = 0x7FFFFFFF

# Reasons of RST_STREAM (2.6.3) and GOAWAY (2.6.6).
PROTOCOL_ERROR = 1
REFUSED_STREAM = 3
CANCEL = 5
GOAWAY_OK = 0
GOAWAY_PROTOCOL_ERROR = 1


class SpdyError(ValueError):
    """The peer's bytes are not SPDY/3.1 or exceed a limit; the connection cannot go on."""


@dataclass(frozen=True, slots=True)
class SynStream:
    """A new stream."""

    stream_id: int
    headers: Headers = ()
    fin: bool = False
    unidirectional: bool = False
    associated_id: int = 0
    priority: int = 0
    slot: int = 0


@dataclass(frozen=True, slots=True)
class SynReply:
    """The other side has accepted a stream."""

    stream_id: int
    headers: Headers = ()
    fin: bool = False


@dataclass(frozen=True, slots=True)
class RstStream:
    """A stream's abnormal end."""

    stream_id: int
    status: int


@dataclass(frozen=True, slots=True)
class Setting:
    """One entry of SETTINGS."""

    id: int
    value: int
    flags: int = 0


@dataclass(frozen=True, slots=True)
class Settings:
    """What the peer says about itself; Kubernetes peers send none."""

    settings: tuple[Setting, ...] = ()
    clear: bool = False


@dataclass(frozen=True, slots=True)
class Ping:
    """A sign of life; the side whose parity the id does not have answers with the same."""

    id: int


@dataclass(frozen=True, slots=True)
class GoAway:
    """No stream after the last one named is accepted any more."""

    last_stream_id: int
    status: int = GOAWAY_OK


@dataclass(frozen=True, slots=True)
class MoreHeaders:
    """HEADERS: further headers of an open stream."""

    stream_id: int
    headers: Headers = ()
    fin: bool = False


@dataclass(frozen=True, slots=True)
class WindowUpdate:
    """The peer's credit for a stream, ignored (see above)."""

    stream_id: int
    delta: int


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes of a stream. The decoder hands out a long frame piece by piece, `fin` on the last one."""

    stream_id: int
    data: bytes
    fin: bool = False


Frame = SynStream | SynReply | RstStream | Settings | Ping | GoAway | MoreHeaders | WindowUpdate | Data


class Encoder:
    """Frames to bytes. Frames must go out in the order of encoding: they share the compression state."""

    def __init__(self) -> None:
        self._compressor = zlib.compressobj(level=9, zdict=DICTIONARY)

    def encode(self, frame: Frame) -> bytes:
        match frame:
            case Data():
                return _data_frame(frame)
            case SynStream():
                flags = (_FIN if frame.fin else 0) | (_UNIDIRECTIONAL if frame.unidirectional else 0)
                fixed = struct.pack("!IIBB", frame.stream_id, frame.associated_id, frame.priority << 5, frame.slot)
                return _control_frame(_SYN_STREAM, flags, fixed + self._header_block(frame.headers))
            case SynReply():
                return self._reply(_SYN_REPLY, frame)
            case MoreHeaders():
                return self._reply(_HEADERS, frame)
            case RstStream():
                return _control_frame(_RST_STREAM, 0, struct.pack("!II", frame.stream_id, frame.status))
            case Settings():
                return _settings_frame(frame)
            case Ping():
                return _control_frame(_PING, 0, struct.pack("!I", frame.id))
            case GoAway():
                return _control_frame(_GOAWAY, 0, struct.pack("!II", frame.last_stream_id, frame.status))
            case WindowUpdate():
                return _control_frame(_WINDOW_UPDATE, 0, struct.pack("!II", frame.stream_id, frame.delta))

    def _reply(self, kind: int, frame: SynReply | MoreHeaders) -> bytes:
        payload = struct.pack("!I", frame.stream_id) + self._header_block(frame.headers)
        return _control_frame(kind, _FIN if frame.fin else 0, payload)

    def _header_block(self, headers: Headers) -> bytes:
        grouped: dict[str, list[str]] = {}
        for name, value in headers:
            grouped.setdefault(name.lower(), []).append(value)
        parts = [struct.pack("!I", len(grouped))]
        for name, values in grouped.items():
            parts += (_counted(name), _counted("\0".join(values)))
        return self._compressor.compress(b"".join(parts)) + self._compressor.flush(zlib.Z_SYNC_FLUSH)


class Decoder:
    """Bytes to frames. `feed` takes any split of the bytes; after a SpdyError it must not be called again."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._decompressor = zlib.decompressobj(zdict=DICTIONARY)
        self._data_stream = 0  # the stream of the data frame that is being read
        self._data_left = 0
        self._data_fin = False

    def feed(self, data: bytes) -> list[Frame]:
        """The frames complete with these bytes; raises SpdyError."""
        self._buffer += data
        frames: list[Frame] = []
        while (frame := self._next()) is not None:
            frames.append(frame)
        return frames

    def _next(self) -> Frame | None:
        if self._data_left:
            return self._data_piece() if self._buffer else None
        if len(self._buffer) < 8:
            return None
        word, second = struct.unpack_from("!II", self._buffer)
        flags, length = second >> 24, second & 0xFFFFFF
        if word & 0x80000000:
            return self._control(word, flags, length)
        return self._data(word, flags, length)

    def _data(self, stream_id: int, flags: int, length: int) -> Frame | None:
        if stream_id == 0:
            raise SpdyError("a data frame of stream 0")
        if length and len(self._buffer) == 8:
            return None
        del self._buffer[:8]
        self._data_stream, self._data_left, self._data_fin = stream_id, length, bool(flags & _FIN)
        return self._data_piece()

    def _data_piece(self) -> Data:
        piece = bytes(self._buffer[: self._data_left])
        del self._buffer[: len(piece)]
        self._data_left -= len(piece)
        return Data(self._data_stream, piece, fin=self._data_fin and not self._data_left)

    def _control(self, word: int, flags: int, length: int) -> Frame | None:
        version, kind = (word >> 16) & 0x7FFF, word & 0xFFFF
        if version != _VERSION:
            raise SpdyError(f"SPDY version {version}, expected {_VERSION}")
        if length > MAX_CONTROL_PAYLOAD:
            raise SpdyError(f"a control frame of {length} bytes, more than {MAX_CONTROL_PAYLOAD}")
        if len(self._buffer) < 8 + length:
            return None
        payload = bytes(self._buffer[8 : 8 + length])
        del self._buffer[: 8 + length]
        return self._parse(kind, flags, payload)

    def _parse(self, kind: int, flags: int, payload: bytes) -> Frame:
        match kind:
            case 1:
                return self._syn_stream(flags, payload)
            case 2:
                stream_id, headers = self._id_and_headers(payload)
                return SynReply(stream_id, headers, fin=bool(flags & _FIN))
            case 8:
                stream_id, headers = self._id_and_headers(payload)
                return MoreHeaders(stream_id, headers, fin=bool(flags & _FIN))
            case 3:
                stream_id, status = _unpack("!II", payload, "RST_STREAM")
                return RstStream(_stream_id(stream_id), status)
            case 4:
                return _settings(flags, payload)
            case 6:
                return Ping(*_unpack("!I", payload, "PING"))
            case 7:
                last, status = _unpack("!II", payload, "GOAWAY")
                return GoAway(last & _ID_MASK, status)
            case 9:
                stream_id, delta = _unpack("!II", payload, "WINDOW_UPDATE")
                return WindowUpdate(stream_id & _ID_MASK, delta & _ID_MASK)
            case _:
                raise SpdyError(f"an unknown control frame of type {kind}")

    def _syn_stream(self, flags: int, payload: bytes) -> SynStream:
        stream_id, associated, priority, slot = _unpack("!IIBB", payload[:10], "SYN_STREAM")
        return SynStream(
            _stream_id(stream_id),
            self._headers(payload[10:]),
            fin=bool(flags & _FIN),
            unidirectional=bool(flags & _UNIDIRECTIONAL),
            associated_id=associated & _ID_MASK,
            priority=priority >> 5,
            slot=slot,
        )

    def _id_and_headers(self, payload: bytes) -> tuple[int, Headers]:
        (stream_id,) = _unpack("!I", payload[:4], "frame with headers")
        return _stream_id(stream_id), self._headers(payload[4:])

    def _headers(self, compressed: bytes) -> Headers:
        try:
            block = self._decompressor.decompress(compressed, MAX_HEADER_BLOCK + 1)
        except zlib.error as error:
            raise SpdyError(f"a header block that cannot be decompressed: {error}") from error
        if len(block) > MAX_HEADER_BLOCK:
            raise SpdyError(f"a header block of more than {MAX_HEADER_BLOCK} bytes")
        return _parse_header_block(block)


def _parse_header_block(block: bytes) -> Headers:
    reader = _Reader(block)
    count = reader.number()
    if count > MAX_HEADERS:
        raise SpdyError(f"{count} headers, more than {MAX_HEADERS}")
    headers: list[tuple[str, str]] = []
    names: set[str] = set()
    for _ in range(count):
        name = reader.text()
        if not name or name != name.lower():
            raise SpdyError(f"the header name {name!r} is empty or not in lower case")
        if name in names:
            raise SpdyError(f"the header {name!r} is there twice")
        names.add(name)
        headers += ((name, value) for value in reader.text().split("\0"))
    return tuple(headers)


class _Reader:
    """Counted strings out of a header block (2.6.10)."""

    def __init__(self, block: bytes) -> None:
        self._block = block
        self._position = 0

    def number(self) -> int:
        return int.from_bytes(self._take(4))

    def text(self) -> str:
        raw = self._take(self.number())
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise SpdyError("a header that is not UTF-8") from error

    def _take(self, length: int) -> bytes:
        end = self._position + length
        if end > len(self._block):
            raise SpdyError("a header block that ends too early")
        taken = self._block[self._position : end]
        self._position = end
        return taken


def _stream_id(number: int) -> int:
    number &= _ID_MASK
    if number == 0:
        raise SpdyError("a frame of stream 0")
    return number


def _unpack(layout: str, payload: bytes, what: str) -> tuple[int, ...]:
    if len(payload) != struct.calcsize(layout):
        raise SpdyError(f"a {what} of {len(payload)} bytes")
    return struct.unpack(layout, payload)


def _settings(flags: int, payload: bytes) -> Settings:
    if len(payload) < 4 or len(payload) != 4 + 8 * int.from_bytes(payload[:4]):
        raise SpdyError(f"a SETTINGS of {len(payload)} bytes")
    found = tuple(
        Setting(word & 0xFFFFFF, value, flags=word >> 24) for word, value in struct.iter_unpack("!II", payload[4:])
    )
    return Settings(found, clear=bool(flags & _CLEAR_SETTINGS))


def _settings_frame(frame: Settings) -> bytes:
    entries = b"".join(struct.pack("!II", entry.flags << 24 | entry.id, entry.value) for entry in frame.settings)
    payload = struct.pack("!I", len(frame.settings)) + entries
    return _control_frame(_SETTINGS, _CLEAR_SETTINGS if frame.clear else 0, payload)


def _control_frame(kind: int, flags: int, payload: bytes) -> bytes:
    return struct.pack("!HHI", 0x8000 | _VERSION, kind, flags << 24 | len(payload)) + payload


def _data_frame(frame: Data) -> bytes:
    if len(frame.data) > MAX_FRAME_PAYLOAD:
        raise ValueError(f"{len(frame.data)} bytes do not fit into one data frame")
    return struct.pack("!II", frame.stream_id, (_FIN if frame.fin else 0) << 24 | len(frame.data)) + frame.data


def _counted(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("!I", len(raw)) + raw


_WORDS = (
    "options|head|post|put|delete|trace|accept|accept-charset|accept-encoding|accept-language|accept-ranges|age|allow|"
    "authorization|cache-control|connection|content-base|content-encoding|content-language|content-length|"
    "content-location|content-md5|content-range|content-type|date|etag|expect|expires|from|host|if-match|"
    "if-modified-since|if-none-match|if-range|if-unmodified-since|last-modified|location|max-forwards|pragma|"
    "proxy-authenticate|proxy-authorization|range|referer|retry-after|server|te|trailer|transfer-encoding|upgrade|"
    "user-agent|vary|via|warning|www-authenticate|method|get|status|200 OK|version|HTTP/1.1|url|public|set-cookie|"
    "keep-alive|origin"
)

_TEXT = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized"
    "403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,"
    "text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)

DICTIONARY = b"".join(map(_counted, _WORDS.split("|"))) + _TEXT.encode()
"""What both compressors start with (2.6.10.1); its Adler-32, which zlib's header carries, is 0xE3C6A7C2."""
