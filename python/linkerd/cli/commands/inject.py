"""`linkerd inject`: manifests with the proxy in them, or with the annotations that ask for it."""

from __future__ import annotations

from typing import Any

import click

from linkerd.cli import manifests
from linkerd.cli.context import Context, pass_context
from linkerd.cli.errors import UserError
from linkerd.cli.rendering import CREATED_BY
from linkerd.injector.inject import Reason
from linkerd.injector.manifests import Outcome, annotated, meshed
from linkerd.injector.settings import Settings, settings_from_values

_CONFIG = "config.linkerd.io/"

_VALUES: tuple[tuple[str, str, str], ...] = (
    ("--access-log", f"{_CONFIG}access-log", "Access log: apache or json."),
    ("--admin-port", f"{_CONFIG}admin-port", "Port of the proxy's metrics and probes."),
    ("--close-wait-timeout", f"{_CONFIG}close-wait-timeout", "How long a closing connection is remembered."),
    ("--control-port", f"{_CONFIG}control-port", "Port at which the proxy can be tapped."),
    ("--default-inbound-policy", f"{_CONFIG}default-inbound-policy", "Who may talk to the pods by default."),
    ("--image-pull-policy", f"{_CONFIG}image-pull-policy", "Always, IfNotPresent or Never."),
    ("--inbound-port", f"{_CONFIG}inbound-port", "Port at which the proxy takes incoming connections."),
    ("--opaque-ports", f"{_CONFIG}opaque-ports", "Ports whose traffic is not looked into."),
    ("--outbound-port", f"{_CONFIG}outbound-port", "Port at which the proxy takes outgoing connections."),
    ("--proxy-cpu-limit", f"{_CONFIG}proxy-cpu-limit", "CPU that the proxy may use."),
    ("--proxy-cpu-request", f"{_CONFIG}proxy-cpu-request", "CPU that is reserved for the proxy."),
    ("--proxy-image", f"{_CONFIG}proxy-image", "Image of the proxy."),
    ("--proxy-log-level", f"{_CONFIG}proxy-log-level", "Log level of the proxy."),
    ("--proxy-memory-limit", f"{_CONFIG}proxy-memory-limit", "Memory that the proxy may use."),
    ("--proxy-memory-request", f"{_CONFIG}proxy-memory-request", "Memory that is reserved for the proxy."),
    ("--proxy-uid", f"{_CONFIG}proxy-uid", "User that the proxy runs as."),
    ("--proxy-version", f"{_CONFIG}proxy-version", "Version of the proxy."),
    (
        "--require-identity-on-inbound-ports",
        f"{_CONFIG}proxy-require-identity-inbound-ports",
        "Ports that take mTLS connections only.",
    ),
    ("--shutdown-grace-period", f"{_CONFIG}shutdown-grace-period", "How long the proxy waits for open requests."),
    ("--skip-inbound-ports", f"{_CONFIG}skip-inbound-ports", "Ports into the pod that are not redirected."),
    ("--skip-outbound-ports", f"{_CONFIG}skip-outbound-ports", "Ports out of the pod that are not redirected."),
    (
        "--wait-before-exit-seconds",
        "config.alpha.linkerd.io/proxy-wait-before-exit-seconds",
        "How long the proxy stays when the pod ends.",
    ),
)
"""Flag, the annotation that it writes, help."""

_SWITCHES: tuple[tuple[str, str, str], ...] = (
    ("--enable-debug-sidecar", f"{_CONFIG}enable-debug-sidecar", "Add a container with network tools."),
    ("--enable-external-profiles", f"{_CONFIG}enable-external-profiles", "Service profiles of outside names too."),
    ("--native-sidecar", f"{_CONFIG}proxy-enable-native-sidecar", "The proxy as a native sidecar."),
)


def _config_options(command: Any) -> Any:
    for flag, _, text in reversed(_VALUES):
        command = click.option(flag, default=None, metavar="VALUE", help=text)(command)
    for flag, _, text in reversed(_SWITCHES):
        command = click.option(flag, is_flag=True, help=text)(command)
    return command


