"""Names of workloads in certificates: `<sa>.<ns>.serviceaccount.identity.<control plane ns>.<trust domain>`."""

from __future__ import annotations

from dataclasses import dataclass

_USER_PREFIX = "system:serviceaccount:"


@dataclass(frozen=True, slots=True)
class TrustDomain:
    """What all identities of one control plane end in."""

    control_plane_namespace: str = "linkerd"
    domain: str = "cluster.local"

    def service_account(self, namespace: str, name: str) -> str:
        return f"{name}.{self.namespace_suffix(namespace)}"

    def namespace_suffix(self, namespace: str) -> str:
        """What the identities of all service accounts of a namespace end in."""
        return f"{namespace}.serviceaccount.identity.{self.control_plane_namespace}.{self.domain}"

    def identity_from_user(self, username: str) -> str:
        """The identity of a Kubernetes user. Raises ValueError when it is not a service account."""
        parts = username.removeprefix(_USER_PREFIX).split(":")
        if not username.startswith(_USER_PREFIX) or len(parts) != 2 or not all(parts):
            raise ValueError(f"`{username}` is not a service account")
        return self.service_account(parts[0], parts[1])
