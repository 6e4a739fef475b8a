import json
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st
from linkerd.cluster.streams.http1 import HttpError, Request
from linkerd.cluster.streams.remotecommand import (
    Options,
    SizeParser,
    parse_options,
    status_of_exit,
    status_of_failure,
)


def parse(query: str) -> Options:
    return parse_options(Request("GET", "/", parse_qs(query), ()))


def test_the_streams_that_a_client_wants():
    assert parse("input=1&output=1&error=1") == Options(stdin=True, stdout=True, stderr=True, tty=False)
    assert parse("output=true") == Options(stdin=False, stdout=True, stderr=False, tty=False)


def test_a_terminal_has_no_stderr_of_its_own():
    assert parse("output=1&error=1&tty=1") == Options(stdin=False, stdout=True, stderr=False, tty=True)


@pytest.mark.parametrize("query", ["", "tty=1", "tty=1&error=1", "output=0"])
def test_some_stream_must_be_wanted(query):
    with pytest.raises(HttpError):
        parse(query)


def test_an_exit_code_is_a_cause():
    assert status_of_exit(0) == {"status": "Success"}
    assert status_of_exit(42)["details"] == {"causes": [{"reason": "ExitCode", "message": "42"}]}
    assert status_of_failure("no")["message"] == "Internal error occurred: no"


sizes = st.lists(st.tuples(st.integers(1, 65535), st.integers(1, 65535)), max_size=6)


@given(sizes, st.integers(1, 30), st.sampled_from(["", "\n", " "]))
def test_sizes_come_in_any_pieces(expected, piece, between):
    wire = between.join(json.dumps({"Width": columns, "Height": rows}) for rows, columns in expected).encode()
    parser = SizeParser()
    found = [size for start in range(0, len(wire), piece) for size in parser.feed(wire[start : start + piece])]
    assert found == expected


@given(st.lists(st.binary(max_size=40), max_size=10))
def test_arbitrary_bytes_are_skipped(pieces):
    parser = SizeParser()
    for piece in pieces:
        assert all(0 < rows < 65536 and 0 < columns < 65536 for rows, columns in parser.feed(piece))


def test_what_never_becomes_a_size_is_not_kept():
    parser = SizeParser()
    for _ in range(100):
        parser.feed(b'{"' + b"x" * 1000)
    assert parser.feed(b'{"Width":2,"Height":1}') in ([], [(1, 2)])
    assert len(parser._text) < 5000


def test_impossible_sizes_are_ignored():
    assert SizeParser().feed(b'{"Width":0,"Height":5}{"Width":70000,"Height":5}[1]{"Width":"a"}') == []
