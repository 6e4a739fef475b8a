"""`linkerd upgrade`: the manifests of an installed control plane anew, with its certificates and what the user set."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import click

from linkerd.cli.commands.install import print_crds, registry_values, shortcut_options, shortcut_values
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
from linkerd.install.certificates import (
    Credentials,
    ServerCertificate,
    checked_credentials,
    new_credentials,
    replacing,
)
from linkerd.install.control_plane import (
    ANCHOR,
    ISSUER,
    OVERRIDES,
    SERVER_CERTIFICATES,
    TRUST_ROOTS,
    Installation,
    server_certificates,
)
from linkerd.install.values import Values, merged, parse_values
from linkerd.kit.x509 import CertificateError

if TYPE_CHECKING:
    from linkerd.checks.cluster import Cluster


@click.command(short_help="Print the manifests of an installed control plane anew")
@click.option("--crds", "only_crds", is_flag=True, help="The CustomResourceDefinitions, which come first.")
@click.option("--ha", is_flag=True, help="Three replicas of everything, spread over nodes.")
@click.option("--force", is_flag=True, help="Even when the certificates in the cluster do not fit together.")
@click.option("--new-anchor", is_flag=True, help="A new trust anchor and issuer, with the old anchors still trusted.")
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml", help="Format.")
@click.option("--registry", envvar="LINKERD_DOCKER_REGISTRY", metavar="NAME", help="Registry of all images.")
@shortcut_options
@values_options
@pass_context
def command(
    ctx: Context,
    only_crds: bool,
    ha: bool,
    force: bool,
    new_anchor: bool,
    output: str,
    files: tuple[str, ...],
    sets: tuple[str, ...],
    set_strings: tuple[str, ...],
    set_files: tuple[str, ...],
    **flags: Any,
) -> None:
    """Print the manifests of an installed control plane anew, for `kubectl apply -f -`.

    What was set at the installation stays, and so do all certificates that are good for another 60 days: a new one of a
    webhook would leave pods unmeshed until the kubelet has brought it to the injector.

    \b
    linkerd upgrade
    """
    given = merged(HIGH_AVAILABILITY if ha else {}, registry_values(flags.pop("registry")))
    given = merged(merged(given, shortcut_values(flags)), given_values(files, sets, set_strings, set_files))
    if only_crds:
        print_crds(ctx, complete_values(given), output)
        return
    overrides, credentials, kept = ctx.run(installed(ctx))
    given = merged(overrides, given)
    values = complete_values(given)
    if new_anchor:
        credentials = _renewed(ctx, values, credentials)
    elif not values["identity"]["externalCA"] and not force:
        try:
            checked_credentials(credentials)
        except CertificateError as error:
            message = f"the certificates in the cluster cannot be used: {error}"
            raise UserError(message, "`--new-anchor` makes others, `--force` goes on with these") from error
    servers = server_certificates(ctx.linkerd_namespace, values["webhookCertificateLifetime"]) | kept
    installation = Installation(ctx.linkerd_namespace, values, credentials, servers, given)
    print_documents(control_plane_documents(installation), output)


def _renewed(ctx: Context, values: Values, old: Credentials) -> Credentials:
    if values["identity"]["externalCA"]:
        raise UserError("`--new-anchor` makes an issuer, which here is written by somebody else")
    domain = values["identityTrustDomain"] or values["clusterDomain"]
    try:
        return replacing(old, new_credentials(ctx.linkerd_namespace, domain))
    except CertificateError as error:
        raise UserError(f"the old trust anchors cannot be read: {error}") from error


async def installed(ctx: Context) -> tuple[Values, Credentials, dict[str, ServerCertificate]]:
    """What the user set, and the certificates as they are in the cluster. Raises UserError."""
    from linkerd.checks.cluster import Cluster
    from linkerd.k8s.errors import NotFound
    from linkerd.k8s.resources import CONFIG_MAPS, SECRETS

    namespace = ctx.linkerd_namespace
    async with ctx.client() as client:
        try:
            overrides = await client.get(SECRETS, OVERRIDES, namespace)
            anchors = await client.get(CONFIG_MAPS, TRUST_ROOTS, namespace)
            issuer = await client.get(SECRETS, ISSUER, namespace)
        except NotFound as error:
            raise UserError(
                str(error), "is Linkerd installed there? `linkerd install` makes a new installation"
            ) from None
        cluster = Cluster(client, namespace)
        anchor = await cluster.find(SECRETS, ANCHOR, namespace)
        servers = await _good_servers(cluster)
    text = base64.b64decode(overrides["data"][OVERRIDES]).decode()
    data = _texts(issuer)
    credentials = Credentials(
        anchors["data"]["ca-bundle.crt"],
        data.get("crt.pem") or data.get("tls.crt", ""),
        data.get("key.pem") or data.get("tls.key", ""),
        _texts(anchor) if anchor else {},
    )
    return parse_values(text, f"Secret {OVERRIDES}"), credentials, servers


def _texts(secret: dict[str, Any]) -> dict[str, str]:
    return {key: base64.b64decode(value).decode() for key, value in (secret.get("data") or {}).items()}


async def _good_servers(cluster: Cluster) -> dict[str, ServerCertificate]:
    """The webhooks' certificates that are valid and will be for long."""
    from linkerd.checks.certificates import check_server_certificate, ends_soon, server_chain
    from linkerd.checks.model import CheckFailure
    from linkerd.k8s.resources import MUTATING_WEBHOOKS, SECRETS, VALIDATING_WEBHOOKS

    found: dict[str, ServerCertificate] = {}
    for name in SERVER_CERTIFICATES:
        kind = MUTATING_WEBHOOKS if name == "linkerd-proxy-injector" else VALIDATING_WEBHOOKS
        configuration = await cluster.find(kind, f"{name}-webhook-config")
        if configuration is None:
            continue
        bundle = configuration["webhooks"][0]["clientConfig"].get("caBundle") or ""
        try:
            chain = await server_chain(cluster, f"{name}-k8s-tls", cluster.namespace)
            check_server_certificate(chain, bundle, f"{name}.{cluster.namespace}.svc")
        except CheckFailure:
            continue  # a new one takes its place
        secret = await cluster.find(SECRETS, f"{name}-k8s-tls", cluster.namespace)
        if secret is not None and not ends_soon(chain[0]):
            data = _texts(secret)
            authority = base64.b64decode(bundle).decode()
            found[name] = ServerCertificate(data["tls.crt"], data["tls.key"], authority)
    return found
