"""Which requests of all pods together are shown: as many a second as asked for, and never more than the reader takes.

Decided at a request's first event, so that a shown request is shown whole. Pure: the time is passed in.
"""

from __future__ import annotations

from dataclasses import dataclass, field

Stream = tuple[int, int]
"""Observer and stream number."""

_OPEN_LIMIT = 20_000
"""Requests remembered at once. Long-lived streams would otherwise add up for as long as the tap runs."""


@dataclass(slots=True)
class Admission:
    """A token bucket that holds one second's worth."""

    max_rps: float
    dropped: int = 0
    """Requests not shown since `take_dropped`."""
    _tokens: float = field(init=False)
    _refilled: float = 0.0
    _open: dict[Stream, None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._tokens = max(1.0, self.max_rps)

    def begins(self, stream: Stream, now: float, *, congested: bool) -> bool:
        """Whether this new request is shown; `now` in seconds of a monotonic clock."""
        self._tokens = min(max(1.0, self.max_rps), self._tokens + (now - self._refilled) * self.max_rps)
        self._refilled = now
        if congested or self._tokens < 1:
            self.dropped += 1
            return False
        self._tokens -= 1
        self._open[stream] = None
        if len(self._open) > _OPEN_LIMIT:
            del self._open[next(iter(self._open))]
        return True

    def continues(self, stream: Stream) -> bool:
        """Whether a later event of the request is shown."""
        return stream in self._open

    def ends(self, stream: Stream) -> bool:
        """As `continues`, for the last event."""
        return self._open.pop(stream, False) is None

    def forget(self, observer: int) -> None:
        """That observer's stream broke: its requests will not be heard of again."""
        for stream in [stream for stream in self._open if stream[0] == observer]:
            del self._open[stream]

    def take_dropped(self) -> int:
        dropped, self.dropped = self.dropped, 0
        return dropped
