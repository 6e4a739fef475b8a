"""`linkerd install`: the manifests of the control plane on stdout."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from linkerd.cli.context import Context, pass_context
from linkerd.cli.errors import UserError
from linkerd.cli.output.documents import print_documents
from linkerd.cli.rendering import (
    HIGH_AVAILABILITY,
    complete_values,
    control_plane_documents,
    given_values,
    values_options,
)
from linkerd.install import crds
from linkerd.install.certificates import Credentials, checked_credentials, new_credentials
from linkerd.install.control_plane import CONFIG, Installation, server_certificates
from linkerd.install.values import Values, default_values, merged, with_settings
from linkerd.kit.x509 import CertificateError

_SHORTCUTS: tuple[tuple[str, str, str], ...] = (
    ("--cluster-domain", "clusterDomain", "DNS domain of the cluster's services."),
    ("--controller-log-level", "controllerLogLevel", "Log level of the controllers."),
    ("--controller-replicas", "controllerReplicas", "Replicas of each component."),
    ("--controller-uid", "controllerUID", "User that the controllers run as."),
    ("--default-inbound-policy", "proxy.defaultInboundPolicy", "Who may talk to meshed pods by default."),
    ("--identity-clock-skew-allowance", "identity.issuer.clockSkewAllowance", "Clock difference that is tolerated."),
    ("--identity-issuance-lifetime", "identity.issuer.issuanceLifetime", "Lifetime of the proxies' certificates."),
    ("--identity-trust-domain", "identityTrustDomain", "Last part of identities."),
    ("--image-pull-policy", "imagePullPolicy", "Always, IfNotPresent or Never."),
    ("--proxy-cpu-limit", "proxy.resources.cpu.limit", "CPU that a proxy may use."),
    ("--proxy-cpu-request", "proxy.resources.cpu.request", "CPU that is reserved for a proxy."),
    ("--proxy-image", "proxy.image.name", "Image of the proxy."),
    ("--proxy-log-level", "proxy.logLevel", "Log level of the proxies."),
    ("--proxy-memory-limit", "proxy.resources.memory.limit", "Memory that a proxy may use."),
    ("--proxy-memory-request", "proxy.resources.memory.request", "Memory that is reserved for a proxy."),
    ("--proxy-uid", "proxy.uid", "User that the proxies run as."),
    ("--skip-inbound-ports", "proxyInit.ignoreInboundPorts", "Ports into pods that are never redirected."),
    ("--skip-outbound-ports", "proxyInit.ignoreOutboundPorts", "Ports out of pods that are never redirected."),
)
"""Flag, the value that it sets, help. Everything else goes by `--set`."""


def shortcut_options(command: Any) -> Any:
    for flag, _, text in reversed(_SHORTCUTS):
        command = click.option(flag, default=None, metavar="VALUE", help=text)(command)
    return command


def shortcut_values(flags: dict[str, Any]) -> Values:
    values: Values = {}
    for flag, path, _ in _SHORTCUTS:
        value = flags.get(flag.removeprefix("--").replace("-", "_"))
        if value is not None:
            escaped = value.replace("\\", "\\\\").replace(",", "\\,")
            values = with_settings(values, [f"{path}={escaped}"], as_strings=not value.isdigit())
    return values


def registry_values(registry: str | None) -> Values:
    """The same images in another registry."""
    if not registry:
        return {}
    registry = registry.rstrip("/")
    return {
        "controllerImage": f"{registry}/controller",
        "proxy": {"image": {"name": f"{registry}/proxy"}},
        "debugContainer": {"image": {"name": f"{registry}/debug"}},
    }


@click.command(short_help="Print the manifests of the control plane")
@click.option("--crds", "only_crds", is_flag=True, help="The CustomResourceDefinitions, which come first.")
@click.option("--ha", is_flag=True, help="Three replicas of everything, spread over nodes.")
@click.option("--ignore-cluster", is_flag=True, help="Ask no cluster whether this can work.")
@click.option("--print-values", is_flag=True, help="All values with their defaults, and nothing else.")
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml", help="Format.")
@click.option("--registry", envvar="LINKERD_DOCKER_REGISTRY", metavar="NAME", help="Registry of all images.")
@click.option("--identity-trust-anchors-file", metavar="FILE", help="PEM certificates to trust.")
@click.option("--identity-issuer-certificate-file", metavar="FILE", help="PEM certificate of the issuer.")
@click.option("--identity-issuer-key-file", metavar="FILE", help="PEM key of the issuer.")
@click.option("--identity-external-issuer", is_flag=True, help="The issuer's Secret is written by somebody else.")
@shortcut_options
@values_options
@pass_context
def command(
    ctx: Context,
    only_crds: bool,
    ha: bool,
    ignore_cluster: bool,
    print_values: bool,
    output: str,
    files: tuple[str, ...],
    sets: tuple[str, ...],
    set_strings: tuple[str, ...],
    set_files: tuple[str, ...],
    **flags: Any,
) -> None:
    """Print the manifests of the control plane, for `kubectl apply -f -`.

    First `linkerd install --crds | kubectl apply -f -`, then `linkerd install | kubectl apply -f -`.

    \b
    linkerd install --crds
    linkerd install --ignore-cluster --ha
    """
    if print_values:
        print_documents([default_values()])
        return
    given = merged(HIGH_AVAILABILITY if ha else {}, registry_values(flags.pop("registry")))
    given = merged(given, shortcut_values(flags))
    given = merged(given, given_values(files, sets, set_strings, set_files))
    if flags["identity_external_issuer"]:
        given = merged(given, {"identity": {"externalCA": True, "issuer": {"scheme": "kubernetes.io/tls"}}})
    values = complete_values(given)
    if not ignore_cluster:
        ctx.run(_check_crds(ctx, values) if only_crds else _check_cluster(ctx))
    if only_crds:
        print_crds(ctx, values, output)
        return
    credentials = _credentials(ctx, values, flags)
    servers = server_certificates(ctx.linkerd_namespace, values["webhookCertificateLifetime"])
    installation = Installation(ctx.linkerd_namespace, values, credentials, servers, given)
    print_documents(control_plane_documents(installation), output)


def print_crds(ctx: Context, values: Values, output: str) -> None:
    definitions = crds.definitions(
        values["linkerdVersion"],
        control_plane=ctx.linkerd_namespace,
        traffic_split=values["installTrafficSplit"],
        gateway_api=values["installGatewayAPI"],
    )
    print_documents(definitions, output)
    if sys.stderr.isatty():
        print("Rendering Linkerd CRDs...", file=sys.stderr)
        print("Next, run `linkerd install | kubectl apply -f -` to install the control plane.\n", file=sys.stderr)


# Credentials


def _credentials(ctx: Context, values: Values, flags: dict[str, Any]) -> Credentials:
    """From files, from values, or new; never half of them. Raises UserError."""
    issuer = values["identity"]["issuer"]["tls"]
    found = {
        "--identity-trust-anchors-file": _text(flags["identity_trust_anchors_file"])
        or values["identityTrustAnchorsPEM"],
        "--identity-issuer-certificate-file": _text(flags["identity_issuer_certificate_file"]) or issuer["crtPEM"],
        "--identity-issuer-key-file": _text(flags["identity_issuer_key_file"]) or issuer["keyPEM"],
    }
    if values["identity"]["externalCA"]:
        if not found["--identity-trust-anchors-file"]:
            raise UserError("an external issuer needs `--identity-trust-anchors-file`")
        return Credentials(found["--identity-trust-anchors-file"], "", "")
    missing = [name for name, text in found.items() if not text]
    if len(missing) == len(found):
        return new_credentials(ctx.linkerd_namespace, values["identityTrustDomain"] or values["clusterDomain"])
    if missing:
        raise UserError(f"certificates are given in part only: {', '.join(missing)} is missing")
    try:
        return checked_credentials(Credentials(*found.values()))
    except CertificateError as error:
        raise UserError(f"the given certificates cannot be used: {error}") from error


def _text(name: str | None) -> str:
    if not name:
        return ""
    try:
        return Path(name).read_text()
    except OSError as error:
        raise UserError(f"{name}: {error.strerror}") from error


# Preconditions


async def _check_crds(ctx: Context, values: Values) -> None:
    """Leaves a TrafficSplit definition of others alone. Raises UserError where Gateway API is of others."""
    from linkerd.k8s.resources import CUSTOM_RESOURCE_DEFINITIONS

    async with ctx.client() as client:
        found = {item["metadata"]["name"]: item for item in await client.list(CUSTOM_RESOURCE_DEFINITIONS)}
    foreign = {name for name, item in found.items() if not _is_ours(item)}
    if "trafficsplits.split.smi-spec.io" in foreign:
        values["installTrafficSplit"] = False
    if values["installGatewayAPI"] and foreign.intersection(crds.GATEWAY_API):
        raise UserError(
            "the Gateway API definitions in the cluster are not Linkerd's",
            "the mesh uses them as they are: leave out `--set installGatewayAPI=true`",
        )


def _is_ours(definition: dict[str, Any]) -> bool:
    annotations = definition["metadata"].get("annotations") or {}
    return annotations.get("linkerd.io/created-by", "").startswith("linkerd/")


async def _check_cluster(ctx: Context) -> None:
    """Raises UserError when the CRDs are not there, or the control plane is there already."""
    from linkerd.k8s.errors import NotFound
    from linkerd.k8s.resources import CONFIG_MAPS, CUSTOM_RESOURCE_DEFINITIONS

    async with ctx.client() as client:
        present = {item["metadata"]["name"] for item in await client.list(CUSTOM_RESOURCE_DEFINITIONS)}
        if any(name not in present for name in crds.VERSIONS):
            raise UserError(
                "Linkerd CRDs must be installed first.", "run `linkerd install --crds | kubectl apply -f -`"
            )
        try:
            await client.get(CONFIG_MAPS, CONFIG, ctx.linkerd_namespace)
        except NotFound:
            return
    raise UserError(
        f"Can't install the Linkerd control plane in the '{ctx.linkerd_namespace}' namespace. "
        f"Reason: ConfigMap/{CONFIG} already exists.",
        "to change an existing installation run `linkerd upgrade | kubectl apply -f -`",
    )
