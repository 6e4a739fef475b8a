import orjson
import pytest
from linkerd.cli.output.json import line as json_line
from linkerd.cli.output.tap import JsonEvents, grpc_code, line
from linkerd.viz.tap.translate import parse_event
from support.tapping import Request


def events(**more):
    return [parse_event(event.SerializeToString()) for event in Request(stream=3, **more).events()]


def test_a_request_is_three_lines():
    flow = "id=0:3 proxy=in  src=127.0.0.9:51000 dst=127.0.0.2:8080 tls=true"
    assert [line(event) for event in events(path="/api/users", status=503, milliseconds=12.34)] == [
        f"req {flow} :method=GET :authority=web.shop.svc.cluster.local :path=/api/users",
        f"rsp {flow} :status=503 latency=12.3ms",
        f"end {flow} duration=0.100ms response-length=5B",
    ]


def test_outbound_is_seen_at_the_destination():
    event = events(direction="OUTBOUND")[0]
    event.destination_meta.labels["tls"] = "not_provided_by_service_discovery"
    assert "proxy=out src=" in line(event)
    assert "tls=not_provided_by_service_discovery " in line(event)


def test_wide_appends_labels_in_order():
    event = events()[1]
    event.source_meta.labels["deployment"] = "web"
    event.route_meta.labels["route"] = "GET /"
    assert line(event, wide=True).endswith(" src_deployment=web src_tls=true rt_route=GET /")


def test_the_end_tells_how_it_ended():
    end = events()[2]
    end.http.response_end.eos.grpc_status_code = 14
    end.cause_code, end.close_reason = "failfast", "proxy: failfast"
    assert " grpc-status=Unavailable duration=" in line(end)
    assert line(end).endswith(" cause=failfast close=proxy: failfast")


@pytest.mark.parametrize(("number", "name"), [(0, "OK"), (1, "Canceled"), (16, "Unauthenticated"), (17, "Code(17)")])
def test_grpc_statuses_have_gos_names(number, name):
    assert grpc_code(number) == name


def test_json_is_one_object_a_line_and_its_end_carries_the_request():
    values = JsonEvents()
    parsed = [
        orjson.loads(json_line(values.value(event))) for event in events(method="POST", path="/slow", milliseconds=1500)
    ]
    init, response, end = parsed
    assert init["requestInit"]["method"]["registered"] == "POST"
    assert response["responseInit"]["httpStatus"] == 200
    assert end["requestInit"]["path"] == response["requestInit"]["path"] == "/slow"
    assert end["responseEnd"]["sinceRequestInit"] == {"nanos": 1_500_100_000}
    assert end["source"] == {"ip": "127.0.0.9", "port": 51000, "metadata": {"tls": "true"}}


def test_headers_of_json_are_text_or_base64():
    event = parse_event(Request(headers={"a": b"b", "x-bin": b"\xff"}).events()[0].SerializeToString())
    headers = JsonEvents().value(event)["requestInit"]["headers"]
    assert headers == [{"name": "a", "valueStr": "b"}, {"name": "x-bin", "valueBin": "/w=="}]
