"""`linkerd viz`: metrics and live traffic."""

from __future__ import annotations

from linkerd.cli.context import viz_options
from linkerd.cli.groups import Entry, LazyGroup

_HERE = "linkerd.cli.commands.viz"

TABLE = {
    "allow-scrapes": Entry(f"{_HERE}.allow_scrapes", "Print policies that let Prometheus scrape a namespace"),
    "authz": Entry(f"{_HERE}.authz", "Traffic of a resource by authorization"),
    "check": Entry(f"{_HERE}.check", "Check the viz extension for problems"),
    "edges": Entry(f"{_HERE}.edges", "Connections between resources and their identities"),
    "install": Entry(f"{_HERE}.install", "Print the manifests of the viz extension"),
    "list": Entry(f"{_HERE}.list", "Which pods can be tapped"),
    "profile": Entry(f"{_HERE}.profile", "Print a ServiceProfile made from live traffic"),
    "prune": Entry(f"{_HERE}.prune", "Print objects that an older version left behind, for deletion"),
    "routes": Entry(f"{_HERE}.routes", "Per-route metrics (with a ServiceProfile)"),
    "stat": Entry(f"{_HERE}.stat", "Success rate, requests per second and latency of resources"),
    "stat-inbound": Entry(f"{_HERE}.stat_inbound", "Traffic of a workload by server and route"),
    "stat-outbound": Entry(f"{_HERE}.stat_outbound", "What a workload sends, by route and backend"),
    "tap": Entry(f"{_HERE}.tap", "Watch requests as they happen"),
    "top": Entry(f"{_HERE}.top", "A live table of the most frequent requests"),
    "uninstall": Entry(f"{_HERE}.uninstall", "Print the objects of the viz extension, for deletion"),
}

command = LazyGroup("viz", TABLE, shared=viz_options, help="Metrics and live traffic.")
