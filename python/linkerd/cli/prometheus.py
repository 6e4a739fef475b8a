"""The way to Prometheus itself, for the commands that ask it without the metrics API between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from linkerd.cli.context import Context
from linkerd.cli.errors import UserError
from linkerd.cli.reaching import VIZ_HINT, running_pod, viz_namespace

if TYPE_CHECKING:
    from linkerd.viz.metrics.prometheus import Prometheus
    from linkerd.viz.metrics.samples import Sample

_PORT = 9090
_EXTERNAL = "viz.linkerd.io/external-prometheus"


@asynccontextmanager
async def prometheus(ctx: Context, url: str = "") -> AsyncIterator[Prometheus]:
    """At the URL, else at that of the user's own that viz was installed with, else viz's, through a port-forward."""
    from linkerd.viz.metrics.prometheus import Prometheus

    if url:
        async with Prometheus(url) as opened:
            yield opened
        return
    from linkerd.k8s.portforward import listen
    from linkerd.k8s.resources import NAMESPACES

    async with ctx.client() as client:
        namespace = await viz_namespace(ctx, client)
        metadata = (await client.get(NAMESPACES, namespace))["metadata"]
        external = (metadata.get("annotations") or {}).get(_EXTERNAL)
        if external:
            async with Prometheus(external) as opened:
                yield opened
            return
        pod = await running_pod(client, namespace, "prometheus")
        async with (
            listen(client, namespace, pod, _PORT) as listener,
            Prometheus(f"http://127.0.0.1:{listener.port}") as opened,
        ):
            yield opened


async def ask(ctx: Context, queries: Mapping[str, str], url: str = "") -> dict[str, list[Sample]]:
    """The answers by the queries' names. Raises UserError."""
    from linkerd.viz.metrics.prometheus import PrometheusError

    async with prometheus(ctx, url) as opened:
        try:
            answers = await asyncio.gather(*(opened.query(text) for text in queries.values()))
        except PrometheusError as error:
            raise UserError(f"failed to query Prometheus: {error}", VIZ_HINT) from None
    return dict(zip(queries, answers, strict=True))
