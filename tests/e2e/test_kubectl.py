"""It is a real Kubernetes: what the guide and everyday work ask of kubectl, on the embedded cluster without a mesh."""

from __future__ import annotations

import base64
import json
import re
import urllib.request
from datetime import timedelta

import pytest
import yaml
from linkerd.kit.x509 import certificate_pem, key_pem, new_server_certificate
from support.clusters import CommandFailed
from support.waiting import wait_until
from support.workloads import APPS

NAMESPACE = "verbs"


def namespaced(kind: str, name: str, api: str = "v1", **rest: object) -> dict:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, **rest}


def template(name: str, container: dict, **spec: object) -> dict:
    return {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container], **spec}}


def workload(kind: str, name: str, container: dict, **spec: object) -> dict:
    """Its pods end at once: a program without a handler ignores SIGTERM, being the first of its PID namespace."""
    selector, made = {"matchLabels": {"app": name}}, template(name, container, terminationGracePeriodSeconds=1)
    return namespaced(kind, name, "apps/v1", spec={"selector": selector, "template": made, **spec})


def web(cluster, **more: object) -> dict:
    """A small HTTP server that is ready when it answers."""
    return {
        "name": "web",
        "image": "debian",
        "command": [cluster.python, "-um", "http.server", "-d", "/usr", "8080"],
        "ports": [{"containerPort": 8080, "name": "http"}],
        "readinessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1},
    } | more


def shell(script: str, **more: object) -> dict:
    return {"name": "main", "image": "busybox", "command": ["sh", "-c", script]} | more


@pytest.fixture(scope="module")
def verbs(cluster):
    service = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]}
    objects = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        workload("Deployment", "web", web(cluster), replicas=2),
        namespaced("Service", "web", spec=service),
    ]
    cluster.apply(yaml.safe_dump_all(objects))
    cluster.kubectl("rollout", "status", "-n", NAMESPACE, "deploy/web", "--timeout=120s")
    yield cluster
    cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def kubectl(cluster, *args: str, **options: str) -> str:
    return cluster.kubectl(args[0], "-n", NAMESPACE, *args[1:], **options)


def names(cluster, kind: str, selector: str) -> list[str]:
    return kubectl(cluster, "get", kind, "-l", selector, "-o", "jsonpath={.items[*].metadata.name}").split()


def test_get_in_all_its_outputs(verbs):
    assert re.search(r"^web +2/2 +2 +2 ", kubectl(verbs, "get", "deploy"), re.M)
    assert "node-1" in kubectl(verbs, "get", "pods", "-o", "wide")
    assert "app=web" in kubectl(verbs, "get", "pods", "-l", "app=web", "--show-labels")
    assert len(kubectl(verbs, "get", "pods", "-l", "app=web", "--no-headers").splitlines()) == 2
    assert kubectl(verbs, "get", "svc", "web", "-o", "jsonpath={.spec.ports[0].port}") == "80"
    columns = "custom-columns=NAME:.metadata.name,READY:.status.readyReplicas"
    assert kubectl(verbs, "get", "deploy", "-o", columns).splitlines()[1].split() == ["web", "2"]
    assert yaml.safe_load(kubectl(verbs, "get", "deploy", "web", "-o", "yaml"))["spec"]["replicas"] == 2
    addresses = kubectl(verbs, "get", "endpointslices", "-o", "jsonpath={.items[*].endpoints[*].addresses[0]}")
    assert len(addresses.split()) == 2


def test_get_cluster_wide_things(verbs):
    assert re.search(r"^node-1 +Ready ", verbs.kubectl("get", "nodes"), re.M)
    assert "coredns" in verbs.kubectl("get", "pods", "-A")
    assert "v1beta1.metrics.k8s.io" in verbs.kubectl("get", "apiservices")
    assert "Kubernetes control plane" in verbs.kubectl("cluster-info")
    assert verbs.kubectl("auth", "can-i", "create", "pods") == "yes\n"
    versions = json.loads(verbs.kubectl("version", "-o", "json"))
    assert versions["clientVersion"]["gitVersion"] == versions["serverVersion"]["gitVersion"]
    assert "deployments" in verbs.kubectl("api-resources")


