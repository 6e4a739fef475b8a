"""Routes from what was requested."""

from __future__ import annotations

from linkerd.profile.traffic import SeenRoutes


def test_one_route_for_each_method_and_path():
    seen = SeenRoutes(20)
    for method, path in [("POST", "/b"), ("GET", "/a.json?x=1"), ("GET", "/a.json?x=2"), ("GET", "/"), ("GET", "/b")]:
        seen.add(method, path)
    assert [(route.name, route.path_regex) for route in seen.routes()] == [
        ("GET /a.json", r"/a\.json"),
        ("GET /b", "/b"),
        ("POST /b", "/b"),
    ]


def test_the_limit_ends_it():
    seen = SeenRoutes(2)
    for path in ("/1", "/1", "/2", "/3"):
        seen.add("GET", path)
    assert seen.full
    assert [route.name for route in seen.routes()] == ["GET /1", "GET /2"]
