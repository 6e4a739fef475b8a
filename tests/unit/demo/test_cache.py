import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from linkerd_demo.cache import ProtocolError, answer, read_command


def _read(data: bytes):
    async def read():
        reader = asyncio.StreamReader(limit=64 * 1024)
        reader.feed_data(data)
        reader.feed_eof()
        return await read_command(reader)

    return asyncio.run(read())


def test_command_as_array_and_inline():
    assert _read(b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n") == [b"GET", b"a"]
    assert _read(b"PING\r\n") == [b"PING"]
    assert _read(b"") == []


def test_set_then_get():
    entries: dict[bytes, bytes] = {}
    assert answer(entries, [b"get", b"a"]) == b"$-1\r\n"
    assert answer(entries, [b"SET", b"a", b"xyz"]) == b"+OK\r\n"
    assert answer(entries, [b"GET", b"a"]) == b"$3\r\nxyz\r\n"
    assert answer(entries, [b"NOPE"]).startswith(b"-ERR unknown command")


@pytest.mark.parametrize("data", [b"*99\r\n", b"*x\r\n", b"*1\r\n+a\r\n", b"*1\r\n$999999\r\n", b"x" * 70_000])
def test_what_is_too_large_or_no_resp_is_refused(data):
    with pytest.raises(ProtocolError):
        _read(data)


@given(st.binary(max_size=200))
def test_any_bytes_end_in_a_command_or_a_named_error(data):
    try:
        assert isinstance(_read(data), list)
    except (ProtocolError, asyncio.IncompleteReadError):
        pass