def test_describe_tells_the_story_of_a_pod(verbs):
    (name, *_) = names(verbs, "pods", "app=web")
    text = kubectl(verbs, "describe", "pod", name)
    for words in ("Node:             node-1/192.168.127.1", "Readiness:", "Scheduled", "Pulled", "Created", "Started"):
        assert words in text
    assert "Replicas:               2 desired" in kubectl(verbs, "describe", "deploy", "web")
    assert "Ready" in verbs.kubectl("describe", "node", "node-1")


def test_events_are_told(verbs):
    text = kubectl(verbs, "get", "events", "--sort-by=.lastTimestamp")
    assert "Started container web" in text or "Container started" in text


def test_annotate_label_and_patch(verbs):
    kubectl(verbs, "annotate", "svc", "web", "example.com/note=first")
    kubectl(verbs, "annotate", "svc", "web", "example.com/note=second", "--overwrite")
    path = r"jsonpath={.metadata.annotations.example\.com/note}"
    assert kubectl(verbs, "get", "svc", "web", "-o", path) == "second"
    kubectl(verbs, "label", "svc", "web", "tier=front")
    assert names(verbs, "svc", "tier=front") == ["web"]
    kubectl(verbs, "patch", "svc", "web", "-p", '{"spec":{"sessionAffinity":"ClientIP"}}')
    kubectl(verbs, "patch", "svc", "web", "--type=json", "-p", '[{"op":"remove","path":"/metadata/labels/tier"}]')
    assert names(verbs, "svc", "tier=front") == []


def test_apply_configures_diffs_and_deletes(verbs):
    manifest = yaml.safe_dump(namespaced("ConfigMap", "settings", data={"a": "1"}))
    assert "created" in verbs.kubectl("apply", "-f", "-", stdin=manifest)
    assert "unchanged" in verbs.kubectl("apply", "-f", "-", stdin=manifest)
    changed = manifest.replace("'1'", "'2'")
    done = verbs.run("kubectl", "diff", "-f", "-", stdin=changed)
    assert (done.returncode, '+  a: "2"' in done.stdout) == (1, True)
    assert "configured" in verbs.kubectl("apply", "-f", "-", stdin=changed)
    assert "deleted" in verbs.kubectl("delete", "-f", "-", stdin=manifest)


def test_a_rollout_restart_replaces_the_pods(verbs):
    before = set(names(verbs, "pods", "app=web"))
    kubectl(verbs, "rollout", "restart", "deploy/web")
    assert "successfully rolled out" in kubectl(verbs, "rollout", "status", "deploy/web", "--timeout=120s")
    wait_until(lambda: not before & set(names(verbs, "pods", "app=web")), timeout=120, message="old pods are gone")
    assert "REVISION" in kubectl(verbs, "rollout", "history", "deploy/web")
    kubectl(verbs, "rollout", "undo", "deploy/web")
    kubectl(verbs, "rollout", "status", "deploy/web", "--timeout=120s")


def test_scale_changes_pods_and_endpoints(verbs):
    def endpoints() -> int:
        path = "jsonpath={.items[*].endpoints[?(@.conditions.ready==true)].addresses[0]}"
        query = ("get", "endpointslices", "-l", "kubernetes.io/service-name=web", "-o", path)
        return len(kubectl(verbs, *query).split())

    kubectl(verbs, "scale", "deploy/web", "--replicas=3")
    wait_until(lambda: endpoints() == 3, timeout=120, message="three endpoints")
    kubectl(verbs, "scale", "deploy/web", "--replicas=2")
    wait_until(lambda: endpoints() == 2, timeout=120, message="two endpoints")
    wait_until(lambda: len(names(verbs, "pods", "app=web")) == 2, timeout=120, message="the third pod is gone")


