"""The proxies that are measured, each in the place of a sidecar: configuration and start."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .lab import PROXY_UID, SERVER_IP, Lab, Pair, Pod

SERVICE_IP = "10.99.1.1"
HTTP_PORT = 8080
TCP_PORT = 9000
"""Through the server's sidecar."""
PLAIN_PORT = 9001
"""Past the server's sidecar."""
INBOUND_PORT = 4143
OUTBOUND_PORT = 4140
TAP_PORT = 4190
ADMIN_PORT = 4191
DOMAIN = "serviceaccount.identity.linkerd.cluster.local"
CLIENT_ID = f"client.bench.{DOMAIN}"
SERVER_ID = f"web.bench.{DOMAIN}"
TAP_ID = f"tap.linkerd-viz.{DOMAIN}"
CONTROL = "127.0.0.1:8086"


@dataclass(frozen=True)
class Traffic:
    """What the peers, which do not find out for themselves, are configured for."""

    http2: bool = False
    """Whether the application speaks HTTP/2."""
    opaque: bool = False
    meshed: bool = True
    """Whether the server has a sidecar."""
    routes: int = 0
    """Of the service's profile."""


@dataclass
class Deployment:
    """One peer in place: `a` beside the client, `b` beside the server."""

    name: str
    pair: Pair
    target: str
    a: subprocess.Popen[str] | None = None
    b: subprocess.Popen[str] | None = None

    @property
    def sidecars(self) -> list[int]:
        return [process.pid for process in (self.a, self.b) if process]

    def close(self) -> None:
        self.pair.close()


Starter = Callable[[Lab, Pair, Traffic], tuple[subprocess.Popen[str], subprocess.Popen[str] | None]]


def deploy(name: str, lab: Lab, traffic: Traffic) -> Deployment:
    """Starts the application and the peer, and waits until a request passes."""
    pair = Pair.create()
    try:
        pair.server.serve(
            lab.rig("serve", http=f"0.0.0.0:{HTTP_PORT}", sources=[f"0.0.0.0:{p}" for p in (TCP_PORT, PLAIN_PORT)])
        )
        port = (TCP_PORT if traffic.meshed else PLAIN_PORT) if traffic.opaque else 80
        if name == "direct":
            port = HTTP_PORT if port == 80 else port
            deployment = Deployment(name, pair, f"{SERVER_IP}:{port}")
        else:
            for pod in (pair.client, pair.server):
                redirect(lab, pod)
            deployment = Deployment(name, pair, f"{SERVICE_IP}:{port}", *STARTERS[name](lab, pair, traffic))
        if not traffic.opaque:
            protocol = "h2" if traffic.http2 else "h1"
            probe(lab, deployment, protocol)
        return deployment
    except BaseException:
        pair.close()
        raise


def probe(lab: Lab, deployment: Deployment, protocol: str) -> None:
    try:
        deployment.pair.client.run(*lab.rig("probe", addr=deployment.target, protocol=protocol))
    except RuntimeError as error:
        pods = (deployment.pair.client, deployment.pair.server)
        said = "\n".join(log.read_text()[-1000:] for pod in pods for log in pod.logs)
        raise RuntimeError(f"{deployment.name}: {error}\n{said}") from None


def redirect(lab: Lab, pod: Pod) -> None:
    ignored = f"{TAP_PORT},{ADMIN_PORT},{PLAIN_PORT}"
    pod.run(lab.programs["linkerd2-proxy"], "init", "--ipv6=false", "--inbound-ports-to-ignore", ignored)


def start_linkerd(lab: Lab, pair: Pair, traffic: Traffic) -> tuple[subprocess.Popen[str], subprocess.Popen[str] | None]:
    processes = []
    for pod, name in ((pair.client, CLIENT_ID), (pair.server, SERVER_ID)):
        start_control(lab, pod, traffic)
        processes.append(
            pod.start(
                [lab.programs["linkerd2-proxy"]], PROXY_UID, linkerd_env(lab, name), lab.scratch("linkerd") / "log"
            )
        )
    if traffic.opaque:
        # Nothing passes before the certificates are there, and a source of bytes cannot be asked whether it works.
        time.sleep(1)
    return processes[0], processes[1] if traffic.meshed else None