def _annotations(flags: dict[str, Any]) -> dict[str, str]:
    given = {annotation: flags[_parameter(flag)] for flag, annotation, _ in _VALUES}
    switched = {annotation: "true" for flag, annotation, _ in _SWITCHES if flags[_parameter(flag)]}
    return {annotation: value for annotation, value in given.items() if value is not None} | switched


def _parameter(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")


@click.command(short_help="Add the proxy, or the wish for it, to manifests")
@click.argument("source", metavar="FILE|DIR|URL|-")
@click.option("--manual", is_flag=True, help="Put the proxy itself into the manifests.")
@click.option("--ingress", is_flag=True, help="For ingress controllers: route by header, not by address.")
@click.option("--ignore-cluster", is_flag=True, help="With --manual: use the defaults instead of the cluster's values.")
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml", help="Format.")
@_config_options
@pass_context
def command(
    ctx: Context, source: str, manual: bool, ingress: bool, ignore_cluster: bool, output: str, **flags: Any
) -> None:
    """Add the wish for a proxy to manifests, as annotations; the injector then does the rest.

    \b
    kubectl get deploy -n legacy -o yaml | linkerd inject - | kubectl diff -f - || true
    kubectl get deploy billing -n legacy -o yaml | linkerd inject --skip-outbound-ports 5432 -
    """
    wish, config = "ingress" if ingress else "enabled", _annotations(flags)
    if manual:
        settings = ctx.run(_settings(ctx, ignore_cluster))
        outcomes = manifests.transform(
            source, output, lambda document: meshed(document, wish, config, settings, CREATED_BY)
        )
    else:
        outcomes = manifests.transform(source, output, lambda document: annotated(document, wish, config))
    manifests.report(outcomes, verbose=ctx.verbose, warnings=_warnings(outcomes))


def _warnings(outcomes: list[Outcome]) -> list[tuple[str, str]]:
    def of(reason: Reason, text: str, passed: str) -> tuple[str, str]:
        titles = [outcome.title for outcome in outcomes if outcome.problem is reason]
        return (f"{text} {', '.join(titles)}" if titles else "", passed)

    some = any(outcome.change != "skipped" for outcome in outcomes)
    return [
        of(Reason.HOST_NETWORK, '"hostNetwork: true" detected in', "pods do not use host networking"),
        of(Reason.SIDECAR, "known sidecar detected in", "pods do not have a sidecar injected already"),
        of(
            Reason.DISABLED,
            '"linkerd.io/inject: disabled" annotation set on',
            "pods are not annotated to disable injection",
        ),
        ("" if some else "no supported objects found", "at least one resource can be injected or annotated"),
    ]


async def _settings(ctx: Context, ignore_cluster: bool) -> Settings:
    """The cluster's. Raises UserError when it has no control plane."""
    import yaml

    from linkerd.cli.rendering import complete_values
    from linkerd.install.control_plane import CONFIG, TRUST_ROOTS
    from linkerd.k8s.errors import NotFound
    from linkerd.k8s.resources import CONFIG_MAPS

    if ignore_cluster:
        values = complete_values({})
        return settings_from_values(values, ctx.linkerd_namespace, values["identityTrustAnchorsPEM"])
    async with ctx.client() as client:
        try:
            config = await client.get(CONFIG_MAPS, CONFIG, ctx.linkerd_namespace)
            roots = await client.get(CONFIG_MAPS, TRUST_ROOTS, ctx.linkerd_namespace)
        except NotFound as error:
            raise UserError(str(error), "install Linkerd first, or pass `--ignore-cluster`") from None
    values = yaml.safe_load(config["data"]["values"])
    # Not those of the installation, which may have been replaced since.
    return settings_from_values(values, ctx.linkerd_namespace, (roots.get("data") or {}).get("ca-bundle.crt") or "")
