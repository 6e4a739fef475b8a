import pytest
from linkerd.cluster.streams.routes import Route, Target, parse_route


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/exec/ns/pod/c", Route("exec", Target("ns", "pod", "c"))),
        ("/exec/ns/pod/uid/c", Route("exec", Target("ns", "pod", "c", "uid"))),
        ("/attach/ns/pod/c/", Route("attach", Target("ns", "pod", "c"))),
        ("/portForward/ns/pod", Route("portForward", Target("ns", "pod"))),
        ("/portForward/ns/pod/uid", Route("portForward", Target("ns", "pod", uid="uid"))),
        ("/containerLogs/ns/pod/c", Route("containerLogs", Target("ns", "pod", "c"))),
        ("/metrics/resource", Route("metrics/resource")),
        ("/runningpods/", Route("runningpods")),
        ("/exec/ns/pod", None),
        ("/exec/ns//c", None),
        ("/", None),
        ("/logs/", None),
    ],
)
def test_paths_are_kubelets(path, route):
    assert parse_route(path) == route