def start_control(lab: Lab, pod: Pod, traffic: Traffic) -> None:
    pod.serve(
        lab.rig(
            "control",
            directory=str(lab.directory),
            listen=CONTROL,
            service=SERVICE_IP,
            pod=SERVER_IP,
            client_id=CLIENT_ID,
            server_id=SERVER_ID,
            http_port=HTTP_PORT,
            tcp_port=TCP_PORT,
            plain_port=PLAIN_PORT,
            inbound_port=INBOUND_PORT,
            routes=traffic.routes,
        )
    )


def linkerd_env(lab: Lab, name: str) -> dict[str, str]:
    """As the injector sets it, where it matters."""
    directory = lab.scratch("identity")
    token = directory / "token"
    token.write_text("token")
    networks = "10.0.0.0/8,127.0.0.0/8"
    env = {
        "LOG": "warn",
        "ADMIN_LISTEN_ADDR": f"0.0.0.0:{ADMIN_PORT}",
        "INBOUND_LISTEN_ADDR": f"0.0.0.0:{INBOUND_PORT}",
        "OUTBOUND_LISTEN_ADDR": f"127.0.0.1:{OUTBOUND_PORT}",
        "CONTROL_LISTEN_ADDR": f"0.0.0.0:{TAP_PORT}",
        "TAP_SVC_NAME": TAP_ID,
        "IDENTITY_SVC_ADDR": CONTROL,
        "DESTINATION_SVC_ADDR": CONTROL,
        "POLICY_SVC_ADDR": CONTROL,
        "IDENTITY_LOCAL_NAME": name,
        "IDENTITY_TRUST_ANCHORS": (lab.directory / "ca.pem").read_text(),
        "IDENTITY_TOKEN_FILE": str(token),
        "IDENTITY_DIR": str(directory),
        "POLICY_WORKLOAD": json.dumps({"ns": "bench", "pod": "bench"}),
        "POLICY_CLUSTER_NETWORKS": networks,
        "DESTINATION_PROFILE_NETWORKS": networks,
        "INBOUND_PORTS": str(HTTP_PORT),
        "INBOUND_SERVER_HTTP2_KEEP_ALIVE_INTERVAL": "10s",
        "INBOUND_SERVER_HTTP2_KEEP_ALIVE_TIMEOUT": "3s",
        "INBOUND_ACCEPT_KEEPALIVE": "10000ms",
        "OUTBOUND_CONNECT_KEEPALIVE": "10000ms",
    }
    return {f"LINKERD2_PROXY_{name}": value for name, value in env.items()}


def start_haproxy(lab: Lab, pair: Pair, traffic: Traffic) -> tuple[subprocess.Popen[str], subprocess.Popen[str] | None]:
    mode = "tcp" if traffic.opaque else "http"
    # Both directions by splice where no TLS stands between.
    options = "option splice-request\n  option splice-response" if traffic.opaque else "http-reuse always"
    alpn = "" if traffic.opaque else "alpn h2"
    common = f"""
global
  nbthread 1
  maxconn 7000
defaults
  mode {mode}
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  timeout http-keep-alive 600s
frontend metrics
  mode http
  bind 127.0.0.1:{ADMIN_PORT}
  http-request use-service prometheus-exporter
"""
    port = opaque_port(traffic)
    verified = f"ca-file {lab.directory}/ca.pem verify required {alpn}"
    client = f"ssl crt {lab.directory}/{CLIENT_ID}.both verifyhost {SERVER_ID} sni str({SERVER_ID}) {verified}"
    proxies = {
        "client": f"""
listen outbound
  bind 127.0.0.1:{OUTBOUND_PORT}
  {options}
  server peer {SERVER_IP}:{port} {client if traffic.meshed else ""}
""",
        "server": f"""
listen inbound
  bind 0.0.0.0:{INBOUND_PORT} ssl crt {lab.directory}/{SERVER_ID}.both {verified}
  {options}
  server app 127.0.0.1:{port} {"proto h2" if traffic.http2 else ""}
""",
    }

    def start(pod: Pod, side: str) -> subprocess.Popen[str]:
        path = lab.scratch("haproxy") / "haproxy.cfg"
        path.write_text(common + proxies[side])
        return pod.start(["haproxy", "-db", "-f", path], PROXY_UID, log=path.with_suffix(".log"))

    return started(start, pair, traffic)