def test_exec_and_logs_find_their_pod_by_its_deployment(verbs):
    address = kubectl(verbs, "get", "svc", "web", "-o", "jsonpath={.spec.clusterIP}")
    fetch = "import urllib.request as u; print(u.urlopen('http://web.verbs.svc.cluster.local', timeout=20).status)"
    assert kubectl(verbs, "exec", "deploy/web", "-c", "web", "--", verbs.python, "-c", fetch) == "200\n"
    lookup = "import socket; print(socket.gethostbyname('web'))"
    assert kubectl(verbs, "exec", "deploy/web", "--", verbs.python, "-c", lookup) == f"{address}\n"
    assert "GET / HTTP/1.1" in kubectl(verbs, "logs", "deploy/web", "--tail=50", "--all-pods")
    assert "web" in kubectl(verbs, "logs", "-l", "app=web", "--prefix", "--tail=1")


def test_port_forward_to_a_service_and_a_deployment(verbs):
    for target, port in (("svc/web", "80"), ("deploy/web", "8080")):
        process = verbs.start_kubectl("port-forward", "-n", NAMESPACE, target, f":{port}")
        local = process.stdout.readline().split()[2]
        assert urllib.request.urlopen(f"http://{local}/bin/env", timeout=30).status == 200
        process.kill()
        process.communicate()


def test_the_api_servers_proxies_reach_pods_services_and_the_node(verbs):
    base = f"/api/v1/namespaces/{NAMESPACE}"
    (name, *_) = names(verbs, "pods", "app=web")
    assert "Directory listing" in verbs.kubectl("get", "--raw", f"{base}/services/web:80/proxy/")
    assert "Directory listing" in verbs.kubectl("get", "--raw", f"{base}/pods/{name}:8080/proxy/")
    assert verbs.kubectl("get", "--raw", "/api/v1/nodes/node-1/proxy/healthz") == "ok"
    summary = json.loads(verbs.kubectl("get", "--raw", "/api/v1/nodes/node-1/proxy/stats/summary"))
    assert summary["node"]["nodeName"] == "node-1"


def test_top_shows_pods_and_the_node(verbs):
    def lines() -> list[str]:
        done = verbs.run("kubectl", "top", "pod", "-n", NAMESPACE, "-l", "app=web", "--no-headers")
        return done.stdout.splitlines() if done.returncode == 0 else []

    found = wait_until(lambda: len(lines()) == 2 and lines(), timeout=120, message="usage of both pods")
    assert all(re.fullmatch(r"web-\S+ +\d+m +\d+Mi *", line) for line in found)
    assert re.search(r"^node-1 +\d+m +\d+%", verbs.kubectl("top", "node"), re.M)
    assert " web " in kubectl(verbs, "top", "pod", "--containers")


def test_a_statefulset_has_names_in_order(verbs):
    manifest = workload("StatefulSet", "ordered", web(verbs), replicas=2, serviceName="ordered")
    headless = namespaced("Service", "ordered", spec={"clusterIP": "None", "selector": {"app": "ordered"}})
    verbs.apply(yaml.safe_dump_all([manifest, headless]))
    kubectl(verbs, "rollout", "status", "sts/ordered", "--timeout=120s")
    assert names(verbs, "pods", "app=ordered") == ["ordered-0", "ordered-1"]
    lookup = "import socket; print(socket.gethostbyname('ordered-1.ordered.verbs.svc.cluster.local'))"
    address = kubectl(verbs, "get", "pod", "ordered-1", "-o", "jsonpath={.status.podIP}")
    assert kubectl(verbs, "exec", "ordered-0", "--", verbs.python, "-c", lookup) == f"{address}\n"


