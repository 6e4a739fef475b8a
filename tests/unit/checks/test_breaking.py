"""Each check, by a cluster that is broken just there: that check fails, names the object, and nothing else does.

What a break must spoil besides (an issuer that has expired will also expire soon) is said with it. The exit code of
`linkerd check` follows from the report.
"""

from __future__ import annotations

import asyncio
import base64
import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from linkerd import VERSION
from linkerd.checks import certificates, control_plane, data_plane, kubernetes, viz
from linkerd.checks.cluster import Cluster
from linkerd.checks.data_plane import Connections, PlainPair
from linkerd.checks.model import Outcome, Report
from linkerd.checks.runner import Runner
from linkerd.cli.rendering import complete_values
from linkerd.install import crds
from linkerd.install.certificates import new_server_certificate
from linkerd.install.viz import VizInstallation, render
from linkerd.k8s.errors import Forbidden
from linkerd.k8s.resources import CLUSTER_ROLES
from linkerd.kit import x509
from support.fake_cluster import FakeReader

CONTROL_PLANE = {"linkerd.io/control-plane-ns": "linkerd"}


@dataclass
class Rig:
    """A healthy mesh, to be broken in one place."""

    reader: FakeReader
    anchors: str
    plain: tuple[PlainPair, ...] = ()
    self_check: list[str] = field(default_factory=list)
    unscraped: set[str] = field(default_factory=set)

    def find(self, kind: str, name: str) -> dict:
        """A copy in the cluster, to be broken: the objects are shared by all tests."""
        for index, obj in enumerate(self.reader.objects):
            if (obj["kind"], obj["metadata"]["name"]) == (kind, name):
                self.reader.objects[index] = copy.deepcopy(obj)
                return self.reader.objects[index]
        raise LookupError(f"{kind}/{name}")

    def names(self, kind: str) -> list[str]:
        return [o["metadata"]["name"] for o in self.reader.objects if o["kind"] == kind]

    def remove(self, kind: str, name: str) -> None:
        self.reader.objects.remove(self.find(kind, name))

    def add(self, kind: str, name: str, namespace: str | None = None, **more) -> None:
        metadata = {"name": name} | ({"namespace": namespace} if namespace else {}) | more.pop("metadata", {})
        self.reader.objects.append({"kind": kind, "metadata": metadata, "spec": {}, "status": {}} | more)

    def deny(self, verb: str, plural: str) -> None:
        self.reader.denied.add(({"read": "get"}.get(verb, verb), plural))

    def set_values(self, text: str) -> None:
        self.find("ConfigMap", "linkerd-config")["data"]["values"] += text

    def secret(self, name: str, **data: str) -> None:
        found = self.find("Secret", name).setdefault("data", {})
        found |= {key.replace("_", "."): encoded(value) for key, value in data.items()}

    # What the commands would run

    async def report(self, categories: list) -> Report:
        report = Report()
        runner = Runner(asyncio.get_running_loop().time(), lambda: None, lambda _: None)
        async for result in runner.run(categories):
            report.results.append(result)
        return report

    def cluster(self) -> Cluster:
        return Cluster(self.reader, "linkerd")

    def check_proxy(self) -> list:
        """`linkerd check --proxy`, viz included, and what `check` has besides."""
        cluster = self.cluster()
        return [
            *kubernetes.reachable(cluster),
            control_plane.existence(cluster),
            control_plane.configuration(cluster, crds.VERSIONS),
            certificates.identity(cluster),
            certificates.webhooks(cluster),
            certificates.data_plane(cluster, None),
            control_plane.versions(cluster, VERSION),
            control_plane.proxies(cluster, VERSION),
            data_plane.mutual_tls(cluster, None, self._connections),
            data_plane.data_plane(cluster, None, VERSION),
            control_plane.high_availability(cluster),
            control_plane.extensions(cluster),
            viz.viz(cluster, "linkerd-viz", VERSION, self._self_check, self._scraped),
            viz.data_plane(cluster, None, self._scraped),
        ]

    def check_pre(self) -> list:
        roles = [(CLUSTER_ROLES, {"metadata": {"name": "linkerd-linkerd-identity"}})]
        return [*kubernetes.reachable(self.cluster()), kubernetes.before_installation(self.cluster(), roles)]

    async def _connections(self, pods: list) -> Connections:
        return Connections(len(pods), self.plain)

    async def _self_check(self) -> list[str]:
        return self.self_check

    async def _scraped(self, namespace: str | None) -> set[str]:
        pods = [o["metadata"] for o in self.reader.objects if o["kind"] == "Pod"]
        return {f"{m['namespace']}/{m['name']}" for m in pods} - self.unscraped


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def running(name: str, namespace: str, template: dict, ip: str, labels: dict) -> dict:
    statuses = [{"name": c["name"], "ready": True} for c in template["containers"]]
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    status = {"phase": "Running", "podIP": ip, "containerStatuses": statuses}
    return {"kind": "Pod", "metadata": metadata, "spec": template, "status": status}