def start_nginx(lab: Lab, pair: Pair, traffic: Traffic) -> tuple[subprocess.Popen[str], subprocess.Popen[str] | None]:
    common = """
    access_log off;
    keepalive_timeout 600s;
    keepalive_requests 1000000000;
    client_max_body_size 0;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $http_host;
    proxy_buffering off;
    proxy_request_buffering off;
"""
    upstream = "upstream next { server %s; keepalive 1000; keepalive_requests 1000000000; }"
    proxies = {
        "client": f"""
    {upstream % f"{SERVER_IP}:{HTTP_PORT}"}
    server {{
      listen 127.0.0.1:{OUTBOUND_PORT};
      location / {{
        proxy_pass https://next;
        proxy_ssl_certificate {lab.directory}/{CLIENT_ID}.pem;
        proxy_ssl_certificate_key {lab.directory}/{CLIENT_ID}.key;
        proxy_ssl_trusted_certificate {lab.directory}/ca.pem;
        proxy_ssl_verify on;
        proxy_ssl_name {SERVER_ID};
        proxy_ssl_server_name on;
        proxy_ssl_protocols TLSv1.3;
      }}
    }}
""",
        "server": f"""
    {upstream % f"127.0.0.1:{HTTP_PORT}"}
    server {{
      listen {INBOUND_PORT} ssl;
      ssl_certificate {lab.directory}/{SERVER_ID}.pem;
      ssl_certificate_key {lab.directory}/{SERVER_ID}.key;
      ssl_client_certificate {lab.directory}/ca.pem;
      ssl_verify_client on;
      ssl_protocols TLSv1.3;
      location / {{ proxy_pass http://next; }}
    }}
""",
    }

    def start(pod: Pod, side: str) -> subprocess.Popen[str]:
        directory = lab.scratch("nginx")
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = "\n".join(f"    {kind}_temp_path {directory}/{kind};" for kind in kinds)
        (directory / "nginx.conf").write_text(f"""
daemon off;
master_process off;
worker_processes 1;
pid {directory}/pid;
error_log {directory}/error.log;
events {{ worker_connections 20000; }}
http {{
{temporary}
{common}
{proxies[side]}
}}
""")
        argv = ["nginx", "-e", directory / "error.log", "-p", directory, "-c", directory / "nginx.conf"]
        return pod.start(argv, PROXY_UID, log=directory / "log")

    return started(start, pair, traffic)


def start_envoy(lab: Lab, pair: Pair, traffic: Traffic) -> tuple[subprocess.Popen[str], subprocess.Popen[str] | None]:
    port = opaque_port(traffic)
    # With HTTP/1 applications the inbound side speaks HTTP/1 to them, whatever comes in.
    hop = {"http2": True} if not traffic.opaque else {}
    app = {"http2": traffic.http2} if not traffic.opaque else {}
    configs = {
        "client": envoy_config(
            listener(f"127.0.0.1:{OUTBOUND_PORT}", traffic),
            cluster(f"{SERVER_IP}:{port}", tls=client_tls(lab) if traffic.meshed else None, **hop),
        ),
        "server": envoy_config(
            listener(f"0.0.0.0:{INBOUND_PORT}", traffic, server_tls(lab)), cluster(f"127.0.0.1:{port}", **app)
        ),
    }

    def start(pod: Pod, side: str) -> subprocess.Popen[str]:
        path = lab.scratch("envoy") / "envoy.json"
        path.write_text(json.dumps(configs[side]))
        flags = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
        return pod.start([lab.programs["envoy"], "-c", path, *flags], PROXY_UID, log=path.with_suffix(".log"))

    return started(start, pair, traffic)


