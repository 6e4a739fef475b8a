from linkerd.cli.output.stat import Layout, Row, Tcp, Traffic, json_rows, tables
from linkerd.core import kinds

BUSY = Row(kinds.DEPLOYMENT, "shop", "worker", 2, 2, traffic=Traffic(998, 10, 1, 20, 3000), tcp=Tcp(4, 6000, 12000))
IDLE = Row(kinds.DEPLOYMENT, "shop", "api", 1, 1)
MINUTE = Layout(60.0)


def test_the_guides_columns_come_first():
    assert tables([BUSY, IDLE], MINUTE) == (
        "NAME     MESHED   SUCCESS       RPS   LATENCY_P50   LATENCY_P95   LATENCY_P99   TCP_CONN\n"
        "api         1/1         -         -             -             -             -          -\n"
        "worker      2/2    99.01%   16.8rps           1ms          20ms        3000ms          4\n"
    )


def test_wide_adds_bytes_and_all_namespaces_add_theirs():
    heading, row = tables([BUSY], Layout(60.0, namespaces=True, wide=True)).splitlines()
    assert heading.startswith("NAMESPACE   NAME     MESHED")
    assert heading.endswith("TCP_CONN   READ_BYTES/SEC   WRITE_BYTES/SEC")
    assert row.endswith("4         100.0B/s          200.0B/s")


def test_several_kinds_get_a_table_each_with_prefixed_names():
    pod = Row(kinds.POD, "shop", "worker-1", 1, 1, status="Running")
    text = tables([pod, BUSY], MINUTE)
    first, second = text.split("\n\n")
    assert first.splitlines()[1].startswith("deploy/worker   ")
    assert second.splitlines()[1].startswith("po/worker-1     ")
    assert "STATUS" in second


def test_a_workload_that_speaks_tcp_only_shows_its_connections():
    cache = Row(kinds.DEPLOYMENT, "shop", "cache", 1, 1, tcp=Tcp(3, 600, 0))
    assert tables([cache], MINUTE).splitlines()[1].split() == ["cache", "1/1", "-", "-", "-", "-", "-", "3"]


def test_a_split_shows_apex_leaf_and_weight():
    leaf = Row(kinds.TRAFFIC_SPLIT, "shop", "split", apex="api", leaf="api-canary", weight="100")
    assert tables([leaf], MINUTE).splitlines()[0].split()[:5] == ["NAME", "APEX", "LEAF", "WEIGHT", "SUCCESS"]


def test_json_has_numbers_and_no_prefixes():
    idle, busy = json_rows([BUSY, IDLE], 60.0)
    assert busy["meshed"] == "2/2"
    assert (busy["success"], busy["rps"]) == (998 / 1008, 16.8)
    assert (busy["latency_ms_p99"], busy["tcp_open_connections"]) == (3000, 4)
    assert (idle["success"], idle["rps"], idle["latency_ms_p50"]) == (None, None, None)
