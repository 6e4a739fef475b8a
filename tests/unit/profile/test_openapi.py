"""Routes from OpenAPI documents of each version."""

from __future__ import annotations

import pytest
from linkerd.profile.openapi import routes_from_openapi
from linkerd.profile.routes import ProfileError, Statuses

GET = {"get": {"responses": {"200": {}}}}
HEADS = [{"swagger": "2.0"}, {"openapi": "3.0.3"}, {"openapi": "3.1.0"}]


def document(head=None, paths=None, **more):
    return {**(head or {"openapi": "3.0.3"}), "paths": {"/users": GET} if paths is None else paths, **more}


def names(found):
    return [route.name for route in found]


@pytest.mark.parametrize("head", HEADS)
def test_each_operation_is_a_route(head):
    paths = {"/users/{id}": GET, "/users": {"post": {}, "get": {}, "parameters": []}}
    found = routes_from_openapi(document(head, paths))
    assert names(found) == ["GET /users", "POST /users", "GET /users/{id}"]
    assert found[2].path_regex == "/users/[^/]*"


def test_a_literal_path_comes_before_the_parameter_that_would_take_it():
    assert names(routes_from_openapi(document(paths={"/u/{id}": GET, "/u/me": GET}))) == ["GET /u/me", "GET /u/{id}"]


def test_a_path_is_matched_as_it_is_written():
    assert routes_from_openapi(document(paths={"/a.b/{x}/(c)": GET}))[0].path_regex == r"/a\.b/[^/]*/\(c\)"


def test_responses_in_order_with_their_failures():
    responses = {"default": {}, 503: {}, "200": {}, "5XX": {}, "404": {}}
    found = routes_from_openapi(document(paths={"/a": {"get": {"responses": responses}}}))[0].responses
    assert found == (Statuses(200, 200), Statuses(404, 404), Statuses(500, 599), Statuses(503, 503))
    assert [statuses.is_failure for statuses in found] == [False, False, True, True]


def test_our_extensions_of_an_operation():
    operation = {"x-linkerd-retryable": True, "x-linkerd-timeout": "300ms"}
    route = routes_from_openapi(document(paths={"/a": {"get": operation}}))[0]
    assert (route.is_retryable, route.timeout) == (True, "300ms")


def test_the_base_path_of_swagger_2():
    assert names(routes_from_openapi(document({"swagger": "2.0"}, basePath="/api/v1/"))) == ["GET /api/v1/users"]


@pytest.mark.parametrize(
    ("servers", "expected"),
    [
        ([{"url": "https://shop.example/api"}], ["GET /api/users"]),
        ([{"url": "/{base}", "variables": {"base": {"default": "v2"}}}], ["GET /v2/users"]),
        ([{"url": "https://a.example/x"}, {"url": "https://b.example/x/"}], ["GET /x/users"]),
        ([{"url": "/v1"}, {"url": "/v2"}], ["GET /v1/users", "GET /v2/users"]),
        ([], ["GET /users"]),
    ],
)
def test_the_paths_of_openapi_3s_servers(servers, expected):
    assert names(routes_from_openapi(document(servers=servers))) == expected


def test_servers_of_a_path_and_of_an_operation_replace_those_above():
    operation = {"get": {"servers": [{"url": "/op"}]}, "post": {}, "servers": [{"url": "/item"}]}
    found = routes_from_openapi(document(servers=[{"url": "/root"}], paths={"/a": operation}))
    assert names(found) == ["GET /op/a", "POST /item/a"]


def test_a_path_item_by_reference():
    components = {"pathItems": {"shared/one": GET}}
    paths = {"/a": {"$ref": "#/components/pathItems/shared~1one"}}
    assert names(routes_from_openapi(document({"openapi": "3.1.0"}, paths, components=components))) == ["GET /a"]


@pytest.mark.parametrize(
    ("broken", "text"),
    [
        ([], "mapping"),
        ({"paths": {"/a": GET}}, "neither Swagger 2"),
        (document(paths={}), "no routes"),
        (document(paths=["/a"]), "`paths`"),
        (document(paths={"/a": {"$ref": "other.yaml"}}), "bundle"),
        (document(paths={"/a": {"$ref": "#/nowhere"}}), "not there"),
        (document(paths={"/a": {"$ref": "#/paths/~1a"}}), "circle"),
    ],
)
def test_what_is_wrong_is_said(broken, text):
    with pytest.raises(ProfileError, match=text):
        routes_from_openapi(broken)
