from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs

import pytest
from linkerd.cluster.streams.containerlogs import LogOptions, parse_log_options
from linkerd.cluster.streams.http1 import HttpError, Request

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def parse(query: str) -> LogOptions:
    return parse_log_options(Request("GET", "/", parse_qs(query, keep_blank_values=True), ()), NOW)


def test_without_options_everything_is_wanted():
    assert parse("") == LogOptions()


def test_all_options():
    assert parse("follow=true&tailLines=5&timestamps=true&previous=true&limitBytes=9&sinceSeconds=60") == LogOptions(
        follow=True, tail=5, since=NOW - timedelta(seconds=60), timestamps=True, previous=True, limit_bytes=9
    )


@pytest.mark.parametrize("text", ["2026-01-01T00:00:00Z", "2026-01-01T01:00:00%2B01:00", "2026-01-01T00:00:00.000Z"])
def test_since_a_moment(text):
    assert parse(f"sinceTime={text}").since == NOW


def test_a_tail_of_all_is_no_limit():
    assert parse("tailLines=all").tail is None
    assert parse("tailLines=0").tail == 0


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("tailLines=-1", 422),
        ("tailLines=x", 400),
        ("limitBytes=0", 422),
        ("limitBytes=99999999999999999999", 422),
        ("sinceTime=now", 400),
        ("sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z", 422),
        ("stream=Stderr", 400),
    ],
)
def test_what_makes_no_sense_is_refused(query, status):
    with pytest.raises(HttpError) as refused:
        parse(query)
    assert refused.value.status == status