def front_proxy_config() -> dict:
    metadata = {"name": "extension-apiserver-authentication", "namespace": "kube-system"}
    return {"kind": "ConfigMap", "metadata": metadata, "data": {"requestheader-client-ca-file": "PEM"}}


def proxy(anchors: str, version: str = VERSION) -> dict:
    env = [{"name": "LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS", "value": anchors}]
    return {"name": "linkerd-proxy", "image": f"proxy:{version}", "env": env}


@pytest.fixture(scope="session")
def viz_documents():
    certificate = new_server_certificate("tap.linkerd-viz.svc", timedelta(days=365))
    documents = render(VizInstallation("linkerd-viz", complete_values({}, "viz_values.yaml"), certificate))
    service = next(d for d in documents if d["kind"] == "APIService")
    service["status"] = {"conditions": [{"type": "Available", "status": "True"}]}
    return documents


@pytest.fixture
def rig(reader, installation_documents, viz_documents):
    reader.objects += viz_documents
    found = Rig(reader, "")
    found.anchors = found.find("ConfigMap", "linkerd-identity-trust-roots")["data"]["ca-bundle.crt"]
    for number, deployment in enumerate(d for d in viz_documents if d["kind"] == "Deployment"):
        template = copy.deepcopy(deployment["spec"]["template"])
        template["spec"]["containers"].insert(0, proxy(found.anchors))
        labels = template["metadata"]["labels"] | CONTROL_PLANE
        name = deployment["metadata"]["name"]
        reader.objects.append(running(name, "linkerd-viz", template["spec"], f"10.244.1.{number + 2}", labels))
    app = {"containers": [proxy(found.anchors), {"name": "app", "ports": [{"containerPort": 8080}]}]}
    reader.objects.append(running("web", "shop", app, "10.244.2.2", {"app": "web"} | CONTROL_PLANE))
    found.add("Namespace", "shop")
    spec = {"selector": {"app": "web"}, "ports": [{"port": 8080}], "clusterIP": "10.96.3.4"}
    found.add("Service", "web", "shop", spec=spec)
    return found


# How to break things


def with_anchors(rig: Rig, text: str) -> None:
    """In the ConfigMap, and in every proxy."""
    rig.find("ConfigMap", "linkerd-identity-trust-roots")["data"]["ca-bundle.crt"] = text
    for name in rig.names("Pod"):
        for container in rig.find("Pod", name)["spec"]["containers"]:
            for variable in container.get("env") or []:
                if variable["name"] == "LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS":
                    variable |= {"value": text}


def with_other_root(rig: Rig) -> None:
    with_anchors(rig, x509.certificate_pem(x509.new_root("other", timedelta(days=100)).certificate))


def with_credentials(rig: Rig, root: x509.Authority, issuer: x509.Authority) -> None:
    """Everywhere, so that only they themselves can be wrong."""
    with_anchors(rig, x509.certificate_pem(root.certificate))
    issuer_pem, key_pem = x509.certificate_pem(issuer.certificate), x509.key_pem(issuer.key)
    rig.secret("linkerd-identity-issuer", crt_pem=issuer_pem, key_pem=key_pem)


def certificates_of(root_days: float, issuer_days: float, *, age_days: float = 0) -> Callable[[Rig], None]:
    def break_it(rig: Rig) -> None:
        began = datetime.now(UTC) - timedelta(days=age_days)
        root = x509.new_root("root", timedelta(days=root_days), now=began)
        issuer = x509.new_issuer("issuer", root, timedelta(days=issuer_days), now=began)
        with_credentials(rig, root, issuer)

    return break_it


