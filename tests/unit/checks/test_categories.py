"""Each check passes on a healthy installation, and fails, naming the object, on one that is broken just there."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
from linkerd import VERSION
from linkerd.checks import certificates, control_plane, data_plane, kubernetes
from linkerd.checks.data_plane import Connections, PlainPair
from linkerd.checks.model import CheckFailure, Skipped
from linkerd.install import crds
from linkerd.k8s.errors import Forbidden
from linkerd.k8s.resources import CLUSTER_ROLES
from linkerd.kit import x509


async def outcomes(category):
    """Description → the error, empty when it passed; what was skipped is not there."""
    found = {}
    for check in category.checks:
        try:
            await check.run()
            found[check.description] = ""
        except Skipped:
            continue
        except CheckFailure as error:
            found[check.description] = str(error)
    return found


async def broken(category):
    return {description: error for description, error in (await outcomes(category)).items() if error}


async def no_plain_connections(pods):
    return Connections(len(pods), ())


def core(cluster):
    return [
        *kubernetes.reachable(cluster),
        control_plane.existence(cluster),
        control_plane.configuration(cluster, crds.VERSIONS),
        certificates.identity(cluster),
        certificates.webhooks(cluster),
        certificates.data_plane(cluster, None),
        control_plane.versions(cluster, VERSION),
        control_plane.proxies(cluster, VERSION),
        data_plane.mutual_tls(cluster, None, no_plain_connections),
        control_plane.high_availability(cluster),
        control_plane.extensions(cluster),
    ]


async def test_a_healthy_installation_passes_every_check(cluster):
    for category in core(cluster):
        assert await broken(category) == {}, category.name


async def test_an_old_cluster(cluster, reader):
    reader.version = "v1.28.4+k3s1"
    assert "version [1.29.0] or more recent" in str(await broken(kubernetes.reachable(cluster)[1]))


@pytest.mark.parametrize(
    ("kind", "name", "description"),
    [
        ("ClusterRole", "linkerd-linkerd-identity", "control plane ClusterRoles exist"),
        ("ClusterRoleBinding", "linkerd-linkerd-proxy-injector", "control plane ClusterRoleBindings exist"),
        ("ServiceAccount", "linkerd-destination", "control plane ServiceAccounts exist"),
        (
            "CustomResourceDefinition",
            "servers.policy.linkerd.io",
            "control plane CustomResourceDefinitions exist",
        ),
        (
            "MutatingWebhookConfiguration",
            "linkerd-proxy-injector-webhook-config",
            "control plane MutatingWebhookConfigurations exist",
        ),
        (
            "ValidatingWebhookConfiguration",
            "linkerd-sp-validator-webhook-config",
            "control plane ValidatingWebhookConfigurations exist",
        ),
    ],
)
async def test_a_missing_object(cluster, remove, kind, name, description):
    remove(kind, name)
    found = await broken(control_plane.configuration(cluster, crds.VERSIONS))
    assert list(found) == [description]
    assert name in found[description]


async def test_a_definition_without_the_version_we_read(cluster, find):
    find("CustomResourceDefinition", "servers.policy.linkerd.io")["spec"]["versions"].pop()
    found = await broken(control_plane.configuration(cluster, crds.VERSIONS))
    assert "CRD servers.policy.linkerd.io is missing version v1beta3" in str(found)


async def test_no_configuration(cluster, remove):
    remove("ConfigMap", "linkerd-config")
    found = await broken(control_plane.existence(cluster))
    assert "not found" in found["'linkerd-config' config map exists"]


async def test_a_component_without_a_pod(cluster, remove):
    remove("Pod", "linkerd-identity")
    found = await broken(control_plane.existence(cluster))
    assert found == {"control plane pods are ready": 'No running pods for "linkerd-identity"'}


async def test_a_container_that_is_not_ready(cluster, find):
    status = find("Pod", "linkerd-destination")["status"]["containerStatuses"][2]
    status |= {"ready": False, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    found = await broken(control_plane.existence(cluster))
    expected = "pod/linkerd-destination container sp-validator is not ready (sp-validator: CrashLoopBackOff)"
    assert found == {"control plane pods are ready": expected}


async def test_an_unschedulable_pod(cluster, find):
    find("Pod", "linkerd-identity")["status"]["conditions"] = [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}
    ]
    assert "linkerd/linkerd-identity: 0/1 nodes" in str(await broken(control_plane.existence(cluster)))


async def test_addresses_outside_of_the_cluster_networks(cluster, reader, find):
    find("Node", "node-1")["spec"]["podCIDR"] = "11.0.0.0/16"
    find("Pod", "linkerd-identity")["status"]["podIP"] = "11.0.0.9"
    found = await broken(control_plane.existence(cluster))
    assert "11.0.0.0/16" in found["cluster networks contains all node podCIDRs"]
    assert "linkerd/linkerd-identity (11.0.0.9)" in found["cluster networks contains all pods"]


# Certificates


def encoded(text):
    return base64.b64encode(text.encode()).decode()


async def test_an_issuer_of_another_anchor(cluster, find):
    other = x509.new_root("other", timedelta(days=100))
    find("ConfigMap", "linkerd-identity-trust-roots")["data"]["ca-bundle.crt"] = x509.certificate_pem(other.certificate)
    found = await broken(certificates.identity(cluster))
    assert "is not signed by any of the 1 trust anchors" in found["issuer cert is issued by the trust anchor"]


async def test_an_expired_issuer(cluster, find):
    root = x509.new_root("root", timedelta(days=100))
    past = datetime.now(UTC) - timedelta(days=9)
    issuer = x509.new_issuer("issuer", root, timedelta(days=1), now=past)
    find("ConfigMap", "linkerd-identity-trust-roots")["data"]["ca-bundle.crt"] = x509.certificate_pem(root.certificate)
    find("Secret", "linkerd-identity-issuer")["data"] = {
        "crt.pem": encoded(x509.certificate_pem(issuer.certificate)),
        "key.pem": encoded(x509.key_pem(issuer.key)),
    }
    found = await broken(certificates.identity(cluster))
    assert "not valid anymore. Expired on" in found["issuer cert is within its validity period"]
    assert "will expire on" in found["issuer cert is valid for at least 60 days"]


async def test_an_issuer_whose_key_is_another(cluster, find):
    secret = find("Secret", "linkerd-identity-issuer")
    secret["data"]["key.pem"] = encoded(x509.key_pem(x509.new_key()))
    found = await broken_first(certificates.identity(cluster))
    assert found == "the private key does not belong to the certificate"


async def broken_first(category):
    with pytest.raises(CheckFailure) as failure:
        await category.checks[0].run()
    return str(failure.value)


async def test_a_webhook_whose_bundle_is_another(cluster, find):
    other = x509.new_root("other", timedelta(days=100))
    configuration = find("MutatingWebhookConfiguration", "linkerd-proxy-injector-webhook-config")
    bundle = encoded(x509.certificate_pem(other.certificate))
    configuration["webhooks"][0]["clientConfig"]["caBundle"] = bundle
    found = await broken(certificates.webhooks(cluster))
    assert list(found) == ["proxy-injector webhook has valid cert"]


async def test_a_webhook_without_a_secret(cluster, remove):
    remove("Secret", "linkerd-sp-validator-k8s-tls")
    found = await broken(certificates.webhooks(cluster))
    assert 'secrets "linkerd-sp-validator-k8s-tls" not found' in found["sp-validator webhook has valid cert"]


def pod(name="web", namespace="production", anchors=None, ready=True, image="proxy:" + VERSION, **labels):
    env = [{"name": "LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS", "value": anchors}] if anchors else []
    return {
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"linkerd.io/control-plane-ns": "linkerd", **labels},
        },
        "spec": {"containers": [{"name": "linkerd-proxy", "image": image, "env": env}, {"name": "app"}]},
        "status": {"phase": "Running", "containerStatuses": [{"name": "linkerd-proxy", "ready": ready}]},
    }


async def test_a_proxy_with_old_anchors(cluster, reader):
    reader.objects.append(pod(anchors="OLD"))
    assert "production/web" in str(await broken(certificates.data_plane(cluster, None)))


# The data plane


async def test_a_data_plane_of_one_version_is_in_order(cluster, reader):
    reader.objects.append(pod())
    assert await broken(data_plane.data_plane(cluster, None, VERSION)) == {}


async def test_a_namespace_without_proxies(cluster, reader):
    reader.objects.append({"kind": "Namespace", "metadata": {"name": "empty"}})
    found = await broken(data_plane.data_plane(cluster, "empty", VERSION))
    assert found["data plane proxies are ready"] == 'no "linkerd-proxy" containers found in the "empty" namespace'


async def test_a_proxy_that_is_not_ready_or_of_another_version(cluster, reader):
    reader.objects += [pod("slow", ready=False), pod("old", image="proxy:stable-0.0.1")]
    found = await broken(data_plane.data_plane(cluster, None, VERSION))
    assert 'container "linkerd-proxy" in pod "production/slow" is not ready' in found["data plane proxies are ready"]
    assert "production/old (stable-0.0.1)" in found["data plane is up-to-date"]
    assert found["data plane and cli versions match"].startswith("production/old running stable-0.0.1")


async def test_pods_without_the_proxy_that_they_ask_for(cluster, reader):
    enabled = {"linkerd.io/inject": "enabled"}
    reader.objects.append({"kind": "Namespace", "metadata": {"name": "production", "annotations": enabled}})
    bare, refusing, ended = pod("bare"), pod("refusing"), pod("ended")
    for item in (bare, refusing, ended):
        item["spec"]["containers"].pop(0)
    refusing["metadata"]["annotations"] = {"linkerd.io/inject": "disabled"}
    ended["status"]["phase"] = "Succeeded"
    reader.objects += [pod(), bare, refusing, ended]
    found = await broken(data_plane.data_plane(cluster, None, VERSION))
    expected = "these pods ask for a proxy and have none:\n* production/bare"
    assert found["pods that ask for a proxy have one"] == expected


async def test_configuration_that_is_a_label_by_mistake(cluster, reader):
    reader.objects.append(pod(**{"linkerd.io/inject": "enabled"}))
    found = await broken(data_plane.data_plane(cluster, None, VERSION))
    assert "production/web: linkerd.io/inject" in found["data plane pod labels are configured correctly"]


async def test_opaque_ports_of_a_service_that_its_pods_lack(cluster, reader):
    service = {
        "kind": "Service",
        "metadata": {
            "name": "db",
            "namespace": "production",
            "annotations": {"config.linkerd.io/opaque-ports": "3306"},
        },
        "spec": {"selector": {"app": "db"}, "ports": [{"port": 3306}]},
    }
    reader.objects += [service, pod("db", app="db")]
    found = await broken(data_plane.data_plane(cluster, None, VERSION))
    assert "production/db" in found["opaque ports are properly annotated"]


async def test_pairs_without_mtls_are_named(cluster):
    async def connections(pods):
        return Connections(5, (PlainPair("production/a", "production/b", "port_skipped"),))

    found = await broken(data_plane.mutual_tls(cluster, None, connections))
    assert "production/a -> production/b: port_skipped" in str(found)


async def test_proxies_that_cannot_be_asked_are_named(cluster):
    async def connections(pods):
        return Connections(0, (), tuple(p["metadata"]["name"] for p in pods))

    assert "linkerd-identity" in str(await broken(data_plane.mutual_tls(cluster, None, connections)))


# Before an installation


async def test_an_empty_cluster_can_have_it(cluster, reader, installation_documents):
    reader.objects[:] = [authentication_config()]
    roles = [(CLUSTER_ROLES, d) for d in installation_documents if d["kind"] == "ClusterRole"]
    assert await broken(kubernetes.before_installation(cluster, roles)) == {}


def authentication_config():
    metadata = {"name": "extension-apiserver-authentication", "namespace": "kube-system"}
    return {"kind": "ConfigMap", "metadata": metadata, "data": {"requestheader-client-ca-file": "PEM"}}


async def test_rights_that_are_lacking(cluster, reader):
    reader.objects[:] = []
    reader.allowed = False
    reader.refused["ClusterRole"] = Forbidden(403, "Forbidden", "you may not")
    role = (CLUSTER_ROLES, {"metadata": {"name": "linkerd-linkerd-identity"}})
    found = await broken(kubernetes.before_installation(cluster, [role]))
    expected = "cannot create ClusterRole/linkerd-linkerd-identity: you may not"
    assert found["can create non-namespaced resources"] == expected
    assert found["can create Secrets"] == "not authorized to create secrets"


def test_a_late_heartbeat_is_clock_skew():
    now = datetime(2026, 1, 1, tzinfo=UTC)
    ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": "2025-12-31T23:50:00Z"}
    node = {"metadata": {"name": "n"}, "status": {"conditions": [ready]}}
    assert "n: last heartbeat 600s ago" in kubernetes.clock_skew(node, now)
    assert kubernetes.clock_skew(node, now - timedelta(minutes=8)) == ""
