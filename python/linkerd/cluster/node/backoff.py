"""The back-off of things that fail again and again, as kubelet does it (pure)."""

from __future__ import annotations

from dataclasses import dataclass

FIRST_SECONDS = 10.0
LIMIT_SECONDS = 300.0
FORGIVEN_AFTER = 600.0
"""Seconds without a failure after which the next one counts as the first."""


@dataclass
class Backoff:
    """10 s, doubled up to 5 min; a container that ran for 10 min starts over."""

    first: float = FIRST_SECONDS
    delay: float = 0.0

    def next(self, ran_for: float) -> float:
        """Seconds to wait before the next try, after one that lasted `ran_for` seconds.

        The very first restart does not wait: the program may just have been unlucky.
        """
        if ran_for >= FORGIVEN_AFTER:
            self.delay = 0.0
        waiting = self.delay
        self.delay = min(LIMIT_SECONDS, self.delay * 2) if self.delay else self.first
        return waiting


def format_seconds(seconds: float) -> str:
    """As Go prints a duration of whole seconds: `10s`, `1m20s`, `5m0s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
