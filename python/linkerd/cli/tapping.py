"""What the commands that tap share: their flags, the request made of them, and the stream of events."""

from __future__ import annotations

import asyncio
import math
import re
import struct
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from linkerd.cli.completing import NAMESPACE, RESOURCE
from linkerd.cli.context import Context
from linkerd.cli.errors import UserError
from linkerd.cli.flags import DURATION, namespace_option
from linkerd.cli.reaching import VIZ_HINT, targets
from linkerd.core import kinds
from linkerd.core.kinds import Target

if TYPE_CHECKING:
    from aiohttp import StreamReader

    from linkerd.proto import viz_pb2, viz_tap_pb2

_STATUS = re.compile(r"(\d{3})(?:-(\d{3}))?|([1-5])xx", re.IGNORECASE)
_LENGTH = struct.Struct("<I")
_LARGEST_FRAME = 16 * 1024 * 1024
_ERROR_HEADER = "linkerd-error"

_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    namespace_option(),
    click.option("--to", default="", metavar="RESOURCE", type=RESOURCE, help="Only requests to this resource."),
    click.option(
        "--to-namespace", default="", metavar="NAMESPACE", type=NAMESPACE, help="Where the resource of --to is."
    ),
    click.option(
        "--from", "source", default="", metavar="RESOURCE", type=RESOURCE, help="Only requests from this resource."
    ),
    click.option(
        "--from-namespace", default="", metavar="NAMESPACE", type=NAMESPACE, help="Where the resource of --from is."
    ),
    click.option("--method", default="", help="Only requests with this HTTP method."),
    click.option("--path", default="", metavar="REGEX", help="Only paths that begin with a match of this."),
    click.option("--authority", default="", help="Only requests with this :authority."),
    click.option("--scheme", default="", help="Only requests with this scheme."),
    click.option("--status", default="", metavar="LIST", help="Only these statuses: `5xx`, `404`, `500-503`."),
    click.option("--min-latency", type=DURATION, default=0.0, metavar="DURATION", help="Only requests this slow."),
    click.option("--header", multiple=True, metavar="NAME[=VALUE]", help="Only requests with this header."),
    click.option("-l", "--selector", default="", metavar="LABELS", help="Only pods with these labels."),
    click.option("--max-rps", type=float, default=100.0, help="Show at most so many requests a second (100)."),
    click.option("--duration", type=DURATION, default=0.0, metavar="DURATION", help="End after this time."),
)


def tap_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The flags that choose requests."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def tap_request(ctx: Context, options: dict[str, Any]) -> viz_tap_pb2.TapByResourceRequest:
    """Raises UserError for flags that do not fit."""
    namespace = ctx.namespace(options["namespace"])
    request = _request(_target(options["resource"], namespace), options["max_rps"], options["selector"])
    _match_to(request, options, namespace)
    _match_http(request, options)
    if options["source"] or options["from_namespace"]:
        request.sources.CopyFrom(_selection(_other(options["source"], options["from_namespace"], namespace)))
    _fill_filter(request.filter, options)
    return request


def plain_tap_request(resource: str, namespace: str, max_rps: float) -> viz_tap_pb2.TapByResourceRequest:
    """Everything that the resource does. Raises UserError."""
    return _request(_target((resource,), namespace), max_rps)


def _request(target: Target, max_rps: float, labels: str = "") -> viz_tap_pb2.TapByResourceRequest:
    from linkerd.proto import viz_tap_pb2 as tap

    request = tap.TapByResourceRequest(maxRps=max_rps, notes=True)
    request.target.CopyFrom(_selection(target, labels))
    request.match.all.SetInParent()
    request.extract.SetInParent()
    return request


def _target(resource: tuple[str, ...], namespace: str) -> Target:
    found = targets(resource, namespace)
    if len(found) != 1:
        raise UserError("tap one resource at a time")
    if found[0].kind not in kinds.TAP_KINDS:
        raise UserError(f"unsupported resource type [{found[0].kind}]", "tap pods, workloads or a namespace")
    return found[0]


def _other(text: str, other_namespace: str, namespace: str) -> Target:
    """Of --to and --from; in the tapped namespace unless another is given."""
    if not text:
        return Target(kinds.NAMESPACE, other_namespace)
    found = targets([text], other_namespace or namespace)[0]
    if found.kind not in (*kinds.TAP_KINDS, kinds.SERVICE):
        raise UserError(f"unsupported resource type [{found.kind}]")
    return found


def _selection(target: Target, labels: str = "") -> viz_pb2.ResourceSelection:
    from linkerd.proto import viz_pb2

    resource = viz_pb2.Resource(namespace=target.namespace, type=target.kind.name, name=target.name)
    return viz_pb2.ResourceSelection(resource=resource, label_selector=labels)


def _match_to(request: viz_tap_pb2.TapByResourceRequest, options: dict[str, Any], namespace: str) -> None:
    if options["to"] or options["to_namespace"]:
        other = _other(options["to"], options["to_namespace"], namespace)
        request.match.all.matches.add().destinations.CopyFrom(_selection(other))


def _match_http(request: viz_tap_pb2.TapByResourceRequest, options: dict[str, Any]) -> None:
    for name in ("scheme", "method", "authority"):
        if options[name]:
            setattr(request.match.all.matches.add().http, name, options[name])


