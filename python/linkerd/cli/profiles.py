"""What the commands that make ServiceProfiles share: names that may be used, and how a profile is printed."""

from __future__ import annotations

import re
import sys
from typing import Any

from linkerd.cli.context import Context
from linkerd.cli.errors import UserError

_SERVICE = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def check_names(service: str, namespace: str) -> None:
    """Raises UserError for what Kubernetes would not take."""
    if not _SERVICE.fullmatch(service):
        raise UserError(f'invalid service "{service}": a service is lower-case letters, digits and `-`, a letter first')
    if not _NAMESPACE.fullmatch(namespace):
        raise UserError(f'invalid namespace "{namespace}": lower-case letters, digits and `-`')


async def cluster_domain(ctx: Context) -> str:
    """As the control plane was installed with it. Raises UserError."""
    from linkerd.checks.cluster import Cluster
    from linkerd.checks.model import CheckFailure

    async with ctx.client() as client:
        try:
            values = await Cluster(client, ctx.linkerd_namespace).values()
        except CheckFailure as error:
            hint = "give `--ignore-cluster` if this is for a cluster that cannot be asked"
            raise UserError(f"cannot find the cluster's domain: {error}", hint) from None
    return str(values.get("clusterDomain") or "cluster.local")


def print_profile(profile: dict[str, Any], output: str) -> None:
    """YAML with sorted keys, or one compact line of JSON."""
    if output == "json":
        import orjson

        sys.stdout.write(orjson.dumps(profile, option=orjson.OPT_APPEND_NEWLINE).decode())
        return
    from linkerd.cli.output.documents import yaml_text

    sys.stdout.write(yaml_text(profile, sort_keys=True))
