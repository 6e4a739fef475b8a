"""The proxy's `init` mode, in network namespaces: a pod with a client beside it, and traffic between them.

The listeners of this test stand where the proxy's do; they answer with their own port, so that a client sees which of
them, or of the application's, it has reached.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

PROXY = Path(sys.executable).with_name("linkerd2-proxy")
PROXY_UID = 2102
LISTENERS = """
import selectors, socket, sys
selector = selectors.DefaultSelector()
for port in map(int, sys.argv[1:]):
    listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    selector.register(listener, selectors.EVENT_READ, port)
print("listening", flush=True)
while True:
    for key, _ in selector.select():
        with key.fileobj.accept()[0] as connection:
            connection.sendall(str(key.data).encode())
"""
CLIENT = """
import encodings.idna, os, socket, sys  # no module can be loaded any more as another user
host, port, uid = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
os.setuid(uid)
with socket.create_connection((host, port), timeout=5) as connection:
    print(connection.recv(16).decode())
"""

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.skipif(shutil.which("nft") is None, reason="nft is not installed"),
    pytest.mark.skipif(not PROXY.exists(), reason=f"{PROXY} is not built (`make build`)"),
]


def run(*command: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, **options)


class Pair:
    """`pod` and `client`, joined by a cable."""

    def __init__(self) -> None:
        tag = uuid.uuid4().hex[:6]
        self.pod, self.client = f"pod-{tag}", f"client-{tag}"
        for namespace in (self.pod, self.client):
            self._ip("netns", "add", namespace)
            self._ip("-n", namespace, "link", "set", "lo", "up")
        self._ip("link", "add", "eth0", "netns", self.pod, "type", "veth", "peer", "name", "eth0", "netns", self.client)
        for namespace, last in ((self.pod, 1), (self.client, 2)):
            self._ip("-n", namespace, "address", "add", f"10.99.0.{last}/24", "dev", "eth0")
            self._ip("-n", namespace, "address", "add", f"fd99::{last}/64", "dev", "eth0", "nodad")
            self._ip("-n", namespace, "link", "set", "eth0", "up")

    @staticmethod
    def _ip(*arguments: str) -> None:
        done = run("ip", *arguments)
        if done.returncode:
            pytest.skip(f"no network namespaces here: {done.stderr.strip()}")

    def inside(self, namespace: str, *command: str) -> subprocess.CompletedProcess[str]:
        return run("ip", "netns", "exec", namespace, *command)

    def init(self, *flags: str) -> subprocess.CompletedProcess[str]:
        return self.inside(self.pod, str(PROXY), "init", *flags)

    def reached(self, source: str, host: str, port: int, uid: int = 0) -> str:
        """The port whose listener answers a connection to `host:port`."""
        done = self.inside(source, sys.executable, "-c", CLIENT, host, str(port), str(uid))
        return done.stdout.strip() or done.stderr.strip().splitlines()[-1]

    def rules(self) -> str:
        return self.inside(self.pod, "nft", "list", "ruleset").stdout

    def remove(self) -> None:
        for namespace in (self.pod, self.client):
            run("ip", "netns", "delete", namespace)


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    listeners = [
        subprocess.Popen(
            ["ip", "netns", "exec", namespace, sys.executable, "-c", LISTENERS, *ports],
            stdout=subprocess.PIPE,
        )
        for namespace, ports in ((pair.pod, ("4143", "4140", "8080", "9090")), (pair.client, ("80", "443")))
    ]
    try:
        for listener in listeners:
            assert listener.stdout
            assert listener.stdout.readline() == b"listening\n"
        yield pair
    finally:
        for listener in listeners:
            listener.kill()
            listener.communicate()
        pair.remove()


@pytest.mark.parametrize(("pod", "client"), [("10.99.0.1", "10.99.0.2"), ("fd99::1", "fd99::2")], ids=["ipv4", "ipv6"])
def test_traffic_goes_by_way_of_the_proxy(pair: Pair, pod: str, client: str) -> None:
    done = pair.init("--inbound-ports-to-ignore", "4190,9090", "--outbound-ports-to-ignore", "443")
    assert done.returncode == 0, done.stderr
    assert pair.reached(pair.client, pod, 8080) == "4143"
    assert pair.reached(pair.client, pod, 9090) == "9090", "an ignored port"
    assert pair.reached(pair.pod, client, 80) == "4140"
    assert pair.reached(pair.pod, client, 443) == "443", "an ignored port"
    assert pair.reached(pair.pod, client, 80, uid=PROXY_UID) == "80", "the proxy's own connections"
    assert pair.reached(pair.pod, pod, 8080) == "8080", "within the pod"


def test_subnets_can_be_left_alone(pair: Pair) -> None:
    assert pair.init("--subnets-to-ignore", "10.99.0.2/32").returncode == 0
    assert pair.reached(pair.client, "10.99.0.1", 8080) == "8080"
    assert pair.reached(pair.client, "fd99::1", 8080) == "4143"


def test_only_some_ports_can_be_redirected(pair: Pair) -> None:
    assert pair.init("--ports-to-redirect", "9090").returncode == 0
    assert pair.reached(pair.client, "10.99.0.1", 9090) == "4143"
    assert pair.reached(pair.client, "10.99.0.1", 8080) == "8080"


def test_without_ipv6_its_traffic_is_left_alone(pair: Pair) -> None:
    assert pair.init("--ipv6=false").returncode == 0
    assert pair.reached(pair.client, "fd99::1", 8080) == "8080"


def test_a_second_run_replaces_the_first(pair: Pair) -> None:
    assert pair.init("--inbound-ports-to-ignore", "8080").returncode == 0
    assert pair.init().returncode == 0
    once = pair.rules()
    assert pair.init().returncode == 0
    assert pair.rules() == once
    assert pair.reached(pair.client, "10.99.0.1", 8080) == "4143"


def test_without_the_right_to_change_the_network_it_says_so(pair: Pair) -> None:
    done = pair.inside(pair.pod, "setpriv", "--bounding-set", "-net_admin", str(PROXY), "init")
    assert done.returncode == 1
    assert "not permitted" in done.stderr
    assert "NET_ADMIN" in done.stderr
    assert pair.reached(pair.client, "10.99.0.1", 8080) == "8080"


def test_without_nft_it_says_so(pair: Pair) -> None:
    done = run("ip", "netns", "exec", pair.pod, "env", "PATH=/nowhere", str(PROXY), "init")
    assert done.returncode == 1
    assert "`nft` is not installed" in done.stderr


def test_rules_can_be_looked_at_without_being_set(pair: Pair) -> None:
    done = pair.init("--simulate")
    assert done.returncode == 0
    assert "redirect to :4143" in done.stdout
    assert not pair.rules()


def test_a_mistake_is_named() -> None:
    done = run(str(PROXY), "init", "--incoming-proxy-port", "x")
    assert done.returncode == 64
    assert "--incoming-proxy-port" in done.stderr
