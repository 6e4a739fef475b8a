"""`linkerd upgrade`: the manifests of an installed control plane anew, with its certificates and what the user set."""

from __future__ import annotations

import base64
from typing import Any

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
from linkerd.install.certificates import Credentials, ServerCertificate, checked_credentials
from linkerd.install.control_plane import ISSUER, OVERRIDES, TRUST_ROOTS, Installation, server_certificates
from linkerd.install.values import Values, merged, parse_values
from linkerd.kit.x509 import CertificateError


@click.command(short_help="Print the manifests of an installed control plane anew")
@click.option("--crds", "only_crds", is_flag=True, help="The CustomResourceDefinitions, which come first.")
@click.option("--ha", is_flag=True, help="Three replicas of everything, spread over nodes.")
@click.option("--force", is_flag=True, help="Even when the certificates in the cluster do not fit together.")
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
    output: str,
    files: tuple[str, ...],
    sets: tuple[str, ...],
    set_strings: tuple[str, ...],
    set_files: tuple[str, ...],
    **flags: Any,
) -> None:
    """Print the manifests of an installed control plane anew, for `kubectl apply -f -`.

    What was set at the installation stays, and so do the certificates of the mesh; those of the webhooks are new.
    """
    given = merged(HIGH_AVAILABILITY if ha else {}, registry_values(flags.pop("registry")))
    given = merged(merged(given, shortcut_values(flags)), given_values(files, sets, set_strings, set_files))
    if only_crds:
        print_crds(ctx, complete_values(given), output)
        return
    overrides, credentials = ctx.run(_installed(ctx))
    given = merged(overrides, given)
    values = complete_values(given)
    if not values["identity"]["externalCA"] and not force:
        try:
            checked_credentials(credentials)
        except CertificateError as error:
            raise UserError(f"the certificates in the cluster cannot be used: {error}", "`--force` goes on") from error
    servers: dict[str, ServerCertificate] = server_certificates(
        ctx.linkerd_namespace, values["webhookCertificateLifetime"]
    )
    installation = Installation(ctx.linkerd_namespace, values, credentials, servers, given)
    print_documents(control_plane_documents(installation), output)


async def _installed(ctx: Context) -> tuple[Values, Credentials]:
    """What the user set, and the mesh's certificates as they are in the cluster. Raises UserError."""
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
    text = base64.b64decode(overrides["data"][OVERRIDES]).decode()
    data = {key: base64.b64decode(value).decode() for key, value in issuer["data"].items()}
    credentials = Credentials(
        anchors["data"]["ca-bundle.crt"],
        data.get("crt.pem") or data.get("tls.crt", ""),
        data.get("key.pem") or data.get("tls.key", ""),
    )
    return parse_values(text, f"Secret {OVERRIDES}"), credentials
