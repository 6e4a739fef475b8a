"""Port sets of annotations and flags."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from linkerd.core.ports import parse_port_set, parse_port_set_leniently


def test_numbers_ranges_and_names_are_read():
    ports = parse_port_set("25, 4000-4010,http", {"http": 8080})
    assert all(port in ports for port in (25, 4000, 4005, 4010, 8080))
    assert not any(port in ports for port in (24, 3999, 4011))


@pytest.mark.parametrize("text", ["0", "65536", "x", "5-1", "1-", "-1", "٣"])
def test_what_is_no_port_is_refused_or_left_out(text):
    with pytest.raises(ValueError, match="port"):
        parse_port_set(text)
    assert parse_port_set_leniently(f"80,{text}") == (parse_port_set("80"), [text])


@given(st.sets(st.integers(1, 65535), max_size=20))
def test_a_set_that_is_written_reads_back_the_same(ports):
    written = parse_port_set(",".join(map(str, ports)))
    assert parse_port_set(str(written)) == written
    assert all(port in written for port in ports)
