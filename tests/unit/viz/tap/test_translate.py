import pytest
from linkerd.core.labels import Selector
from linkerd.proto import tap_pb2 as proxy
from linkerd.proto import viz_tap_pb2 as tap
from linkerd.viz.tap.translate import InvalidTap, drop_headers, observe_request, parse_event, selection_from
from support.tapping import Request


def request(**http: str) -> tap.TapByResourceRequest:
    message = tap.TapByResourceRequest()
    message.match.all.SetInParent()
    for name, value in http.items():
        setattr(message.match.all.matches.add().http, name, value)
    return message


def matches(message: tap.TapByResourceRequest) -> list[proxy.ObserveRequest.Match]:
    return list(observe_request(message).match.all.matches[0].all.matches)


def test_conditions_on_the_request_become_the_proxys():
    method, authority, path = matches(request(method="post", authority="web", path="/a"))
    assert method.http.method.registered == 1
    assert authority.http.authority.exact == "web"
    assert path.http.path.prefix == "/a"


def test_an_unknown_method_is_matched_by_its_name():
    assert matches(request(method="BREW"))[0].http.method.unregistered == "BREW"


@pytest.mark.parametrize(
    ("kind", "name", "namespace", "labels"),
    [
        ("deployment", "api", "shop", [("deployment", "api"), ("namespace", "shop")]),
        ("job", "nightly", "shop", [("k8s_job", "nightly"), ("namespace", "shop")]),
        ("service", "api", "", [("service", "api")]),
        ("namespace", "shop", "", [("namespace", "shop")]),
    ],
)
def test_destinations_are_found_by_their_endpoints_labels(kind, name, namespace, labels):
    message = request()
    resource = message.match.all.matches.add().destinations.resource
    resource.type, resource.name, resource.namespace = kind, name, namespace
    (match,) = matches(message)
    assert [(m.destination_label.key, m.destination_label.value) for m in match.all.matches] == labels


def test_a_destination_of_another_kind_is_refused():
    message = request()
    message.match.all.matches.add().destinations.resource.type = "serviceprofile"
    with pytest.raises(InvalidTap, match=r"unsupported resource type \[serviceprofile\]"):
        observe_request(message)


def test_without_sources_nothing_can_match():
    observed = observe_request(request(), source_ips=[])
    assert observed.match.all.matches[1].WhichOneof("match") == "any"
    assert not observed.match.all.matches[1].any.matches


def test_headers_are_asked_for_only_when_wanted():
    message = request()
    assert not observe_request(message).HasField("extract")
    message.extract.http.headers.SetInParent()
    assert observe_request(message).extract.http.HasField("headers")


def test_the_target_may_carry_a_selector():
    selection = tap.TapByResourceRequest().target
    selection.resource.type, selection.label_selector = "pod", "app=web"
    _, labels = selection_from(selection)
    assert labels.matches({"app": "web"})
    assert labels != Selector()


@pytest.mark.parametrize("value", [b"plain", "schön".encode()])
def test_headers_are_text_where_they_can_be(value):
    init, *_ = Request(headers={"x-name": value}).events()
    (header,) = parse_event(init.SerializeToString()).http.request_init.headers.headers
    assert header.value_str == value.decode()


def test_headers_that_are_no_text_stay_bytes():
    init, *_ = Request(path="/x", headers={"x-bin": b"\xff\x00", "x-text": b"a"}).events()
    event = parse_event(init.SerializeToString())
    binary, text = event.http.request_init.headers.headers
    assert (binary.value_bin, text.value_str) == (b"\xff\x00", "a")
    assert event.http.request_init.path == "/x"


def test_ignored_headers_are_dropped():
    init, *_ = Request(headers={"Authorization": b"secret", "accept": b"*"}).events()
    event = parse_event(init.SerializeToString())
    drop_headers(event, frozenset(["authorization"]))
    assert [header.name for header in event.http.request_init.headers.headers] == ["accept"]
