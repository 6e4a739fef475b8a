"""`linkerd diagnostics`: a look into the control plane and the proxies."""

from __future__ import annotations

from linkerd.cli.groups import Entry, LazyGroup

_HERE = "linkerd.cli.commands.diagnostics"

TABLE = {
    "controller-metrics": Entry(f"{_HERE}.controller_metrics", "The metrics of the control plane's containers"),
    "cp-metrics": Entry(f"{_HERE}.controller_metrics", "", alias_of="controller-metrics"),
    "endpoints": Entry(f"{_HERE}.endpoints", "The endpoints that the destination service knows"),
    "ep": Entry(f"{_HERE}.endpoints", "", alias_of="endpoints"),
    "policy": Entry(f"{_HERE}.policy", "The inbound policy of a pod, the outbound policy of a service"),
    "profile": Entry(f"{_HERE}.profile", "What the destination service tells of an address"),
    "proxy-metrics": Entry(f"{_HERE}.proxy_metrics", "The metrics of proxies, as they expose them"),
}

command = LazyGroup("diagnostics", TABLE, help="Look into the control plane and the proxies.")