def with_odd_key(of: str) -> Callable[[Rig], None]:
    """A root or an issuer whose key is of a curve that is not supported."""

    def break_it(rig: Rig) -> None:
        made = x509.new_key
        keys = iter([of == "root", of == "issuer"])
        x509.new_key = lambda: ec.generate_private_key(ec.SECP521R1()) if next(keys) else made()
        try:
            root = x509.new_root("root", timedelta(days=900))
            issuer = x509.new_issuer("issuer", root, timedelta(days=400))
        finally:
            x509.new_key = made
        with_credentials(rig, root, issuer)

    return break_it


def server_certificate(secret: str, service: str, configuration: tuple[str, str], days: float) -> Callable[[Rig], None]:
    def break_it(rig: Rig) -> None:
        made = new_server_certificate(service, timedelta(days=days))
        rig.secret(secret, tls_crt=made.certificate, tls_key=made.key)
        found = rig.find(*configuration)
        client = found["webhooks"][0]["clientConfig"] if "webhooks" in found else found["spec"]
        client["caBundle"] = encoded(made.authority)

    return break_it


WEBHOOKS = {
    "proxy-injector": ("MutatingWebhookConfiguration", "linkerd-proxy-injector-webhook-config"),
    "sp-validator": ("ValidatingWebhookConfiguration", "linkerd-sp-validator-webhook-config"),
    "policy-validator": ("ValidatingWebhookConfiguration", "linkerd-policy-validator-webhook-config"),
}


def status_of(pod: str, container: str, **changes) -> Callable[[Rig], None]:
    def break_it(rig: Rig) -> None:
        statuses = rig.find("Pod", pod)["status"]["containerStatuses"]
        next(status for status in statuses if status["name"] == container).update(changes)

    return break_it


def image_of(pod: str, version: str) -> Callable[[Rig], None]:
    def break_it(rig: Rig) -> None:
        containers = rig.find("Pod", pod)["spec"]["containers"]
        next(c for c in containers if c["name"] == "linkerd-proxy")["image"] = f"proxy:{version}"

    return break_it


def remove(kind: str, name: str) -> Callable[[Rig], None]:
    return lambda rig: rig.remove(kind, name)


@dataclass(frozen=True)
class Break:
    """What is done, which check tells, what it must say; `also` fail because of it, `fine`: it is a warning only."""

    description: str
    do: Callable[[Rig], object]
    says: str
    also: tuple[str, ...] = ()
    fine: bool = False
    pre: bool = False


OLD = "stable-0.0.1"
VIZ = "viz extension"
CP = "control plane"
UNREACHABLE = ConnectionRefusedError("connection refused")


def unreachable(rig: Rig) -> None:
    async def request(method: str, path: str):
        raise UNREACHABLE

    rig.reader.request = request


