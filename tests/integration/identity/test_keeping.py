"""Issuer and anchor renewed in a real API server, with the rights that the manifests give and no others."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from linkerd.cli.rendering import complete_values, control_plane_documents
from linkerd.identity.certifying import Validity
from linkerd.identity.events import Recorder
from linkerd.identity.issuer import IssuerFiles, IssuerUnavailable
from linkerd.identity.keeping import Keeper
from linkerd.identity.service import CurrentIssuer
from linkerd.install.certificates import Credentials, new_credentials
from linkerd.install.control_plane import Installation, server_certificates
from linkerd.k8s.client import Client, Object
from linkerd.k8s.resources import CONFIG_MAPS, ROLE_BINDINGS, ROLES, SECRETS, SERVICE_ACCOUNTS
from linkerd.kit.x509 import certificate_pem, key_pem, new_issuer, new_root, parse_certificates, verify_chain
from support.apiserver import ApiServer

DAY = timedelta(days=1)
KINDS = {
    ("Secret", "linkerd-identity-anchor"): SECRETS,
    ("Secret", "linkerd-identity-issuer"): SECRETS,
    ("ConfigMap", "linkerd-identity-trust-roots"): CONFIG_MAPS,
    ("Role", "linkerd-identity-renewal"): ROLES,
    ("RoleBinding", "linkerd-identity-renewal"): ROLE_BINDINGS,
}


def expired(*, anchor: bool) -> Credentials:
    """As of an installation that nobody looked after."""
    then = datetime.now(UTC) - 400 * DAY
    root = new_root("root.linkerd.cluster.local", 390 * DAY if anchor else 3650 * DAY, now=then)
    issuer = new_issuer("identity.linkerd.cluster.local", root, 365 * DAY, now=then)
    pem = certificate_pem(root.certificate)
    held = {"ca.crt": pem, "ca.key": key_pem(root.key)}
    return Credentials(pem, certificate_pem(issuer.certificate), key_pem(issuer.key), held)


async def install(client: Client, namespace: str, credentials: Credentials, directory: Path) -> IssuerFiles:
    """What identity needs of an installation: objects in the cluster, and files as the kubelet mounts them."""
    values = complete_values({"linkerdVersion": "x"})
    installation = Installation(namespace, values, credentials, server_certificates(namespace, "24h"), {})
    for document in control_plane_documents(installation):
        resource = KINDS.get((document["kind"], document["metadata"]["name"]))
        if resource is not None:
            await client.create(resource, document, namespace)
    for name, text in (
        ("crt.pem", credentials.issuer),
        ("key.pem", credentials.issuer_key),
        ("ca-bundle.crt", credentials.anchors),
    ):
        (directory / name).write_text(text)
    return IssuerFiles(directory, directory / "ca-bundle.crt")


@pytest.fixture
async def identity(apiserver: ApiServer, client: Client, namespace: str) -> AsyncIterator[Client]:
    """A client with the rights of identity's service account."""
    await client.create(SERVICE_ACCOUNTS, {"metadata": {"name": "linkerd-identity"}}, namespace)
    path = SERVICE_ACCOUNTS.path(namespace, "linkerd-identity", "token")
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600}}
    token = (await client.request("POST", path, body=body))["status"]["token"]
    async with Client(replace(apiserver.config(), token=token)) as limited:
        yield limited


async def data(client: Client, namespace: str, name: str) -> dict[str, str]:
    secret: Object = await client.get(SECRETS, name, namespace)
    return {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}


def keeper(client: Client, namespace: str, files: IssuerFiles) -> tuple[Keeper, CurrentIssuer]:
    recorder = Recorder(client)
    issuer = CurrentIssuer(files, recorder, namespace)
    issuer.reload()
    return Keeper(client, namespace, Validity().lifetime, recorder, issuer.take), issuer


async def test_an_expired_issuer_is_replaced_and_signs_before_the_files_follow(
    client: Client, identity: Client, namespace: str, tmp_path: Path
):
    files = await install(client, namespace, expired(anchor=False), tmp_path)
    keeping, issuer = keeper(identity, namespace, files)
    assert not issuer.loaded
    await keeping.renew()
    verify_chain(issuer.get().authority.chain, issuer.get().anchors, datetime.now(UTC))
    issuer.reload()  # from files that are still the old ones
    assert issuer.loaded
    stored = await data(client, namespace, "linkerd-identity-issuer")
    assert parse_certificates(stored["crt.pem"]) == [issuer.get().authority.certificate]
    for name in ("crt.pem", "key.pem"):
        (tmp_path / name).write_text(stored[name])
    issuer.reload()
    assert issuer.get().authority.certificate == parse_certificates(stored["crt.pem"])[0]


async def test_an_issuer_that_has_reached_the_files_already_signs_at_once(
    client: Client, identity: Client, namespace: str, tmp_path: Path
):
    """The kubelet brought what another replica made after the files were looked at, and before the cluster was."""
    files = await install(client, namespace, expired(anchor=False), tmp_path)
    other, _ = keeper(identity, namespace, files)
    keeping, issuer = keeper(identity, namespace, files)
    await other.renew()
    stored = await data(client, namespace, "linkerd-identity-issuer")
    for name in ("crt.pem", "key.pem"):
        (tmp_path / name).write_text(stored[name])
    await keeping.renew()
    assert issuer.loaded


async def test_an_expired_anchor_is_valid_again_for_those_who_know_it(
    client: Client, identity: Client, namespace: str, tmp_path: Path
):
    old = expired(anchor=True)
    keeping, issuer = keeper(identity, namespace, await install(client, namespace, old, tmp_path))
    await keeping.renew()
    roots = await client.get(CONFIG_MAPS, "linkerd-identity-trust-roots", namespace)
    (trusted,) = parse_certificates(roots["data"]["ca-bundle.crt"])
    verify_chain(issuer.get().authority.chain, [trusted], datetime.now(UTC))
    (known,) = parse_certificates(old.anchors)
    issuer.get().authority.certificate.verify_directly_issued_by(known)


async def test_replicas_that_renew_at_the_same_time_agree(
    client: Client, identity: Client, namespace: str, tmp_path: Path
):
    files = await install(client, namespace, expired(anchor=True), tmp_path)
    replicas = [keeper(identity, namespace, files) for _ in range(3)]
    await asyncio.gather(*(keeping.renew() for keeping, _ in replicas))
    stored = await data(client, namespace, "linkerd-identity-issuer")
    assert [certificate_pem(issuer.get().authority.certificate) for _, issuer in replicas] == [stored["crt.pem"]] * 3


async def test_without_the_anchors_key_nothing_is_touched(
    client: Client, identity: Client, namespace: str, tmp_path: Path
):
    old = replace(expired(anchor=False), anchor={})
    keeping, issuer = keeper(identity, namespace, await install(client, namespace, old, tmp_path))
    await keeping.renew()
    assert (await data(client, namespace, "linkerd-identity-issuer"))["crt.pem"] == old.issuer
    with pytest.raises(IssuerUnavailable, match="expired"):
        issuer.get()


async def test_what_is_young_stays_as_it_is(client: Client, identity: Client, namespace: str, tmp_path: Path):
    new = new_credentials(namespace, "cluster.local")
    keeping, _ = keeper(identity, namespace, await install(client, namespace, new, tmp_path))
    await keeping.renew()
    assert (await data(client, namespace, "linkerd-identity-issuer"))["crt.pem"] == new.issuer
    assert await data(client, namespace, "linkerd-identity-anchor") == new.anchor
