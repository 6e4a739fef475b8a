"""A stand-in for the API server of a large cluster: lists and watches, made from numbers, over plain HTTP.

`python watched_cluster.py PORT PODS SERVICES` serves until it is ended. Pods carry three kilobytes that no follower
reads, as real ones do. `POST /change?pod=N&ready=false` changes a pod, and answers with the moment at which it told.
"""

from __future__ import annotations

import asyncio
import base64
import sys
import time
from collections.abc import Iterable

import orjson
from aiohttp import web

NAMESPACE = "bench"
PAGE = 500


def pod_ip(number: int) -> str:
    return f"10.{1 + number // 65536}.{number // 256 % 256}.{number % 256}"


def service_ip(number: int) -> str:
    return f"10.96.{number // 256}.{number % 256}"


def pod(number: int, services: int, *, ready: bool = True, version: int = 1) -> dict:
    service = number % services
    return {
        "metadata": {
            "name": f"pod-{number}",
            "namespace": NAMESPACE,
            "uid": f"uid-{number}",
            "resourceVersion": str(version),
            "labels": {
                "app": f"svc-{service}",
                "pod-template-hash": "abc",
                "linkerd.io/control-plane-ns": "linkerd",
                "linkerd.io/proxy-deployment": f"svc-{service}",
            },
            "managedFields": [{"manager": "kubelet", "fieldsV1": {"padding": "x" * 3000}}],
        },
        "spec": {
            "nodeName": f"node-{number % 100}",
            "serviceAccountName": f"svc-{service}",
            "containers": [{"name": "app", "ports": [{"containerPort": 8080, "name": "http"}]}],
        },
        "status": {
            "phase": "Running",
            "podIPs": [{"ip": pod_ip(number)}],
            "conditions": [{"type": "Ready", "status": str(ready)}],
        },
    }


def service(number: int) -> dict:
    return {
        "metadata": {"name": f"svc-{number}", "namespace": NAMESPACE, "resourceVersion": "1"},
        "spec": {
            "clusterIPs": [service_ip(number)],
            "ports": [{"port": 80, "name": "http", "targetPort": 8080}],
            "selector": {"app": f"svc-{number}"},
        },
    }


def endpoint_slice(number: int, pods: Iterable[int]) -> dict:
    return {
        "metadata": {
            "name": f"svc-{number}-1",
            "namespace": NAMESPACE,
            "resourceVersion": "1",
            "labels": {"kubernetes.io/service-name": f"svc-{number}"},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [
            {
                "addresses": [pod_ip(n)],
                "conditions": {"ready": True},
                "nodeName": f"node-{n % 100}",
                "zone": f"zone-{n % 3}",
                "targetRef": {"kind": "Pod", "namespace": NAMESPACE, "name": f"pod-{n}"},
            }
            for n in pods
        ],
    }


def node(number: int) -> dict:
    labels = {"topology.kubernetes.io/zone": f"zone-{number % 3}"}
    return {"metadata": {"name": f"node-{number}", "resourceVersion": "1", "labels": labels}}


class Cluster:
    def __init__(self, pods: int, services: int) -> None:
        self._services = services
        self._latest = 99
        self._watchers: list[asyncio.Queue[bytes]] = []
        slices = [endpoint_slice(n, range(n, pods, services)) for n in range(services)]
        self.objects: dict[str, list[bytes]] = {
            "pods": [orjson.dumps(pod(n, services)) for n in range(pods)],
            "services": [orjson.dumps(service(n)) for n in range(services)],
            "endpointslices": [orjson.dumps(found) for found in slices],
            "nodes": [orjson.dumps(node(n)) for n in range(100)],
            "namespaces": [orjson.dumps({"metadata": {"name": NAMESPACE, "resourceVersion": "1"}})],
        }

    def app(self) -> web.Application:
        app = web.Application(client_max_size=2**20)
        app.router.add_get("/{path:.*}", self._get)
        app.router.add_post("/change", self._change)
        app.router.add_post("/{path:.*tokenreviews}", self._review)
        app.router.add_post("/{path:.*}", self._created)
        return app

    async def _get(self, request: web.Request) -> web.StreamResponse:
        plural = request.path.rpartition("/")[2]
        if request.query.get("watch"):
            return await self._watch(request, plural)
        found, start = self.objects.get(plural, []), int(request.query.get("continue") or 0)
        page = found[start : start + PAGE]
        following = str(start + PAGE) if start + PAGE < len(found) else ""
        metadata = orjson.dumps({"resourceVersion": str(self._latest), "continue": following})
        body = b'{"metadata":' + metadata + b',"items":[' + b",".join(page) + b"]}"
        return web.Response(body=body, content_type="application/json")

    async def _watch(self, request: web.Request, plural: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        if plural == "pods":
            self._watchers.append(queue)
        while True:
            try:
                line = await asyncio.wait_for(queue.get(), 30)
            except TimeoutError:
                line = b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"%d"}}}\n' % self._latest
            await response.write(line)

    async def _change(self, request: web.Request) -> web.Response:
        number, ready = int(request.query["pod"]), request.query["ready"] == "true"
        self._latest += 1
        changed = orjson.dumps(pod(number, self._services, ready=ready, version=self._latest))
        self.objects["pods"][number] = changed
        line = b'{"type":"MODIFIED","object":' + changed + b"}\n"
        for queue in self._watchers:
            queue.put_nowait(line)
        return web.Response(text=str(time.monotonic()))

    async def _review(self, request: web.Request) -> web.Response:
        token = orjson.loads(await request.read())["spec"]["token"]
        claims = orjson.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
        return web.json_response({"status": {"authenticated": True, "user": {"username": claims["sub"]}}})

    async def _created(self, _: web.Request) -> web.Response:
        return web.json_response({}, status=201)


def main() -> None:
    port, pods, services = (int(argument) for argument in sys.argv[1:])
    web.run_app(Cluster(pods, services).app(), host="127.0.0.1", port=port, print=None, access_log=None)


if __name__ == "__main__":
    main()
