"""The webhook configurations of the control plane."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

from linkerd.install.objects import Object, secret

_ADMISSION = "admissionregistration.k8s.io/v1"


def tls_secret(metadata: Object, certificate: str, key: str) -> Object:
    return secret(metadata, {"tls.crt": certificate, "tls.key": key}, "kubernetes.io/tls")


def ca_bundle(authority: str) -> str:
    return base64.b64encode(authority.encode()).decode()


def webhook_rule(group: str, versions: Iterable[str], resources: Iterable[str], operations: Iterable[str]) -> Object:
    return {
        "apiGroups": [group],
        "apiVersions": list(versions),
        "resources": list(resources),
        "operations": list(operations),
        "scope": "Namespaced",
    }


def namespace_selector(excluded: Iterable[str] = ()) -> Object:
    """All namespaces but those that opted out (the control plane's among them) and the excluded ones."""
    expressions: list[Object] = [
        {"key": "config.linkerd.io/admission-webhooks", "operator": "NotIn", "values": ["disabled"]}
    ]
    if names := list(excluded):
        expressions.append({"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": names})
    return {"matchExpressions": expressions}


def mutating(metadata: Object, webhook: Object) -> Object:
    return {
        "apiVersion": _ADMISSION,
        "kind": "MutatingWebhookConfiguration",
        "metadata": metadata,
        "webhooks": [webhook],
    }


def validating(metadata: Object, webhook: Object) -> Object:
    return {
        "apiVersion": _ADMISSION,
        "kind": "ValidatingWebhookConfiguration",
        "metadata": metadata,
        "webhooks": [webhook],
    }


def webhook(
    name: str, service: str, namespace: str, authority: str, rules: list[Object], failure_policy: str, **more: Any
) -> Object:
    """A webhook that answers at `/` of a Service's port 443."""
    return {
        "name": name,
        "admissionReviewVersions": ["v1"],
        "clientConfig": {
            "caBundle": ca_bundle(authority),
            "service": {"name": service, "namespace": namespace, "path": "/", "port": 443},
        },
        "rules": rules,
        "failurePolicy": failure_policy,
        "sideEffects": "None",
        "timeoutSeconds": 10,
        **more,
    }