def test_a_daemonset_runs_on_the_node(verbs):
    verbs.apply(yaml.safe_dump(workload("DaemonSet", "everywhere", shell("exec sleep 1000"))))
    kubectl(verbs, "rollout", "status", "ds/everywhere", "--timeout=120s")
    assert len(names(verbs, "pods", "app=everywhere")) == 1


def job_spec(script: str, **more: object) -> dict:
    return {"template": template("job", shell(script), restartPolicy="Never"), **more}


def test_a_job_completes_and_a_failing_one_fails(verbs):
    good = namespaced("Job", "good", "batch/v1", spec=job_spec("echo done"))
    bad = namespaced("Job", "bad", "batch/v1", spec=job_spec("exit 3", backoffLimit=0))
    verbs.apply(yaml.safe_dump_all([good, bad]))
    kubectl(verbs, "wait", "--for=condition=Complete", "job/good", "--timeout=120s")
    assert kubectl(verbs, "logs", "job/good") == "done\n"
    kubectl(verbs, "wait", "--for=condition=Failed", "job/bad", "--timeout=120s")
    path = "jsonpath={.items[0].status.containerStatuses[0].state.terminated.exitCode}"
    assert kubectl(verbs, "get", "pods", "-l", "job-name=bad", "-o", path) == "3"


def test_a_cronjob_makes_jobs(verbs):
    spec = {"schedule": "*/1 * * * *", "jobTemplate": {"spec": job_spec("echo tick")}}
    verbs.apply(yaml.safe_dump(namespaced("CronJob", "clock", "batch/v1", spec=spec)))
    kubectl(verbs, "create", "job", "now", "--from=cronjob/clock")
    kubectl(verbs, "wait", "--for=condition=Complete", "job/now", "--timeout=120s")
    assert kubectl(verbs, "logs", "job/now") == "tick\n"
    assert "*/1 * * * *" in kubectl(verbs, "get", "cronjobs")


def test_configmaps_and_secrets_reach_containers_as_variables_and_files(verbs):
    kubectl(verbs, "create", "configmap", "plain", "--from-literal=color=blue")
    kubectl(verbs, "create", "secret", "generic", "hidden", "--from-literal=password=s3cret")
    container = shell(
        'echo "$COLOR $password"; cat /config/color /secret/password; echo; exec sleep 1000',
        env=[{"name": "COLOR", "valueFrom": {"configMapKeyRef": {"name": "plain", "key": "color"}}}],
        envFrom=[{"secretRef": {"name": "hidden"}}],
        volumeMounts=[{"name": "c", "mountPath": "/config"}, {"name": "s", "mountPath": "/secret"}],
    )
    volumes = [{"name": "c", "configMap": {"name": "plain"}}, {"name": "s", "secret": {"secretName": "hidden"}}]
    verbs.apply(yaml.safe_dump(namespaced("Pod", "configured", spec={"containers": [container], "volumes": volumes})))
    kubectl(verbs, "wait", "--for=condition=Ready", "pod/configured", "--timeout=120s")
    assert kubectl(verbs, "logs", "configured") == "blue s3cret\nblues3cret\n"
    kubectl(verbs, "patch", "configmap", "plain", "-p", '{"data":{"color":"green"}}')
    read = lambda: kubectl(verbs, "exec", "configured", "--", "cat", "/config/color")  # noqa: E731
    wait_until(lambda: read() == "green", timeout=90, message="the changed file is there")


def test_a_service_account_may_do_what_its_role_says(verbs):
    kubectl(verbs, "create", "serviceaccount", "watcher")
    kubectl(verbs, "create", "role", "reads", "--verb=get,list", "--resource=pods")
    kubectl(verbs, "create", "rolebinding", "reads", "--role=reads", f"--serviceaccount={NAMESPACE}:watcher")
    user = f"--as=system:serviceaccount:{NAMESPACE}:watcher"
    assert kubectl(verbs, "auth", "can-i", "list", "pods", user) == "yes\n"
    with pytest.raises(CommandFailed, match="no"):
        kubectl(verbs, "auth", "can-i", "delete", "pods", user)
    token = kubectl(verbs, "create", "token", "watcher").strip()
    assert token.count(".") == 2