def _fill_filter(wanted: Any, options: dict[str, Any]) -> None:
    wanted.path_regex = options["path"]
    for low, high in parse_statuses(options["status"]):
        wanted.statuses.add(min=low, max=high)
    if options["min_latency"]:
        wanted.min_latency.FromNanoseconds(round(options["min_latency"] * 1e9))
    for header in options["header"]:
        name, has_value, value = header.partition("=")
        match = wanted.headers.add(name=name.strip().lower())
        if has_value:
            match.exact = value
        else:
            match.regex = ".*"


def parse_statuses(text: str) -> list[tuple[int, int]]:
    """`5xx,404,500-503` as ranges. Raises UserError."""
    ranges = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = _STATUS.fullmatch(part)
        if match is None:
            raise UserError(f"`{part}` is not a status", "statuses look like `404`, `5xx` or `500-503`")
        if match[3]:
            ranges.append((int(match[3]) * 100, int(match[3]) * 100 + 99))
        else:
            ranges.append((int(match[1]), int(match[2] or match[1])))
    return ranges


def tap_path(request: viz_tap_pb2.TapByResourceRequest) -> str:
    """The URL that the request is posted to."""
    resource = request.target.resource
    root = "/apis/tap.linkerd.io/v1alpha1/watch/namespaces"
    if resource.type == kinds.NAMESPACE.name:
        return f"{root}/{resource.name}/tap"
    return f"{root}/{resource.namespace}/{kinds.parse_kind(resource.type).plural}/{resource.name}/tap"


def say_on_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


async def tap_events(
    ctx: Context,
    request: viz_tap_pb2.TapByResourceRequest,
    *,
    seconds: float = 0.0,
    say: Callable[[str], None] = say_on_stderr,
) -> AsyncIterator[viz_tap_pb2.TapEvent]:
    """The events until the server, or the given time, ends the stream. Notes and losses are for `say`.

    Raises UserError when the tap is refused.
    """
    from aiohttp import ClientTimeout

    losses = Losses(request.maxRps, say)
    deadline = asyncio.get_running_loop().time() + seconds if seconds else None
    options = {
        "body": request.SerializeToString(),
        "content_type": "application/octet-stream",
        "headers": {"Accept": "application/octet-stream"},
        "timeout": ClientTimeout(total=None, sock_connect=10),
    }
    with _explained():
        async with ctx.client() as client, client.stream("POST", tap_path(request), **options) as response:
            if _ERROR_HEADER in response.headers:
                raise await _refusal(response)
            refusal = ""
            try:
                async for event in _events(response.content, deadline):
                    losses.add(event.dropped)
                    refusal = event.note
                    if event.note:
                        say(event.note)
                    elif event.WhichOneof("event"):
                        yield event
                if refusal and response.content.at_eof():
                    raise UserError("the proxies did not take the tap", "`--path` is a regular expression: is it one?")
            finally:
                losses.tell(last=True)
                response.close()  # there is no end to wait for


@contextmanager
def _explained() -> Iterator[None]:
    """Words for a tap API that is not there or says no."""
    from aiohttp import ClientPayloadError

    from linkerd.k8s.errors import ApiError, Forbidden, NotFound

    try:
        yield
    except ClientPayloadError as error:
        raise UserError("the tap stream broke off", "is the tap pod running? see `linkerd viz check`") from error
    except Forbidden as error:
        hint = "the right is `watch` on tap.linkerd.io; ClusterRole linkerd-linkerd-viz-tap-admin has it"
        raise UserError(str(error), hint) from None
    except ApiError as error:
        if isinstance(error, NotFound) or error.status == 503:
            raise UserError(f"the tap API is not available: {error}", VIZ_HINT) from None
        raise UserError(f"HTTP error, status Code [{error.status}] ({error})") from None


async def _refusal(response: Any) -> UserError:
    from linkerd.proto import viz_pb2

    body = await response.content.readexactly(_LENGTH.unpack(await response.content.readexactly(_LENGTH.size))[0])
    text = viz_pb2.ApiError.FromString(body).error.strip()
    return UserError(text, "is the name right, and is the workload meshed? (`linkerd viz stat`, `linkerd viz list`)")


async def _events(content: StreamReader, deadline: float | None) -> AsyncIterator[viz_tap_pb2.TapEvent]:
    from linkerd.proto import viz_tap_pb2 as tap

    try:
        while True:
            async with asyncio.timeout_at(deadline):
                size = _LENGTH.unpack(await content.readexactly(_LENGTH.size))[0]
                if size > _LARGEST_FRAME:
                    raise UserError(f"the tap API sent a frame of {size} bytes: this is not its protocol")
                body = await content.readexactly(size)
            yield tap.TapEvent.FromString(body)
    except TimeoutError:
        return
    except asyncio.IncompleteReadError as end:
        if end.partial:
            raise UserError("the tap stream broke off in the middle of an event") from end


@dataclass
class Losses:
    """Counts the requests that were not shown, and says so now and then."""

    max_rps: float
    say: Callable[[str], None]
    count: int = 0
    told_at: float = -math.inf

    def add(self, dropped: int) -> None:
        self.count += dropped
        if self.count and time.monotonic() - self.told_at >= 1:
            self.tell()

    def tell(self, *, last: bool = False) -> None:
        if not self.count:
            return
        hint = "" if last else f"; raise --max-rps (now {self.max_rps:g}) or narrow the filter"
        self.say(f"{self.count} requests were not shown: too many at once{hint}")
        self.count, self.told_at = 0, time.monotonic()
