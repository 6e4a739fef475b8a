"""`linkerd viz allow-scrapes`: policies that let Prometheus read the proxies of a namespace."""

from __future__ import annotations

from typing import Any

import click

from linkerd.cli.context import Context, pass_context
from linkerd.cli.errors import UserError
from linkerd.cli.flags import namespace_option

Object = dict[str, Any]

_GROUP = "policy.linkerd.io"


@click.command(short_help="Print policies that let Prometheus scrape a namespace")
@namespace_option("The namespace whose proxies may be scraped. Required.")
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml", help="Format.")
@pass_context
def command(ctx: Context, namespace: str, output: str) -> None:
    """Print policies with which Prometheus can read the proxies' metrics where everything is denied by default.

    \b
    linkerd viz allow-scrapes -n production | kubectl apply --dry-run=server -f -
    """
    if not namespace:
        raise UserError('required flag(s) "namespace" not set', "as in `linkerd viz allow-scrapes -n production`")
    from linkerd.cli.output.documents import print_documents

    print_documents(objects(namespace, ctx.viz_namespace or "linkerd-viz"), output)


def objects(namespace: str, viz_namespace: str) -> list[Object]:
    """Metrics are for Prometheus' account alone, probes for everybody: the node has no identity."""
    return [
        _server(namespace),
        _route(namespace, "proxy-metrics", ["/metrics"]),
        _route(namespace, "proxy-probes", ["/live", "/ready"]),
        _policy(
            namespace,
            "prometheus-scrape",
            "proxy-metrics",
            [{"kind": "ServiceAccount", "name": "prometheus", "namespace": viz_namespace}],
        ),
        _policy(
            namespace,
            "proxy-probes",
            "proxy-probes",
            [{"group": _GROUP, "kind": "NetworkAuthentication", "name": "kubelet", "namespace": viz_namespace}],
        ),
    ]


def _object(kind: str, version: str, namespace: str, name: str, spec: Object) -> Object:
    from linkerd import VERSION

    metadata = {
        "name": name,
        "namespace": namespace,
        "labels": {"linkerd.io/extension": "viz"},
        "annotations": {"linkerd.io/created-by": f"linkerd/cli {VERSION}"},
    }
    return {"apiVersion": f"{_GROUP}/{version}", "kind": kind, "metadata": metadata, "spec": spec}


def _server(namespace: str) -> Object:
    meshed = {"matchExpressions": [{"key": "linkerd.io/control-plane-ns", "operator": "Exists"}]}
    spec = {"podSelector": meshed, "port": "linkerd-admin", "proxyProtocol": "HTTP/1"}
    return _object("Server", "v1beta3", namespace, "proxy-admin", spec)


def _route(namespace: str, name: str, paths: list[str]) -> Object:
    parent = {"group": _GROUP, "kind": "Server", "name": "proxy-admin"}
    matches = [{"path": {"type": "Exact", "value": path}} for path in paths]
    spec = {"parentRefs": [parent], "rules": [{"matches": matches}]}
    return _object("HTTPRoute", "v1beta3", namespace, name, spec)


def _policy(namespace: str, name: str, route: str, required: list[Object]) -> Object:
    target = {"group": _GROUP, "kind": "HTTPRoute", "name": route}
    spec = {"targetRef": target, "requiredAuthenticationRefs": required}
    return _object("AuthorizationPolicy", "v1alpha1", namespace, name, spec)