def test_a_pod_talks_to_the_api_with_its_token(verbs):
    script = (
        "import ssl, urllib.request as u; d = '/var/run/secrets/kubernetes.io/serviceaccount/'; "
        "t = open(d + 'token').read(); c = ssl.create_default_context(cafile=d + 'ca.crt'); "
        "r = u.Request('https://kubernetes.default.svc/version', headers={'Authorization': 'Bearer ' + t}); "
        "print(u.urlopen(r, context=c, timeout=20).status)"
    )
    assert kubectl(verbs, "exec", "deploy/web", "--", verbs.python, "-c", script) == "200\n"


def test_a_custom_resource(verbs):
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.verbs.example.com"},
        "spec": {
            "group": "verbs.example.com",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget"},
            "scope": "Namespaced",
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }
    verbs.apply(yaml.safe_dump(definition))
    verbs.kubectl("wait", "--for=condition=Established", "crd/widgets.verbs.example.com", "--timeout=30s")
    verbs.apply(yaml.safe_dump(namespaced("Widget", "one", "verbs.example.com/v1", spec={"size": 3})))
    assert kubectl(verbs, "get", "widget", "one", "-o", "jsonpath={.spec.size}") == "3"
    verbs.kubectl("delete", "crd", "widgets.verbs.example.com")


def test_an_admission_webhook_changes_what_is_created(verbs):
    certificate, key, authority = new_server_certificate(f"labeller.{NAMESPACE}.svc", timedelta(hours=1))
    files = {"tls.crt": certificate_pem(certificate), "tls.key": key_pem(key)}
    program = [verbs.python, str(APPS / "webhook.py"), "8443", "/tls/tls.crt", "/tls/tls.key"]
    container = {"name": "main", "image": "debian", "command": program}
    container |= {"volumeMounts": [{"name": "tls", "mountPath": "/tls"}]}
    container |= {"readinessProbe": {"tcpSocket": {"port": 8443}, "periodSeconds": 1}}
    deployment = workload("Deployment", "labeller", container)
    deployment["spec"]["template"]["spec"]["volumes"] = [{"name": "tls", "secret": {"secretName": "labeller"}}]
    service = {"selector": {"app": "labeller"}, "ports": [{"port": 443, "targetPort": 8443}]}
    objects = [namespaced("Secret", "labeller", type="kubernetes.io/tls", stringData=files), deployment]
    verbs.apply(yaml.safe_dump_all([*objects, namespaced("Service", "labeller", spec=service)]))
    kubectl(verbs, "rollout", "status", "deploy/labeller", "--timeout=120s")

    ca = base64.b64encode(certificate_pem(authority.certificate).encode()).decode()
    webhook = {
        "name": "labeller.example.com",
        "clientConfig": {"service": {"name": "labeller", "namespace": NAMESPACE}, "caBundle": ca},
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}},
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    kind = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration"}
    verbs.apply(yaml.safe_dump(kind | {"metadata": {"name": "labeller"}, "webhooks": [webhook]}))

    def labelled() -> list[str]:
        kubectl(verbs, "delete", "configmap", "asked", "--ignore-not-found")
        kubectl(verbs, "create", "configmap", "asked")
        return names(verbs, "configmap", "seen-by=webhook")

    wait_until(labelled, timeout=120, message="the webhook is asked")
    verbs.kubectl("delete", "mutatingwebhookconfiguration", "labeller")


def test_network_policies_are_stored_and_shown(verbs):
    policy = namespaced("NetworkPolicy", "closed", "networking.k8s.io/v1", spec={"podSelector": {}})
    verbs.apply(yaml.safe_dump(policy))
    assert "closed" in kubectl(verbs, "get", "networkpolicies")
    kubectl(verbs, "delete", "networkpolicy", "closed")


