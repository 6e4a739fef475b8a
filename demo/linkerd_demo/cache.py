"""The cache of the shop: plain TCP, the part of the Redis protocol (RESP) that GET, SET and PING need."""

from __future__ import annotations

import asyncio
import logging
import signal

from linkerd_demo.topology import CACHE_PORT

log = logging.getLogger(__name__)

_LINE_LIMIT = 64 * 1024
_MAX_ENTRIES = 10_000
_MAX_ARGUMENTS = 16
_TIMEOUT_SECONDS = 2


class ProtocolError(Exception):
    """The peer does not speak RESP."""


async def serve_cache(host: str | None = None, port: int = CACHE_PORT) -> None:
    """Serves until SIGTERM."""
    entries: dict[bytes, bytes] = {}
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    server = await asyncio.start_server(lambda r, w: _serve(entries, r, w), host, port, limit=_LINE_LIMIT)
    log.info("cache listens on %d", port)
    async with server:
        await ended.wait()
        server.close()


async def _serve(entries: dict[bytes, bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while command := await read_command(reader):
            writer.write(answer(entries, command))
            await writer.drain()
    except ProtocolError as error:
        writer.write(f"-ERR {error}\r\n".encode())
    except (ConnectionError, asyncio.IncompleteReadError):
        pass  # the client went away; there is nobody left to tell
    finally:
        writer.close()


async def read_command(reader: asyncio.StreamReader) -> list[bytes]:
    """The words of one command; empty at the end of the stream. Raises ProtocolError, IncompleteReadError."""
    head = await _line(reader)
    if not head:
        return []
    if not head.startswith(b"*"):
        return head.split()
    count = _number(head[1:], _MAX_ARGUMENTS)
    return [await _bulk(reader) for _ in range(count)]


async def _bulk(reader: asyncio.StreamReader) -> bytes:
    head = await _line(reader)
    if not head.startswith(b"$"):
        raise ProtocolError("a bulk string was expected")
    size = _number(head[1:], _LINE_LIMIT)
    return (await reader.readexactly(size + 2))[:-2]


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        return (await reader.readline()).strip()
    except ValueError as error:
        raise ProtocolError("line too long") from error


def _number(text: bytes, limit: int) -> int:
    if not text.isdigit() or int(text) > limit:
        raise ProtocolError(f"a number up to {limit} was expected")
    return int(text)


def answer(entries: dict[bytes, bytes], command: list[bytes]) -> bytes:
    match [command[0].upper(), *command[1:]]:
        case [b"GET", key]:
            value = entries.get(key)
            return b"$-1\r\n" if value is None else b"$%d\r\n%s\r\n" % (len(value), value)
        case [b"SET", key, value]:
            if len(entries) >= _MAX_ENTRIES:
                entries.clear()
            entries[key] = value
            return b"+OK\r\n"
        case [b"PING"]:
            return b"+PONG\r\n"
        case [name, *_]:
            return b"-ERR unknown command '%s'\r\n" % name[:64]
    return b"-ERR empty command\r\n"


class CacheClient:
    """One connection, kept open and opened again when it breaks."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._lock = asyncio.Lock()

    async def get(self, key: str) -> str | None:
        """Raises OSError, TimeoutError."""
        head, value = await self._ask("GET", key)
        return None if head == b"$-1" else value.decode()

    async def set(self, key: str, value: str) -> None:
        """Raises OSError, TimeoutError."""
        await self._ask("SET", key, value)

    async def _ask(self, *words: str) -> tuple[bytes, bytes]:
        async with self._lock, asyncio.timeout(_TIMEOUT_SECONDS):
            try:
                reader, writer = await self._connected()
                writer.write(b"*%d\r\n" % len(words) + b"".join(_bulk_bytes(word) for word in words))
                await writer.drain()
                head = (await reader.readuntil(b"\r\n"))[:-2]
                if head.startswith(b"$") and head != b"$-1":
                    return head, (await reader.readexactly(int(head[1:]) + 2))[:-2]
                return head, b""
            except asyncio.IncompleteReadError as error:
                self._drop()
                raise ConnectionResetError("the cache closed the connection") from error
            except BaseException:
                # Half an answer may be left in the stream.
                self._drop()
                raise

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None or self._streams[0].at_eof():
            self._drop()
            self._streams = await asyncio.open_connection(*self._address)
        return self._streams

    def _drop(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def _bulk_bytes(word: str) -> bytes:
    raw = word.encode()
    return b"$%d\r\n%s\r\n" % (len(raw), raw)
