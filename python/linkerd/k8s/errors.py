"""What the Kubernetes API says when it says no.

Network errors (`aiohttp.ClientError`, `TimeoutError`) pass as they are: they are not an answer.
"""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """An answer with a status of 400 or more."""

    def __init__(self, status: int, reason: str, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.details = details or {}

    @property
    def retry_after(self) -> float | None:
        """Seconds after which the server wants to be asked again, if it said so."""
        seconds = self.details.get("retryAfterSeconds")
        return float(seconds) if seconds is not None else None


class BadRequest(ApiError):
    pass


class Unauthorized(ApiError):
    pass


class Forbidden(ApiError):
    pass


class NotFound(ApiError):
    pass


class Conflict(ApiError):
    """Someone else changed the object, or it is not as a precondition says."""


class AlreadyExists(Conflict):
    pass


class Gone(ApiError):
    """The resource version is too old to go on from; list again."""


class Invalid(ApiError):
    pass


class TooManyRequests(ApiError):
    pass


_BY_STATUS: dict[int, type[ApiError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Invalid,
    429: TooManyRequests,
}


def error_from_status(http_status: int, body: Any, retry_after: str = "") -> ApiError:
    """The exception for a `Status` object (or for any other body of an error answer), and its header `Retry-After`."""
    asked = {"retryAfterSeconds": int(retry_after)} if retry_after.isascii() and retry_after.isdigit() else {}
    if not isinstance(body, dict):
        text = body.strip() if isinstance(body, str) else ""
        kind = _BY_STATUS.get(http_status, ApiError)
        return kind(http_status, "", text or f"HTTP status {http_status}", asked)
    code = int(body.get("code") or http_status)
    reason = str(body.get("reason") or "")
    kind = AlreadyExists if reason == "AlreadyExists" else _BY_STATUS.get(code, ApiError)
    details = asked | (body.get("details") or {})
    return kind(code, reason, _message(body) or reason or f"HTTP status {code}", details)


def _message(body: dict[str, Any]) -> str:
    """Of a `Status`, or of what an aggregated API may answer instead."""
    return str(body.get("message") or body.get("error") or "")