def test_an_unknown_image_is_said_with_a_hint(verbs):
    container = {"name": "main", "image": "example.com/nobody/knows:1"}
    verbs.apply(yaml.safe_dump(namespaced("Pod", "unknown", spec={"containers": [container]})))

    def reason() -> str:
        path = "jsonpath={.status.containerStatuses[0].state.waiting.reason}"
        return kubectl(verbs, "get", "pod", "unknown", "-o", path)

    wait_until(lambda: reason() in ("ErrImagePull", "ImagePullBackOff"), timeout=120, message="the pod says so")
    assert "linkerd cluster image add" in kubectl(verbs, "describe", "pod", "unknown")


def test_init_containers_run_first_and_in_order(verbs):
    mount = {"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}
    init = [
        shell("echo one > /shared/log", **mount) | {"name": "first"},
        shell("echo two >> /shared/log", **mount) | {"name": "second"},
    ]
    spec = {
        "initContainers": init,
        "containers": [shell("cat /shared/log; exec sleep 1000", **mount)],
        "volumes": [{"name": "shared", "emptyDir": {}}],
    }
    verbs.apply(yaml.safe_dump(namespaced("Pod", "prepared", spec=spec)))
    kubectl(verbs, "wait", "--for=condition=Ready", "pod/prepared", "--timeout=120s")
    assert kubectl(verbs, "logs", "prepared") == "one\ntwo\n"
    assert kubectl(verbs, "logs", "prepared", "-c", "first") == ""


def test_a_failing_liveness_probe_restarts_the_container(verbs):
    probe = {"exec": {"command": ["test", "-e", "/tmp/alive"]}, "periodSeconds": 1, "failureThreshold": 1}
    container = shell("touch /tmp/alive; sleep 3; rm /tmp/alive; exec sleep 1000", livenessProbe=probe)
    spec = {"containers": [container], "terminationGracePeriodSeconds": 1}
    verbs.apply(yaml.safe_dump(namespaced("Pod", "fading", spec=spec)))

    def restarts() -> int:
        path = "jsonpath={.status.containerStatuses[0].restartCount}"
        return int(kubectl(verbs, "get", "pod", "fading", "-o", path) or 0)

    wait_until(lambda: restarts() >= 1, timeout=120, message="the container restarted")
    assert "Liveness probe failed" in kubectl(verbs, "describe", "pod", "fading")


def test_deleting_waits_for_the_grace_of_a_pod(verbs):
    script = "trap 'echo bye; exit 0' TERM; echo up; while true; do sleep 0.1; done"
    verbs.apply(yaml.safe_dump(namespaced("Pod", "polite", spec={"containers": [shell(script)]})))
    kubectl(verbs, "wait", "--for=condition=Ready", "pod/polite", "--timeout=120s")
    process = verbs.start_kubectl("logs", "-n", NAMESPACE, "-f", "polite")
    assert process.stdout.readline() == "up\n"
    kubectl(verbs, "delete", "pod", "polite", "--timeout=120s")
    assert process.communicate(timeout=60)[0] == "bye\n"


def test_run_creates_a_pod_and_removes_it(verbs):
    flags = ("--image=busybox", "--restart=Never", "--rm", "-i", "--quiet", "--command")
    assert kubectl(verbs, "run", "once", *flags, "--", "sh", "-c", "cat", stdin="through\n") == "through\n"
    assert kubectl(verbs, "get", "pods", "once", "--ignore-not-found") == ""


def test_state_is_watched(verbs):
    process = verbs.start_kubectl("get", "configmap", "-n", NAMESPACE, "-w", "--output-watch-events")
    kubectl(verbs, "create", "configmap", "seen")
    while not re.match(r"ADDED +seen", line := process.stdout.readline()):
        assert line
    process.kill()
    process.communicate()
