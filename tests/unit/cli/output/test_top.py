from linkerd.cli.output.top import Top, table
from linkerd.viz.tap.translate import parse_event
from support.tapping import Request


def fed(*requests: Request, **options) -> Top:
    top = Top(**options)
    for stream, request in enumerate(requests):
        request.stream = stream
        for event in request.events():
            top.add(parse_event(event.SerializeToString()))
    return top


def test_rows_are_counted_by_who_called_what():
    top = fed(
        Request(path="/a", milliseconds=2),
        Request(path="/a", milliseconds=150, status=500),
        Request(path="/a", milliseconds=5),
        Request(path="/b", milliseconds=1200, method="POST"),
    )
    assert top.rows() == [
        ["127.0.0.9", "127.0.0.2", "GET", "/a", "3", "2ms", "150ms", "5ms", "66.67%"],
        ["127.0.0.9", "127.0.0.2", "POST", "/b", "1", "1s", "1s", "1s", "100.00%"],
    ]


def test_sources_may_be_hidden_and_routes_shown():
    top = fed(Request(path="/a"), Request(path="/b", source="127.0.0.7:1"), hide_sources=True, routes=True)
    assert top.headings == ["Destination", "Route", "Count", "Best", "Worst", "Last", "Success Rate"]
    assert [row[:3] for row in top.rows()] == [["127.0.0.2", "[DEFAULT]", "2"]]


def test_a_response_without_its_request_is_not_counted():
    top = Top()
    for event in Request().events()[1:]:
        top.add(parse_event(event.SerializeToString()))
    assert top.rows() == []


def test_numbers_stand_on_the_right():
    lines = table(["Source", "Count"], [["web", "5"], ["frontend", "1500"]], 1)
    assert lines == ["Source    Count", "web           5", "frontend   1500"]
