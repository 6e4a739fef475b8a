"""The options of a log request, as the API's PodLogOptions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from linkerd.cluster.streams.http1 import HttpError, Request


@dataclass(frozen=True, slots=True)
class LogOptions:
    """`since` is absolute; `tail` and `limit_bytes` are None for no limit."""

    follow: bool = False
    tail: int | None = None
    since: datetime | None = None
    timestamps: bool = False
    previous: bool = False
    limit_bytes: int | None = None


def parse_log_options(request: Request, now: datetime) -> LogOptions:
    """Raises HttpError."""
    seconds = _number(request, "sinceSeconds", smallest=1)
    if seconds is not None and request.parameter("sinceTime"):
        raise HttpError(422, "at most one of `sinceTime` or `sinceSeconds` may be specified")
    stream = request.parameter("stream")
    if stream not in ("", "All"):
        raise HttpError(400, f'unable to return the given log stream: "{stream}"')
    tail = None if request.parameter("tailLines") == "all" else _number(request, "tailLines", smallest=0)
    return LogOptions(
        follow=request.flag("follow"),
        tail=tail,
        since=_time(request, "sinceTime") if seconds is None else now - timedelta(seconds=seconds),
        timestamps=request.flag("timestamps"),
        previous=request.flag("previous"),
        limit_bytes=_number(request, "limitBytes", smallest=1),
    )


def _number(request: Request, name: str, *, smallest: int) -> int | None:
    text = request.parameter(name)
    if not text:
        return None
    try:
        number = int(text)
    except ValueError:
        raise HttpError(400, f"`{name}` is not a number: {text!r}") from None
    if not smallest <= number < 2**63:
        raise HttpError(422, f"`{name}` must be at least {smallest}")
    return number


def _time(request: Request, name: str) -> datetime | None:
    text = request.parameter(name)
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise HttpError(400, f"`{name}` is not a time of RFC 3339: {text!r}") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
