"""`linkerd uninject`: manifests without the proxy."""

from __future__ import annotations

import click

from linkerd.cli import manifests
from linkerd.injector.manifests import unmeshed


@click.command(short_help="Remove the proxy from manifests")
@click.argument("source", metavar="FILE|DIR|URL|-")
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml", help="Format.")
def command(source: str, output: str) -> None:
    """Remove the proxy, and the wish for it, from manifests.

    \b
    kubectl get deploy -n production -o yaml | linkerd uninject -
    """
    outcomes = manifests.transform(source, output, unmeshed)
    manifests.report(outcomes, verbose=False, warnings=[])