def envoy_config(listener: dict, cluster: dict) -> dict:
    return {
        "admin": {"address": address(f"127.0.0.1:{ADMIN_PORT}")},
        "static_resources": {"listeners": [listener], "clusters": [cluster]},
    }


def address(text: str) -> dict:
    host, _, port = text.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}


def typed(name: str, **fields: object) -> dict:
    return {"@type": f"type.googleapis.com/{name}", **fields}


def listener(bind: str, traffic: Traffic, tls: dict | None = None) -> dict:
    network = "envoy.extensions.filters.network"
    if traffic.opaque:
        name = "envoy.filters.network.tcp_proxy"
        config = typed(f"{network}.tcp_proxy.v3.TcpProxy", stat_prefix="bench", cluster="next")
    else:
        name = "envoy.filters.network.http_connection_manager"
        router = typed("envoy.extensions.filters.http.router.v3.Router")
        route = {"match": {"prefix": "/"}, "route": {"cluster": "next", "timeout": "0s"}}
        config = typed(
            f"{network}.http_connection_manager.v3.HttpConnectionManager",
            stat_prefix="bench",
            codec_type="AUTO",
            route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
            http_filters=[{"name": "envoy.filters.http.router", "typed_config": router}],
        )
    chain = {"filters": [{"name": name, "typed_config": config}]}
    if tls:
        chain["transport_socket"] = tls
    return {"name": "listener", "address": address(bind), "filter_chains": [chain]}


def cluster(endpoint: str, tls: dict | None = None, http2: bool | None = None) -> dict:
    found = {"lb_endpoints": [{"endpoint": {"address": address(endpoint)}}]}
    config: dict = {
        "name": "next",
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": "next", "endpoints": [found]},
        "circuit_breakers": {
            "thresholds": [
                {"max_connections": 20000, "max_pending_requests": 20000, "max_requests": 20000},
            ]
        },
    }
    if http2 is not None:
        protocol = {"http2_protocol_options": {}} if http2 else {"http_protocol_options": {}}
        name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
        config["typed_extension_protocol_options"] = {name: typed(name, explicit_http_config=protocol)}
    if tls:
        config["transport_socket"] = tls
    return config


def common_tls(lab: Lab, name: str) -> dict:
    files = {
        "certificate_chain": {"filename": f"{lab.directory}/{name}.pem"},
        "private_key": {"filename": f"{lab.directory}/{name}.key"},
    }
    return {
        "tls_certificates": [files],
        "validation_context": {"trusted_ca": {"filename": f"{lab.directory}/ca.pem"}},
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "alpn_protocols": ["h2"],
    }


def client_tls(lab: Lab) -> dict:
    name = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
    config = typed(name, sni=SERVER_ID, common_tls_context=common_tls(lab, CLIENT_ID))
    return {"name": "envoy.transport_sockets.tls", "typed_config": config}


def server_tls(lab: Lab) -> dict:
    name = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
    config = typed(name, require_client_certificate=True, common_tls_context=common_tls(lab, SERVER_ID))
    return {"name": "envoy.transport_sockets.tls", "typed_config": config}


def opaque_port(traffic: Traffic) -> int:
    if not traffic.opaque:
        return HTTP_PORT
    return TCP_PORT if traffic.meshed else PLAIN_PORT


def started(
    start: Callable[[Pod, str], subprocess.Popen[str]], pair: Pair, traffic: Traffic
) -> tuple[subprocess.Popen[str], subprocess.Popen[str] | None]:
    server = start(pair.server, "server") if traffic.meshed else None
    client = start(pair.client, "client")
    if traffic.opaque:
        time.sleep(1)
    return client, server


STARTERS: dict[str, Starter] = {
    "linkerd": start_linkerd,
    "envoy": start_envoy,
    "haproxy": start_haproxy,
    "nginx": start_nginx,
}


def programs(bin_directory: Path, rig: Path, proxy: Path) -> dict[str, Path]:
    """What is bound into the lab."""
    found = {"rig": rig, "linkerd2-proxy": proxy}
    for envoy in bin_directory.parent.glob("lib/python*/site-packages/envoy/_bin/envoy"):
        found["envoy"] = envoy
    return found
