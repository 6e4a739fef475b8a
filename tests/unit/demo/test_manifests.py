import yaml
from linkerd_demo.manifests import demo_objects
from linkerd_demo.openapi import openapi_document
from linkerd_demo.topology import BY_NAME, SERVICES

GUIDE_NAMES = [
    "frontend",
    "api-gateway",
    "api-service",
    "api-service-stable",
    "api-service-canary",
    "user-service",
    "order-service",
    "payment-service",
    "backend",
    "backend-service",
    "slow-service",
    "target-service",
    "database",
    "external-api",
    "cache",
]


def _named(kind):
    return {(o["metadata"].get("namespace", ""), o["metadata"]["name"]): o for o in demo_objects() if o["kind"] == kind}


def test_names_of_the_guide_are_there_with_their_label_and_port():
    services = _named("Service")
    for name in GUIDE_NAMES:
        spec = services["production", name]["spec"]
        assert spec["selector"] == {"app": name}
        assert spec["ports"][0]["port"] == (6379 if name == "cache" else 8080)


def test_every_call_has_a_callee_with_that_route():
    for service in SERVICES:
        for call in [*service.targets, *(c for r in service.routes for c in r.calls)]:
            name, _, namespace = call.host.partition(".")
            callee = BY_NAME[name]
            assert callee.namespace == (namespace or service.namespace)
            assert any(r.method == call.method and _fits(r.path, call.path) for r in callee.routes), call


def test_unmeshed_namespace_does_not_ask_for_injection():
    namespaces = _named("Namespace")
    assert "annotations" not in namespaces["", "legacy"]["metadata"]
    assert namespaces["", "production"]["metadata"]["annotations"] == {"linkerd.io/inject": "enabled"}
    assert all("annotations" not in o["metadata"] for o in demo_objects(meshed=False) if o["kind"] == "Namespace")


def test_objects_are_plain_yaml():
    assert list(yaml.safe_load_all(yaml.safe_dump_all(demo_objects()))) == demo_objects()


def test_openapi_document_names_each_route():
    document = openapi_document(BY_NAME["api-service"])
    assert set(document["paths"]["/api/v1/users"]) == {"get", "post"}
    assert document["paths"]["/api/v1/users/{id}"]["get"]["parameters"][0]["name"] == "id"


def _fits(pattern: str, path: str) -> bool:
    wanted, given = pattern.split("/"), path.split("/")
    return len(wanted) == len(given) and all(w.startswith("{") or w == g for w, g in zip(wanted, given, strict=True))