BREAKS = [
    Break("can query the Kubernetes API", unreachable, "connection refused"),
    Break(
        "is running the minimum Kubernetes API version",
        lambda rig: setattr(rig.reader, "version", "v1.20.0"),
        "v1.20.0",
    ),
    # before an installation
    Break(
        "control plane namespace does not already exist",
        lambda rig: rig.add("Namespace", "linkerd"),
        '"linkerd"',
        pre=True,
    ),
    Break(
        "can create non-namespaced resources",
        lambda rig: rig.reader.refused.update({"ClusterRole": Forbidden(403, "Forbidden", "you may not")}),
        "ClusterRole/linkerd-linkerd-identity: you may not",
        pre=True,
    ),
    *(
        Break(
            f"can {verb} {title}",
            lambda rig, title=title, verb=verb: rig.deny(verb, title.lower()),
            title.lower(),
            pre=True,
        )
        for verb, title in (
            ("create", "ServiceAccounts"),
            ("create", "Services"),
            ("create", "Deployments"),
            ("create", "ConfigMaps"),
            ("create", "Secrets"),
            ("read", "Secrets"),
        )
    ),
    Break(
        "can read extension-apiserver-authentication configmap",
        remove("ConfigMap", "extension-apiserver-authentication"),
        "kube-system/extension-apiserver-authentication",
        pre=True,
    ),
    Break(
        "no clock skew detected",
        lambda rig: rig.find("Node", "node-1")["status"].update(
            conditions=[{"type": "Ready", "status": "True", "lastHeartbeatTime": "2020-01-01T00:00:00Z"}]
        ),
        "node-1: last heartbeat",
        fine=True,
        pre=True,
    ),
    # existence
    Break("'linkerd-config' config map exists", remove("ConfigMap", "linkerd-config"), '"linkerd-config" not found'),
    Break(
        "control plane replica sets are ready",
        lambda rig: rig.add(
            "ReplicaSet",
            "linkerd-identity-1",
            "linkerd",
            status={"conditions": [{"type": "ReplicaFailure", "status": "True", "message": "quota"}]},
        ),
        "linkerd/linkerd-identity-1: quota",
    ),
    Break(
        "no unschedulable pods",
        lambda rig: rig.find("Pod", "linkerd-identity")["status"].update(
            conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}]
        ),
        "linkerd/linkerd-identity: 0/1 nodes",
        fine=True,
    ),
    Break(
        "control plane pods are ready",
        status_of("linkerd-destination", "destination", ready=False, state={"waiting": {"reason": "CrashLoopBackOff"}}),
        "pod/linkerd-destination container destination is not ready (destination: CrashLoopBackOff)",
    ),
    Break(
        "cluster networks contains all node podCIDRs",
        lambda rig: rig.find("Node", "node-1")["spec"].update(podCIDR="11.0.0.0/16"),
        "11.0.0.0/16",
    ),
    Break(
        "cluster networks contains all pods",
        lambda rig: rig.find("Pod", "web")["status"].update(podIP="11.0.0.9"),
        "shop/web (11.0.0.9)",
    ),
    Break(
        "cluster networks contains all services",
        lambda rig: rig.find("Service", "web")["spec"].update(clusterIP="11.1.1.1"),
        "shop/web (11.1.1.1)",
    ),
    # configuration
    Break("control plane Namespace exists", remove("Namespace", "linkerd"), '"linkerd" namespace does not exist'),
    *(
        Break(f"control plane {kind}s exist", remove(kind, name), name)
        for kind, name in (
            ("ClusterRole", "linkerd-linkerd-identity"),
            ("ClusterRoleBinding", "linkerd-linkerd-proxy-injector"),
            ("ServiceAccount", "linkerd-destination"),
            ("CustomResourceDefinition", "servers.policy.linkerd.io"),
            ("MutatingWebhookConfiguration", "linkerd-proxy-injector-webhook-config"),
            ("ValidatingWebhookConfiguration", "linkerd-sp-validator-webhook-config"),
        )
    ),
    # identity
    Break(
        "certificate config is valid",
        lambda rig: rig.secret("linkerd-identity-issuer", key_pem=x509.key_pem(x509.new_key())),
        "the private key does not belong to the certificate",
    ),
    Break("trust anchors are using supported crypto algorithm", with_odd_key("root"), "P-256 or P-384"),
    Break(
        "trust anchors are within their validity period",
        certificates_of(root_days=5, issuer_days=300, age_days=10),
        "not valid anymore",
    ),
    Break(
        "trust anchors are valid for at least 60 days",
        certificates_of(root_days=30, issuer_days=300),
        "will expire on",
        fine=True,
    ),
    Break("issuer cert is using supported crypto algorithm", with_odd_key("issuer"), "P-256 or P-384"),
    Break(
        "issuer cert is within its validity period",
        certificates_of(root_days=300, issuer_days=5, age_days=10),
        "not valid anymore",
    ),
    Break(
        "issuer cert is valid for at least 60 days",
        certificates_of(root_days=300, issuer_days=30),
        "will expire on",
        fine=True,
    ),
    Break("issuer cert is issued by the trust anchor", with_other_root, "is not signed by any"),
    # webhooks
    *(
        Break(f"{name} webhook has valid cert", remove("Secret", f"linkerd-{name}-k8s-tls"), f"linkerd-{name}-k8s-tls")
        for name in WEBHOOKS
    ),
    *(
        Break(
            f"{name} cert is valid for at least 60 days",
            server_certificate(f"linkerd-{name}-k8s-tls", f"linkerd-{name}.linkerd.svc", configuration, 30),
            "will expire on",
            fine=True,
        )
        for name, configuration in WEBHOOKS.items()
    ),
    Break(
        "data plane proxies certificate match CA",
        lambda rig: rig.find("Pod", "web")["spec"]["containers"][0]["env"][0].update(value="OLD"),
        "shop/web",
        fine=True,
    ),
    # versions
    Break(
        "can retrieve the control plane version",
        lambda rig: rig.set_values('\nlinkerdVersion: ""\n'),
        "linkerdVersion",
    ),
    Break(
        "control plane and cli versions match",
        lambda rig: (
            rig.set_values(f"\nlinkerdVersion: {OLD}\n"),
            [image_of(name, OLD)(rig) for name in rig.names("Pod")],
        ),
        f"control plane running {OLD}",
        also=(
            "control plane proxies and cli versions match",
            "data plane and cli versions match",
            "viz extension proxies and cli versions match",
        ),
        fine=True,
    ),
    *(
        Break(
            f"{subject} {plural} up-to-date",
            image_of(pod, OLD),
            f"{where} ({OLD})",
            also=(f"{subject} and cli versions match",),
            fine=True,
        )
        for subject, plural, pod, where in (
            ("control plane proxies", "are", "linkerd-identity", "linkerd/linkerd-identity"),
            ("data plane", "is", "web", "shop/web"),
            ("viz extension proxies", "are", "tap", "linkerd-viz/tap"),
        )
    ),
    Break(
        "control plane proxies are healthy",
        lambda rig: rig.add(
            "Pod",
            "linkerd-identity-2",
            "linkerd",
            metadata={"labels": CONTROL_PLANE},
            spec={"containers": [proxy(rig.anchors)]},
            status={"phase": "Running", "containerStatuses": [{"name": "linkerd-proxy", "ready": False}]},
        ),
        "linkerd/linkerd-identity-2",
    ),
    # the data plane
    Break(
        "connections between meshed pods use mTLS",
        lambda rig: setattr(rig, "plain", (PlainPair("shop/web", "shop/db", "port_skipped"),)),
        "shop/web -> shop/db: port_skipped",
        fine=True,
    ),
    Break("data plane proxies are ready", status_of("web", "linkerd-proxy", ready=False), '"shop/web" is not ready'),
    Break(
        "pods that ask for a proxy have one",
        lambda rig: rig.add(
            "Pod",
            "bare",
            "shop",
            metadata={"annotations": {"linkerd.io/inject": "enabled"}},
            spec={"containers": [{"name": "app"}]},
            status={"phase": "Running"},
        ),
        "shop/bare",
        fine=True,
    ),
    Break(
        "data plane pod labels are configured correctly",
        lambda rig: rig.find("Pod", "web")["metadata"]["labels"].update({"linkerd.io/inject": "enabled"}),
        "shop/web: linkerd.io/inject",
        fine=True,
    ),
    Break(
        "data plane service labels are configured correctly",
        lambda rig: rig.add(
            "Service", "x", "shop", metadata={"labels": {"config.linkerd.io/skip-outbound-ports": "1"}}
        ),
        "shop/x: config.linkerd.io/skip-outbound-ports",
        fine=True,
    ),
    Break(
        "data plane service annotations are configured correctly",
        lambda rig: rig.add("Service", "x", "shop", metadata={"annotations": {"mirror.linkerd.io/exported": "true"}}),
        "shop/x",
        fine=True,
    ),
    Break(
        "opaque ports are properly annotated",
        lambda rig: rig.find("Pod", "web")["metadata"].update(annotations={"config.linkerd.io/opaque-ports": "8080"}),
        "pod shop/web has the opaque port 8080, but service shop/web not",
        fine=True,
    ),
    Break(
        "multiple replicas of control plane pods",
        lambda rig: (
            rig.set_values("\nhighAvailability: true\n"),
            [
                rig.find("Deployment", name).update(
                    status={"availableReplicas": 1 if name == "linkerd-identity" else 3}
                )
                for name in rig.names("Deployment")
            ],
        ),
        "linkerd-identity (1 available)",
        fine=True,
    ),
    Break(
        "namespace configuration for extensions",
        lambda rig: rig.add("Namespace", "twice", metadata={"labels": {"linkerd.io/extension": "viz"}}),
        "viz: linkerd-viz, twice",
        fine=True,
    ),
    # viz
    Break(
        "linkerd-viz Namespace exists",
        lambda rig: rig.find("Namespace", "linkerd-viz")["metadata"]["labels"].pop("linkerd.io/extension"),
        '"linkerd-viz" lacks the label',
    ),
    Break("linkerd-viz ClusterRoles exist", remove("ClusterRole", "linkerd-linkerd-viz-tap-admin"), "-tap-admin"),
    Break(
        "linkerd-viz ClusterRoleBindings exist",
        remove("ClusterRoleBinding", "linkerd-linkerd-viz-tap-auth-delegator"),
        "-tap-auth-delegator",
    ),
    Break("tap API server has valid cert", remove("Secret", "tap-k8s-tls"), "tap-k8s-tls"),
    Break(
        "tap API server cert is valid for at least 60 days",
        server_certificate("tap-k8s-tls", "tap.linkerd-viz.svc", ("APIService", "v1alpha1.tap.linkerd.io"), 30),
        "will expire on",
        fine=True,
    ),
    Break(
        "tap API service is running",
        lambda rig: rig.find("APIService", "v1alpha1.tap.linkerd.io")["status"]["conditions"][0].update(
            status="False", reason="FailedDiscoveryCheck", message="no answer"
        ),
        "FailedDiscoveryCheck: no answer",
        fine=True,
    ),
    Break(
        "linkerd-viz pods are injected",
        lambda rig: rig.find("Pod", "tap")["spec"]["containers"].pop(0),
        "linkerd-viz/tap",
        also=("pods that ask for a proxy have one",),
        fine=True,
    ),
    Break(
        "viz extension pods are running",
        status_of("metrics-api", "metrics-api", ready=False),
        "pod/metrics-api container metrics-api is not ready",
        fine=True,
    ),
    Break(
        "viz extension proxies are healthy",
        lambda rig: rig.add(
            "Pod",
            "tap-2",
            "linkerd-viz",
            metadata={"labels": {"linkerd.io/extension": "viz", "component": "tap", **CONTROL_PLANE}},
            spec={"containers": [proxy(rig.anchors)]},
            status={"phase": "Running", "containerStatuses": [{"name": "linkerd-proxy", "ready": False}]},
        ),
        "linkerd-viz/tap-2",
        fine=True,
    ),
    Break(
        "prometheus is installed and configured correctly",
        remove("ConfigMap", "prometheus-config"),
        "prometheus-config",
        fine=True,
    ),
    Break(
        "viz extension self-check",
        lambda rig: rig.self_check.append("[prometheus] cannot be reached"),
        "[prometheus] cannot be reached",
    ),
    Break(
        "prometheus is authorized to scrape data plane pods",
        lambda rig: rig.find("Pod", "web")["spec"]["containers"][0]["env"].append(
            {"name": "LINKERD2_PROXY_INBOUND_DEFAULT_POLICY", "value": "deny"}
        ),
        "shop/web",
        fine=True,
    ),
    Break(
        "data plane proxy metrics are present in Prometheus",
        lambda rig: rig.unscraped.add("shop/web"),
        "shop/web",
        fine=True,
    ),
]
NEEDS_A_NAMESPACE = "data plane namespace exists"
OF_THE_KUBECONFIG = "can initialize the client"


