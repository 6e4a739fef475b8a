"""The certificates of the mesh and of its webhooks: there, of a kind that works, in time, and fitting together."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from linkerd.checks.cluster import Cluster, listed, name_of, proxy_env
from linkerd.checks.model import Category, Check, CheckFailure, Severity, Skipped
from linkerd.k8s.resources import CONFIG_MAPS, MUTATING_WEBHOOKS, SECRETS, VALIDATING_WEBHOOKS, Resource
from linkerd.kit import x509

Object = dict[str, Any]

SOON = timedelta(days=60)

_ROTATE = "see docs/reference/certificates.md for how to replace it"


def identity(cluster: Cluster) -> Category:
    async def anchors() -> list[x509.Certificate]:
        return x509.parse_certificates(await trust_anchors(cluster))

    async def issuer() -> x509.Authority:
        return await _issuer(cluster)

    async def config() -> None:
        try:
            await anchors()
            await issuer()
        except x509.CertificateError as error:
            raise CheckFailure(str(error)) from error

    async def anchors_crypto() -> None:
        problems = [f"{_title(item)} {problem}" for item in await anchors() if (problem := unsupported(item))]
        if problems:
            raise CheckFailure(listed("Invalid trustAnchors:", problems))

    async def anchors_in_time() -> None:
        problems = [f"{_title(item)} {problem}" for item in await anchors() if (problem := out_of_time(item))]
        if problems:
            raise CheckFailure(listed("Invalid anchors:", problems))

    async def anchors_for_long() -> None:
        problems = [f"{_title(item)} {ends_soon(item)}" for item in await anchors() if ends_soon(item)]
        if problems:
            raise CheckFailure(listed("Anchors expiring soon:", problems))

    async def issuer_crypto() -> None:
        problem = unsupported((await issuer()).certificate)
        if problem:
            raise CheckFailure(f"issuer certificate {problem}")

    async def issuer_in_time() -> None:
        problem = out_of_time((await issuer()).certificate)
        if problem:
            raise CheckFailure(f"issuer certificate is {problem}")

    async def issuer_for_long() -> None:
        problem = ends_soon((await issuer()).certificate)
        if problem:
            raise CheckFailure(f"issuer certificate {problem}")

    async def issued() -> None:
        try:
            x509.verify_chain((await issuer()).chain, await anchors(), datetime.now(UTC))
        except x509.CertificateError as error:
            raise CheckFailure(str(error)) from error

    fatal, warning = Severity.FATAL, Severity.WARNING
    rows = (
        ("certificate config is valid", "l5d-identity-cert-config-valid", config, fatal),
        (
            "trust anchors are using supported crypto algorithm",
            "l5d-identity-trustAnchors-use-supported-crypto",
            anchors_crypto,
            fatal,
        ),
        (
            "trust anchors are within their validity period",
            "l5d-identity-trustAnchors-are-time-valid",
            anchors_in_time,
            fatal,
        ),
        (
            "trust anchors are valid for at least 60 days",
            "l5d-identity-trustAnchors-not-expiring-soon",
            anchors_for_long,
            warning,
        ),
        (
            "issuer cert is using supported crypto algorithm",
            "l5d-identity-issuer-cert-uses-supported-crypto",
            issuer_crypto,
            fatal,
        ),
        (
            "issuer cert is within its validity period",
            "l5d-identity-issuer-cert-is-time-valid",
            issuer_in_time,
            fatal,
        ),
        (
            "issuer cert is valid for at least 60 days",
            "l5d-identity-issuer-cert-not-expiring-soon",
            issuer_for_long,
            warning,
        ),
        (
            "issuer cert is issued by the trust anchor",
            "l5d-identity-issuer-cert-issued-by-trust-anchor",
            issued,
            Severity.ERROR,
        ),
    )
    return Category(
        "linkerd-identity", [Check(text, anchor, run, _ROTATE, severity) for text, anchor, run, severity in rows]
    )


async def trust_anchors(cluster: Cluster) -> str:
    """The PEM text of the ConfigMap. Raises CheckFailure."""
    config = await cluster.find(CONFIG_MAPS, "linkerd-identity-trust-roots", cluster.namespace)
    text = ((config or {}).get("data") or {}).get("ca-bundle.crt", "")
    if not text.strip():
        raise CheckFailure("ConfigMap linkerd-identity-trust-roots has no ca-bundle.crt")
    return text


async def _issuer(cluster: Cluster) -> x509.Authority:
    values = await cluster.values()
    scheme = ((values.get("identity") or {}).get("issuer") or {}).get("scheme") or "linkerd.io/tls"
    certificate, key = ("tls.crt", "tls.key") if scheme == "kubernetes.io/tls" else ("crt.pem", "key.pem")
    data = await _secret(cluster, "linkerd-identity-issuer", cluster.namespace, (certificate, key))
    return x509.parse_authority(data[certificate], data[key])


async def _secret(cluster: Cluster, name: str, namespace: str, keys: Sequence[str]) -> dict[str, bytes]:
    secret = await cluster.find(SECRETS, name, namespace)
    if secret is None:
        raise CheckFailure(f'secrets "{name}" not found in namespace {namespace}')
    data = secret.get("data") or {}
    absent = [key for key in keys if not data.get(key)]
    if absent:
        raise CheckFailure(f"key {', '.join(absent)} is missing in Secret {namespace}/{name}")
    return {key: base64.b64decode(data[key]) for key in keys}


def _title(certificate: x509.Certificate) -> str:
    names = [str(attribute.value) for attribute in certificate.subject]
    return f"{certificate.serial_number} {names[0] if names else ''}".strip()


def unsupported(certificate: x509.Certificate) -> str:
    """Why no proxy could use a chain with this certificate, empty if all can."""
    key = certificate.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        fine = key.curve.name in ("secp256r1", "secp384r1")
        return "" if fine else f"must use P-256 or P-384 as its curve, was {key.curve.name}"
    if isinstance(key, rsa.RSAPublicKey):
        return "" if key.key_size >= 2048 else f"must use RSA with at least 2048 bits, was {key.key_size}"
    if isinstance(key, ed25519.Ed25519PublicKey):
        return ""
    return f"uses a key of kind {type(key).__name__}, which is not supported"


def out_of_time(certificate: x509.Certificate, now: datetime | None = None) -> str:
    moment = now or datetime.now(UTC)
    if moment > certificate.not_valid_after_utc:
        return f"not valid anymore. Expired on {_time(certificate.not_valid_after_utc)}"
    if moment < certificate.not_valid_before_utc:
        return f"not valid before: {_time(certificate.not_valid_before_utc)}"
    return ""


def ends_soon(certificate: x509.Certificate, now: datetime | None = None) -> str:
    if (now or datetime.now(UTC)) + SOON > certificate.not_valid_after_utc:
        return f"will expire on {_time(certificate.not_valid_after_utc)}"
    return ""


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


# Webhooks

_WEBHOOKS: tuple[tuple[str, Resource, str], ...] = (
    ("proxy-injector", MUTATING_WEBHOOKS, "linkerd-proxy-injector-webhook-config"),
    ("sp-validator", VALIDATING_WEBHOOKS, "linkerd-sp-validator-webhook-config"),
    ("policy-validator", VALIDATING_WEBHOOKS, "linkerd-policy-validator-webhook-config"),
)


def webhooks(cluster: Cluster) -> Category:
    checks: list[Check] = []
    for name, resource, configuration in _WEBHOOKS:
        checks += _webhook_checks(cluster, name, resource, configuration)
    return Category("linkerd-webhooks-and-apisvc-tls", checks)


def _webhook_checks(cluster: Cluster, name: str, resource: Resource, configuration: str) -> list[Check]:
    server = f"linkerd-{name}"

    async def valid() -> None:
        found = await cluster.find(resource, configuration)
        if found is None:
            raise Skipped
        bundle = found["webhooks"][0]["clientConfig"].get("caBundle") or ""
        dns_name = f"{server}.{cluster.namespace}.svc"
        check_server_certificate(await _server_chain(cluster, f"{server}-k8s-tls"), bundle, dns_name)

    async def for_long() -> None:
        if problem := ends_soon((await _server_chain(cluster, f"{server}-k8s-tls"))[0]):
            raise CheckFailure(f"certificate {problem}")

    hint = "run `linkerd upgrade | kubectl apply -f -`, which makes new ones"
    return [
        Check(f"{name} webhook has valid cert", f"l5d-{name}-webhook-cert-valid", valid, hint),
        Check(
            f"{name} cert is valid for at least 60 days",
            f"l5d-{name}-webhook-cert-not-expiring-soon",
            for_long,
            hint,
            Severity.WARNING,
        ),
    ]


async def _server_chain(cluster: Cluster, secret: str, namespace: str = "") -> list[x509.Certificate]:
    return await server_chain(cluster, secret, namespace or cluster.namespace)


async def server_chain(cluster: Cluster, secret: str, namespace: str) -> list[x509.Certificate]:
    """The certificates of a TLS Secret, the server's own first. Raises CheckFailure."""
    data = await _secret(cluster, secret, namespace, ("tls.crt", "tls.key"))
    try:
        chain, key = x509.parse_certificates(data["tls.crt"]), x509.parse_key(data["tls.key"])
    except x509.CertificateError as error:
        raise CheckFailure(f"Secret {namespace}/{secret}: {error}") from error
    if x509.public_bytes(chain[0].public_key()) != x509.public_bytes(key.public_key()):  # type: ignore[arg-type]
        raise CheckFailure(f"Secret {namespace}/{secret}: the key does not belong to the certificate")
    return chain


