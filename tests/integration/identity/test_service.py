"""Identity against a real API server: real tokens, real reviews, and a chain that openssl would accept too."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID
from linkerd.core.identities import TrustDomain
from linkerd.identity.certifying import Validity
from linkerd.identity.events import Recorder
from linkerd.identity.issuer import IssuerFiles
from linkerd.identity.service import CurrentIssuer, IdentityService
from linkerd.identity.tokens import TokenReviewer
from linkerd.k8s.client import Client
from linkerd.k8s.resources import SERVICE_ACCOUNTS
from linkerd.kit.rpc import serve_rpc
from linkerd.kit.x509 import certificate_pem, key_pem, new_issuer, new_key, new_root, parse_certificates
from linkerd.proto.identity_pb2 import CertifyRequest, CertifyResponse
from linkerd.proto.identity_pb2_grpc import IdentityStub


def write_issuer(directory: Path) -> Path:
    root = new_root("root.linkerd.cluster.local", timedelta(days=10))
    issuer = new_issuer("identity.linkerd.cluster.local", root, timedelta(days=5))
    (directory / "crt.pem").write_text(certificate_pem(issuer.certificate))
    (directory / "key.pem").write_text(key_pem(issuer.key))
    (directory / "ca-bundle.crt").write_text(certificate_pem(root.certificate))
    return directory


@asynccontextmanager
async def identity(client: Client, directory: Path) -> AsyncIterator[tuple[IdentityStub, CurrentIssuer]]:
    recorder = Recorder(client)
    issuer = CurrentIssuer(IssuerFiles(directory, directory / "ca-bundle.crt"), recorder, "linkerd")
    issuer.reload()
    service = IdentityService(issuer, TokenReviewer(client, TrustDomain()), recorder, Validity())
    async with (
        serve_rpc("127.0.0.1:0", [service.handler()], grace=0) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        yield IdentityStub(channel), issuer


async def new_token(client: Client, namespace: str, *, audiences: list[str] | None = None) -> bytes:
    await client.create(SERVICE_ACCOUNTS, {"metadata": {"name": "web"}}, namespace)
    spec = {"audiences": audiences if audiences is not None else ["identity.l5d.io"], "expirationSeconds": 600}
    path = SERVICE_ACCOUNTS.path(namespace, "web", "token")
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    return (await client.request("POST", path, body=body))["status"]["token"].encode()


def new_request(name: str) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if len(name) <= 64 else [])
    )
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    return builder.sign(new_key(), hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def name_in(namespace: str) -> str:
    return f"web.{namespace}.serviceaccount.identity.linkerd.cluster.local"


def verify_with_openssl(response: CertifyResponse, directory: Path) -> None:
    chain = [response.leaf_certificate, *response.intermediate_certificates]
    leaf, *above = (x509.load_der_x509_certificate(der) for der in chain)
    for file, text in (
        ("leaf.pem", certificate_pem(leaf)),
        ("chain.pem", certificate_pem(*above)),
        ("anchors.pem", response.trust_anchors_pem),
    ):
        (directory / file).write_text(text)
    command = ["openssl", "verify", "-CAfile", "anchors.pem", "-untrusted", "chain.pem", "leaf.pem"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


async def test_a_token_and_a_request_make_a_certificate_that_verifies(client: Client, namespace: str, tmp_path: Path):
    name = name_in(namespace)
    token = await new_token(client, namespace)
    async with identity(client, write_issuer(tmp_path)) as (stub, _):
        response = await stub.Certify(
            CertifyRequest(identity=name, token=token, certificate_signing_request=new_request(name))
        )
    verify_with_openssl(response, tmp_path)
    leaf = x509.load_der_x509_certificate(response.leaf_certificate)
    left = leaf.not_valid_after_utc - datetime.now(UTC)
    assert timedelta(hours=23, minutes=59) < left < timedelta(hours=24, minutes=1)
    assert response.valid_until.ToDatetime(UTC) == leaf.not_valid_after_utc


async def test_a_default_token_is_taken_too(client: Client, namespace: str, tmp_path: Path):
    name = name_in(namespace)
    token = await new_token(client, namespace, audiences=[])
    async with identity(client, write_issuer(tmp_path)) as (stub, _):
        await stub.Certify(CertifyRequest(identity=name, token=token, certificate_signing_request=new_request(name)))


async def test_who_proves_another_identity_is_refused(client: Client, namespace: str, tmp_path: Path):
    other = "web.elsewhere.serviceaccount.identity.linkerd.cluster.local"
    token = await new_token(client, namespace)
    request = CertifyRequest(identity=other, token=token, certificate_signing_request=new_request(other))
    async with identity(client, write_issuer(tmp_path)) as (stub, _):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Certify(request)
    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert name_in(namespace) in refused.value.details()


async def test_a_bad_token_is_refused(client: Client, namespace: str, tmp_path: Path):
    name = name_in(namespace)
    request = CertifyRequest(identity=name, token=b"nonsense", certificate_signing_request=new_request(name))
    async with identity(client, write_issuer(tmp_path)) as (stub, _):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Certify(request)
    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION


@pytest.mark.parametrize("missing", ["identity", "token", "certificate_signing_request"])
async def test_what_is_missing_is_named(client: Client, tmp_path: Path, missing: str):
    name = name_in("x")
    request = CertifyRequest(identity=name, token=b"t", certificate_signing_request=new_request(name))
    request.ClearField(missing)
    async with identity(client, write_issuer(tmp_path)) as (stub, _):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Certify(request)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert missing in refused.value.details()


async def test_without_issuer_it_is_unavailable_until_the_files_are_there(client: Client, tmp_path: Path):
    name = name_in("x")
    request = CertifyRequest(identity=name, token=b"t", certificate_signing_request=new_request(name))
    async with identity(client, tmp_path) as (stub, issuer):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Certify(request)
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
        write_issuer(tmp_path)
        issuer.reload()
        assert issuer.loaded


async def test_new_anchors_travel_with_the_next_certificate(client: Client, namespace: str, tmp_path: Path):
    name = name_in(namespace)
    token = await new_token(client, namespace)
    request = CertifyRequest(identity=name, token=token, certificate_signing_request=new_request(name))
    async with identity(client, write_issuer(tmp_path)) as (stub, issuer):
        bundle = tmp_path / "ca-bundle.crt"
        bundle.write_text(bundle.read_text() + certificate_pem(new_root("next", timedelta(days=20)).certificate))
        issuer.reload()
        response = await stub.Certify(request)
    assert len(parse_certificates(response.trust_anchors_pem)) == 2


async def test_a_flood_of_bad_tokens_leaves_the_others_served(client: Client, namespace: str, tmp_path: Path):
    """Two thousand within a second or two: of no form, of another identity, and forged for one that exists."""
    name = name_in(namespace)
    token = await new_token(client, namespace)
    header, payload, _ = token.split(b".")
    request = CertifyRequest(identity=name, token=token, certificate_signing_request=new_request(name))

    def bad(number: int) -> CertifyRequest:
        forged = [b"nonsense%d" % number, token, b".".join((header, payload, b"c2ln%04d" % number))][number % 3]
        claimed = f"evil.{name}" if number % 3 == 1 else name
        return CertifyRequest(identity=claimed, token=forged, certificate_signing_request=new_request(claimed))

    csrs = [bad(number) for number in range(30)]
    async with identity(client, write_issuer(tmp_path)) as (stub, _):
        flood = [asyncio.ensure_future(_code(stub, csrs[number % 30])) for number in range(2000)]
        for _ in range(20):
            await asyncio.wait_for(stub.Certify(request), 5)
        codes = await asyncio.gather(*flood)
    assert set(codes) <= {grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.RESOURCE_EXHAUSTED}


async def _code(stub: IdentityStub, request: CertifyRequest) -> grpc.StatusCode:
    try:
        await stub.Certify(request)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def test_an_oversized_request_is_refused_and_the_next_is_served(client: Client, namespace: str, tmp_path: Path):
    name = name_in(namespace)
    token = await new_token(client, namespace)
    request = CertifyRequest(identity=name, token=token, certificate_signing_request=new_request(name))
    huge = CertifyRequest(identity=name, token=b"x" * 1_000_000, certificate_signing_request=b"x")
    async with identity(client, write_issuer(tmp_path)) as (stub, _):
        assert await _code(stub, huge) == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await _code(stub, request) == grpc.StatusCode.OK
