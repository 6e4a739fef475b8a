"""The manifests of the control plane, whole, and what must hold of them whatever the values."""

from __future__ import annotations

from pathlib import Path

import pytest
from linkerd.cli.output.documents import yaml_text
from linkerd.cli.rendering import HIGH_AVAILABILITY, complete_values, control_plane_documents
from linkerd.install.certificates import Credentials, ServerCertificate
from linkerd.install.control_plane import SERVER_CERTIFICATES, Installation
from linkerd.install.values import merged
from support.golden import check_golden

GOLDENS = Path(__file__).parent / "goldens"
CREDENTIALS = Credentials("ANCHORS\n", "ISSUER\n", "KEY\n", {"ca.crt": "ANCHOR\n", "ca.key": "ANCHOR KEY\n"})
SERVERS = {name: ServerCertificate(f"{name} CERT\n", "KEY\n", "CA\n") for name in SERVER_CERTIFICATES}


def documents(*, credentials=CREDENTIALS, **given):
    values = complete_values(merged({"linkerdVersion": "stable-9.9.9"}, given))
    return control_plane_documents(Installation("linkerd", values, credentials, SERVERS, given))


def of(found, kind, name):
    return next(d for d in found if d["kind"] == kind and d["metadata"]["name"] == name)


@pytest.mark.parametrize(("name", "given"), [("default", {}), ("ha", HIGH_AVAILABILITY)])
def test_the_manifests(name, given):
    text = "".join("---\n" + yaml_text(document) for document in documents(**given))
    check_golden(GOLDENS / f"control_plane_{name}.yaml", text)


def test_every_object_can_be_found_by_its_label():
    assert all(d["metadata"]["labels"]["linkerd.io/control-plane-ns"] == "linkerd" for d in documents())


def test_every_account_of_a_deployment_exists():
    found = documents()
    accounts = {d["metadata"]["name"] for d in found if d["kind"] == "ServiceAccount"}
    used = {d["spec"]["template"]["spec"]["serviceAccountName"] for d in found if d["kind"] == "Deployment"}
    assert used == accounts


def test_every_mounted_object_exists():
    found = documents()
    for deployment in (d for d in found if d["kind"] == "Deployment"):
        for volume in deployment["spec"]["template"]["spec"]["volumes"]:
            if "secret" in volume:
                of(found, "Secret", volume["secret"]["secretName"])
            if "configMap" in volume:
                of(found, "ConfigMap", volume["configMap"]["name"])


def test_every_service_selects_a_deployment_and_its_port():
    found = documents()
    pods = [d["spec"]["template"] for d in found if d["kind"] == "Deployment"]
    for service in (d for d in found if d["kind"] == "Service"):
        selector = service["spec"]["selector"].items()
        chosen = [pod for pod in pods if selector <= pod["metadata"]["labels"].items()]
        assert len(chosen) == 1, service["metadata"]["name"]
        ports = [port for container in chosen[0]["spec"]["containers"] for port in container.get("ports", [])]
        known = {port["name"] for port in ports} | {port["containerPort"] for port in ports}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= known


def test_every_pod_of_the_control_plane_is_meshed():
    for deployment in (d for d in documents() if d["kind"] == "Deployment"):
        spec = deployment["spec"]["template"]["spec"]
        assert spec["containers"][0]["name"] == "linkerd-proxy"
        selector = deployment["spec"]["selector"]["matchLabels"].items()
        assert selector <= deployment["spec"]["template"]["metadata"]["labels"].items()


def test_keys_are_in_secrets_only():
    for document in documents():
        assert document["kind"] == "Secret" or "KEY" not in yaml_text(document), document["metadata"]["name"]


def test_nobody_may_do_everything():
    rules = [rule for d in documents() if d["kind"] in ("ClusterRole", "Role") for rule in d["rules"]]
    assert not [rule for rule in rules if "*" in rule["verbs"] or "*" in rule["resources"] or "*" in rule["apiGroups"]]


def test_an_external_issuer_is_left_to_its_writer():
    found = documents(identity={"externalCA": True, "issuer": {"scheme": "kubernetes.io/tls"}})
    assert "linkerd-identity-issuer" not in [d["metadata"]["name"] for d in found if d["kind"] == "Secret"]


def test_another_trust_domain_reaches_proxies_and_controllers():
    found = documents(identityTrustDomain="example.org")
    spec = of(found, "Deployment", "linkerd-identity")["spec"]["template"]["spec"]
    assert "--identity-trust-domain=example.org" in spec["containers"][1]["args"]
    env = {v["name"]: v.get("value") for v in spec["containers"][0]["env"]}
    assert env["_l5d_trustdomain"] == "example.org"


def test_who_brings_the_certificates_keeps_the_anchors_key_and_identity_gets_no_right_to_any_secret():
    found = documents(credentials=Credentials("ANCHORS\n", "ISSUER\n", "KEY\n"))
    names = {(d["kind"], d["metadata"]["name"]) for d in found}
    assert ("Secret", "linkerd-identity-anchor") not in names
    assert ("Role", "linkerd-identity-renewal") not in names
    assert "--identity-renewal=false" in yaml_text(of(found, "Deployment", "linkerd-identity"))


def test_identity_may_write_its_own_secrets_and_no_other():
    (secrets, roots) = of(documents(), "Role", "linkerd-identity-renewal")["rules"]
    assert secrets["resourceNames"] == ["linkerd-identity-anchor", "linkerd-identity-issuer"]
    assert roots["resourceNames"] == ["linkerd-identity-trust-roots"]