async def not_ok(rig: Rig, categories: list) -> tuple[dict[str, str], bool]:
    report = await rig.report(categories)
    return {r.check.description: r.error for r in report.results if r.outcome is not Outcome.OK}, report.success


def before_installation(rig: Rig) -> list:
    rig.reader.objects[:] = [rig.find("Node", "node-1"), front_proxy_config()]
    return rig.check_pre()


@pytest.mark.parametrize("pre", [False, True])
async def test_nothing_is_wrong_with_what_is_to_be_broken(rig, pre):
    assert await not_ok(rig, before_installation(rig) if pre else rig.check_proxy()) == ({}, True)


@pytest.mark.parametrize("story", BREAKS, ids=lambda story: story.description)
async def test_a_break_is_found_by_its_check(rig, story):
    if story.pre:
        before_installation(rig)
    story.do(rig)
    found, success = await not_ok(rig, rig.check_pre() if story.pre else rig.check_proxy())
    assert set(found) == {story.description, *story.also}, found
    assert story.says in found[story.description]
    assert success is story.fine


async def test_a_namespace_that_does_not_exist(rig):
    found, success = await not_ok(rig, [data_plane.data_plane(rig.cluster(), "gone", VERSION)])
    assert found == {NEEDS_A_NAMESPACE: 'The "gone" namespace does not exist'}
    assert not success


def test_every_check_has_its_break(rig):
    """Without a usable kubeconfig there is no cluster to break; tests of the command line have that one."""
    categories = [*rig.check_proxy(), *rig.check_pre()]
    every = {check.description for category in categories for check in category.checks}
    broken = {description for story in BREAKS for description in (story.description, *story.also)}
    assert every == broken | {NEEDS_A_NAMESPACE, OF_THE_KUBECONFIG}
