"""The manifests of the control plane: values and certificates in, objects out, in the order to be created."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import yaml

from linkerd.install import objects as k8s
from linkerd.install import webhooks
from linkerd.install.certificates import Credentials, ServerCertificate, new_server_certificate
from linkerd.install.objects import Controller, Marks, Object
from linkerd.install.values import Values
from linkerd.kit.durations import parse_duration

Mesh = Callable[[Object, str, str], Object]
"""Pod template, component (`identity`), Deployment's name → the template with its proxy. It is the injector's pure
function, handed in by the caller."""

CONFIG = "linkerd-config"
OVERRIDES = "linkerd-config-overrides"
TRUST_ROOTS = "linkerd-identity-trust-roots"
ISSUER = "linkerd-identity-issuer"
ANCHOR = "linkerd-identity-anchor"

SERVER_CERTIFICATES = ("linkerd-proxy-injector", "linkerd-sp-validator", "linkerd-policy-validator")
"""Services that the API server calls, each with a certificate in the Secret `<name>-k8s-tls`."""

_POLICY_KINDS = (
    "authorizationpolicies",
    "egressnetworks",
    "httplocalratelimitpolicies",
    "httproutes",
    "meshtlsauthentications",
    "networkauthentications",
    "serverauthorizations",
    "servers",
)
_GATEWAY_KINDS = ("httproutes", "grpcroutes", "tlsroutes", "tcproutes")
_READ = "get list watch"


@dataclass(frozen=True, slots=True)
class Installation:
    """All that the manifests are made of. `values` are complete (defaults merged in)."""

    namespace: str
    values: Values
    credentials: Credentials
    servers: Mapping[str, ServerCertificate]
    overrides: Values
    """What the user set: an upgrade starts from it."""

    @property
    def version(self) -> str:
        return self.values["linkerdVersion"]

    @property
    def trust_domain(self) -> str:
        return self.values["identityTrustDomain"] or self.values["clusterDomain"]


def server_certificates(namespace: str, lifetime: str) -> dict[str, ServerCertificate]:
    """Fresh ones. `lifetime` is a Go duration."""
    delta = timedelta(seconds=parse_duration(lifetime))
    return {name: new_server_certificate(f"{name}.{namespace}.svc", delta) for name in SERVER_CERTIFICATES}


def published_values(installation: Installation) -> Values:
    """What ConfigMap `linkerd-config` says to components and command lines: everything but keys."""
    values = copy.deepcopy(installation.values)
    values["identityTrustAnchorsPEM"] = installation.credentials.anchors
    values["identityTrustDomain"] = installation.trust_domain
    values["identity"]["issuer"]["tls"] = {"crtPEM": installation.credentials.issuer}
    return values


def render(installation: Installation, mesh: Mesh) -> list[Object]:
    plane = _ControlPlane(installation, mesh)
    return [
        plane.namespace(),
        *plane.identity_rights(),
        *plane.destination_rights(),
        *plane.injector_rights(),
        *plane.config(),
        *plane.identity(),
        *plane.destination(),
        *plane.injector(),
        plane.overrides(),
    ]


class _ControlPlane:
    def __init__(self, installation: Installation, mesh: Mesh) -> None:
        self.i = installation
        self.v = installation.values
        self.ns = installation.namespace
        self._mesh = mesh

    # What all objects share

    def metadata(self, name: str, component: str = "", *, namespaced: bool = True) -> Object:
        labels = {"linkerd.io/control-plane-ns": self.ns}
        if component:
            labels["linkerd.io/control-plane-component"] = component
        return Marks(self.ns, labels, self.i.version).metadata(name, namespaced=namespaced)

    def namespace(self) -> Object:
        metadata = self.metadata(self.ns, namespaced=False)
        metadata["labels"] |= {
            "linkerd.io/is-control-plane": "true",
            "config.linkerd.io/admission-webhooks": "disabled",
            # linkerd-init sets rules in the pod's network namespace, which the stricter levels forbid.
            "pod-security.kubernetes.io/enforce": "privileged",
        }
        metadata["annotations"]["linkerd.io/inject"] = "disabled"
        return k8s.namespace(metadata)

    def account(self, name: str, component: str) -> Object:
        return k8s.service_account(self.metadata(name, component))

    def cluster_rights(self, name: str, component: str, account: str, rules: list[Object]) -> list[Object]:
        role_name = f"linkerd-{self.ns}-{name}"
        return [
            k8s.cluster_role(self.metadata(role_name, component, namespaced=False), rules),
            k8s.cluster_role_binding(
                self.metadata(role_name, component, namespaced=False), role_name, account, self.ns
            ),
        ]

    def controller(
        self,
        component: str,
        args: list[str],
        ports: dict[str, int],
        resources: str,
        mounts: dict[str, str] | None = None,
    ) -> Object:
        return Controller(
            name=component,
            image=f"{self.v['controllerImage']}:{self.i.version}",
            pull_policy=self.v["imagePullPolicy"],
            args=(component, *args),
            ports=ports,
            uid=int(self.v["controllerUID"]),
            resources=self.v[resources],
            mounts=mounts or {},
        ).container()

    def deployment(
        self,
        component: str,
        containers: list[Object],
        volumes: list[Object],
        annotations: dict[str, str] | None = None,
    ) -> list[Object]:
        name = f"linkerd-{component}"
        selector = {
            "linkerd.io/control-plane-component": component,
            "linkerd.io/control-plane-ns": self.ns,
            "linkerd.io/proxy-deployment": name,
        }
        spec: Object = {
            "serviceAccountName": name,
            "nodeSelector": self.v["nodeSelector"],
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "containers": containers,
            "volumes": volumes,
        }
        for key in ("tolerations", "imagePullSecrets"):
            if self.v[key]:
                spec[key] = self.v[key]
        if self.v["highAvailability"]:
            spec["affinity"] = k8s.spread({"linkerd.io/control-plane-component": component})
        ports = self.v["proxyInit"]["kubeAPIServerPorts"]
        template = {
            "metadata": {
                "labels": {**selector, "linkerd.io/workload-ns": self.ns},
                "annotations": {"config.linkerd.io/skip-outbound-ports": ports, **(annotations or {})},
            },
            "spec": spec,
        }
        metadata = self.metadata(name, component)
        metadata["labels"] |= {
            "app.kubernetes.io/name": component,
            "app.kubernetes.io/part-of": "Linkerd",
            "app.kubernetes.io/version": self.i.version,
        }
        replicas = int(self.v["controllerReplicas"])
        found = [k8s.deployment(metadata, selector, self._mesh(template, component, name), replicas)]
        if self.v["highAvailability"]:
            found.append(k8s.disruption_budget(self.metadata(name, component), selector))
        return found

    def service(self, name: str, component: str, *ports: Object, headless: bool = False) -> Object:
        selector = {"linkerd.io/control-plane-component": component}
        return k8s.service(self.metadata(name, component), selector, ports, headless=headless)

    def tls_secret(self, server: str, component: str) -> Object:
        certificate = self.i.servers[server]
        metadata = self.metadata(f"{server}-k8s-tls", component)
        return webhooks.tls_secret(metadata, certificate.certificate, certificate.key)

    def webhook(self, name: str, server: str, rules: list[Object], **more: Any) -> Object:
        authority = self.i.servers[server].authority
        return webhooks.webhook(name, server, self.ns, authority, rules, self.v["webhookFailurePolicy"], **more)

    # Rights

    def identity_rights(self) -> list[Object]:
        account = "linkerd-identity"
        return [
            self.account(account, "identity"),
            *self.renewal_rights(account),
            *self.cluster_rights(
                "identity",
                "identity",
                account,
                [
                    k8s.rule("authentication.k8s.io", "tokenreviews", "create"),
                    k8s.rule("core", "events", "create patch"),
                ],
            ),
        ]

    def renewal_rights(self, account: str) -> list[Object]:
        """To look after issuer and anchor, where the anchor's key is in the cluster."""
        if not self.i.credentials.anchor:
            return []
        name = "linkerd-identity-renewal"
        rules = [
            k8s.rule("core", "secrets", "get patch", f"{ANCHOR} {ISSUER}"),
            k8s.rule("core", "configmaps", "get patch", TRUST_ROOTS),
        ]
        subjects = [k8s.account_subject(account, self.ns)]
        return [
            k8s.role(self.metadata(name, "identity"), rules),
            k8s.role_binding(self.metadata(name, "identity"), name, subjects),
        ]

    def destination_rights(self) -> list[Object]:
        account = "linkerd-destination"
        return [
            self.account(account, "destination"),
            *self.cluster_rights("destination", "destination", account, _DESTINATION_RULES),
            *self.cluster_rights("policy", "destination", account, _POLICY_RULES),
            self.tls_secret("linkerd-sp-validator", "destination"),
            self.profile_validator(),
            self.tls_secret("linkerd-policy-validator", "destination"),
            self.policy_validator(),
        ]

    def profile_validator(self) -> Object:
        changes = ("CREATE", "UPDATE")
        rules = [webhooks.webhook_rule("linkerd.io", ("v1alpha1", "v1alpha2"), ("serviceprofiles",), changes)]
        webhook = self.webhook(
            "linkerd-sp-validator.linkerd.io",
            "linkerd-sp-validator",
            rules,
            namespaceSelector=webhooks.namespace_selector(),
        )
        metadata = self.metadata("linkerd-sp-validator-webhook-config", "destination", namespaced=False)
        return webhooks.validating(metadata, webhook)

    def policy_validator(self) -> Object:
        changes = ("CREATE", "UPDATE")
        rules = [
            webhooks.webhook_rule("policy.linkerd.io", ("*",), _POLICY_KINDS, changes),
            webhooks.webhook_rule("gateway.networking.k8s.io", ("*",), _GATEWAY_KINDS, changes),
        ]
        webhook = self.webhook(
            "linkerd-policy-validator.linkerd.io",
            "linkerd-policy-validator",
            rules,
            namespaceSelector=webhooks.namespace_selector(),
        )
        metadata = self.metadata("linkerd-policy-validator-webhook-config", "destination", namespaced=False)
        return webhooks.validating(metadata, webhook)

    def injector_rights(self) -> list[Object]:
        account = "linkerd-proxy-injector"
        return [
            self.account(account, "proxy-injector"),
            *self.cluster_rights(
                "proxy-injector",
                "proxy-injector",
                account,
                [
                    k8s.rule("core", "namespaces pods", _READ),
                    k8s.rule("batch", "jobs", "get"),
                    k8s.rule("core", "events", "create patch"),
                ],
            ),
            self.tls_secret("linkerd-proxy-injector", "proxy-injector"),
            self.pod_webhook(),
        ]

    def pod_webhook(self) -> Object:
        rules = [webhooks.webhook_rule("", ("v1",), ("pods", "services"), ("CREATE",))]
        webhook = self.webhook(
            "linkerd-proxy-injector.linkerd.io",
            "linkerd-proxy-injector",
            rules,
            namespaceSelector=webhooks.namespace_selector(self.v["proxyInjector"]["excludedNamespaces"]),
            objectSelector={
                "matchExpressions": [
                    {"key": "linkerd.io/control-plane-component", "operator": "DoesNotExist"},
                    {"key": "linkerd.io/cni-resource", "operator": "DoesNotExist"},
                ]
            },
        )
        webhook["sideEffects"] = "NoneOnDryRun"  # Events
        metadata = self.metadata("linkerd-proxy-injector-webhook-config", "proxy-injector", namespaced=False)
        return webhooks.mutating(metadata, webhook)

    # Configuration

    def config(self) -> list[Object]:
        text = yaml.safe_dump(published_values(self.i), sort_keys=True, width=120)
        reader = "ext-namespace-metadata-linkerd-config"
        return [
            k8s.config_map(self.metadata(CONFIG, "controller"), {"values": text}),
            k8s.role(self.metadata(reader), [k8s.rule("core", "configmaps", "get", CONFIG)]),
        ]

    def overrides(self) -> Object:
        text = yaml.safe_dump(self.i.overrides, sort_keys=True)
        return k8s.secret(self.metadata(OVERRIDES), {OVERRIDES: text})

    # Components

    def identity(self) -> list[Object]:
        issuer = self.v["identity"]["issuer"]
        container = self.controller(
            "identity",
            [
                f"--log-level={self.v['controllerLogLevel']}",
                f"--controller-namespace={self.ns}",
                f"--identity-trust-domain={self.i.trust_domain}",
                f"--identity-issuance-lifetime={issuer['issuanceLifetime']}",
                f"--identity-clock-skew-allowance={issuer['clockSkewAllowance']}",
                f"--identity-scheme={issuer['scheme']}",
                f"--identity-renewal={str(bool(self.i.credentials.anchor)).lower()}",
            ],
            {"ident-grpc": 8080, "ident-admin": 9990},
            "identityResources",
            {
                "identity-issuer": "/var/run/linkerd/identity/issuer",
                "trust-roots": "/var/run/linkerd/identity/trust-roots",
            },
        )
        volumes = [
            k8s.secret_volume("identity-issuer", ISSUER),
            k8s.config_map_volume("trust-roots", TRUST_ROOTS),
        ]
        port = k8s.service_port("grpc", 8080)
        found = [
            k8s.config_map(self.metadata(TRUST_ROOTS, "identity"), {"ca-bundle.crt": self.i.credentials.anchors}),
            self.service("linkerd-identity", "identity", port),
            self.service("linkerd-identity-headless", "identity", port, headless=True),
            *self.deployment("identity", [container], volumes),
        ]
        if self.v["identity"]["externalCA"]:
            return found
        anchor = self.i.credentials.anchor
        held = [k8s.secret(self.metadata(ANCHOR, "identity"), anchor)] if anchor else []
        return [*held, self.issuer_secret(), *found]

    def issuer_secret(self) -> Object:
        scheme, credentials = self.v["identity"]["issuer"]["scheme"], self.i.credentials
        metadata = self.metadata(ISSUER, "identity")
        if scheme == "kubernetes.io/tls":
            data = {"tls.crt": credentials.issuer, "tls.key": credentials.issuer_key, "ca.crt": credentials.anchors}
            return k8s.secret(metadata, data, "kubernetes.io/tls")
        return k8s.secret(metadata, {"crt.pem": credentials.issuer, "key.pem": credentials.issuer_key})

    def destination(self) -> list[Object]:
        volumes = [
            k8s.secret_volume("sp-tls", "linkerd-sp-validator-k8s-tls"),
            k8s.secret_volume("policy-tls", "linkerd-policy-validator-k8s-tls"),
        ]
        containers = [self.destination_container(), self.validator_container(), self.policy_container()]
        grpc = k8s.service_port("grpc", 8086)
        policy = k8s.service_port("grpc", 8090)
        return [
            self.service("linkerd-dst", "destination", grpc),
            self.service("linkerd-dst-headless", "destination", grpc, headless=True),
            self.service("linkerd-sp-validator", "destination", k8s.service_port("sp-validator", 443, "sp-validator")),
            self.service("linkerd-policy", "destination", policy, headless=True),
            self.service(
                "linkerd-policy-validator", "destination", k8s.service_port("policy-https", 443, "policy-https")
            ),
            *self.deployment(
                "destination",
                containers,
                volumes,
                {
                    "config.linkerd.io/opaque-ports": "8443,9443",
                    "kubectl.kubernetes.io/default-container": "destination",
                },
            ),
        ]

    def destination_container(self) -> Object:
        return self.controller(
            "destination",
            [
                f"--log-level={self.v['controllerLogLevel']}",
                f"--controller-namespace={self.ns}",
                f"--cluster-domain={self.v['clusterDomain']}",
                f"--identity-trust-domain={self.i.trust_domain}",
                f"--default-opaque-ports={self.v['proxy']['opaquePorts']}",
            ],
            {"dest-grpc": 8086, "dest-admin": 9996},
            "destinationResources",
        )

    def validator_container(self) -> Object:
        return self.controller(
            "sp-validator",
            [f"--log-level={self.v['controllerLogLevel']}"],
            {"sp-validator": 8443, "spval-admin": 9997},
            "spValidatorResources",
            {"sp-tls": "/var/run/linkerd/tls"},
        )

    def policy_container(self) -> Object:
        return self.controller(
            "policy",
            [
                f"--log-level={self.v['policyController']['logLevel']}",
                f"--control-plane-namespace={self.ns}",
                f"--cluster-domain={self.v['clusterDomain']}",
                f"--identity-domain={self.i.trust_domain}",
                f"--cluster-networks={self.v['clusterNetworks']}",
                f"--default-policy={self.v['proxy']['defaultInboundPolicy']}",
                f"--default-opaque-ports={self.v['proxy']['opaquePorts']}",
                f"--probe-networks={','.join(self.v['policyController']['probeNetworks'])}",
            ],
            {"policy-grpc": 8090, "policy-admin": 9990, "policy-https": 9443},
            "policyControllerResources",
            {"policy-tls": "/var/run/linkerd/tls"},
        )

    def injector(self) -> list[Object]:
        container = self.controller(
            "proxy-injector",
            [f"--log-level={self.v['controllerLogLevel']}", f"--linkerd-namespace={self.ns}"],
            {"proxy-injector": 8443, "injector-admin": 9995},
            "proxyInjectorResources",
            {
                "config": "/var/run/linkerd/config",
                "trust-roots": "/var/run/linkerd/identity/trust-roots",
                "tls": "/var/run/linkerd/tls",
            },
        )
        volumes = [
            k8s.config_map_volume("config", CONFIG),
            k8s.config_map_volume("trust-roots", TRUST_ROOTS),
            k8s.secret_volume("tls", "linkerd-proxy-injector-k8s-tls"),
        ]
        port = k8s.service_port("proxy-injector", 443, "proxy-injector")
        return [
            self.service("linkerd-proxy-injector", "proxy-injector", port),
            *self.deployment("proxy-injector", [container], volumes, {"config.linkerd.io/opaque-ports": "8443"}),
        ]


_DESTINATION_RULES = [
    k8s.rule("core", "pods services nodes namespaces", _READ),
    k8s.rule("discovery.k8s.io", "endpointslices", _READ),
    k8s.rule("linkerd.io", "serviceprofiles", _READ),
    k8s.rule("split.smi-spec.io", "trafficsplits", _READ),
    k8s.rule("policy.linkerd.io", "servers", _READ),
    k8s.rule("workload.linkerd.io", "externalworkloads", _READ),
]

_POLICY_RULES = [
    k8s.rule("core", "pods services namespaces", _READ),
    k8s.rule("policy.linkerd.io", " ".join(_POLICY_KINDS), _READ),
    k8s.rule("policy.linkerd.io", "httproutes/status egressnetworks/status httplocalratelimitpolicies/status", "patch"),
    k8s.rule("gateway.networking.k8s.io", " ".join(_GATEWAY_KINDS), _READ),
    k8s.rule("gateway.networking.k8s.io", " ".join(f"{kind}/status" for kind in _GATEWAY_KINDS), "patch"),
    k8s.rule("workload.linkerd.io", "externalworkloads", _READ),
]