def check_server_certificate(chain: Sequence[x509.Certificate], ca_bundle: str, dns_name: str) -> None:
    """That the API server, which trusts the bundle (base64 of PEM), would take the chain. Raises CheckFailure."""
    try:
        authorities = x509.parse_certificates(base64.b64decode(ca_bundle))
        x509.verify_chain(chain, authorities, datetime.now(UTC))
    except (x509.CertificateError, ValueError) as error:
        raise CheckFailure(f"certificate is not trusted by the configuration's caBundle: {error}") from error
    names = x509.dns_names(chain[0])
    if dns_name not in names:
        raise CheckFailure(f"certificate is valid for {', '.join(names) or 'no name'}, not {dns_name}")


# Proxies


def data_plane(cluster: Cluster, namespace: str | None) -> Category:
    async def match() -> None:
        expected = (await trust_anchors(cluster)).strip()
        others = [
            name_of(pod)
            for pod in await cluster.meshed_pods(namespace)
            if (variable := proxy_env(pod, "LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS")) is not None
            and "value" in variable
            and variable["value"].strip() != expected
        ]
        if others:
            raise CheckFailure(listed("Some pods do not have the current trust bundle and must be restarted:", others))

    return Category(
        "linkerd-identity-data-plane",
        [
            Check(
                "data plane proxies certificate match CA",
                "l5d-identity-data-plane-proxies-certs-match-ca",
                match,
                "restart these workloads: `kubectl rollout restart`",
                Severity.WARNING,
            )
        ],
    )
