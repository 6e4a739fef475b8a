from datetime import UTC, datetime, timedelta

from linkerd.cluster.node.api import ContainerUsage, NodeUsage, PodUsage, Stats
from linkerd.cluster.streams.usage import render_resource_metrics, summary_of

START = datetime(2026, 1, 1, tzinfo=UTC)


def stats(seconds: int, cpu: float, started: datetime = START) -> Stats:
    container = ContainerUsage("app", started, cpu, 4096)
    pod = PodUsage("ns", "web", "uid", START, (container,))
    return Stats(START + timedelta(seconds=seconds), NodeUsage("node-1", START, 2 * cpu, 8192, 16384), (pod,))


def test_the_page_is_kubelets():
    assert render_resource_metrics(stats(10, 1.5)) == (
        "# HELP container_cpu_usage_seconds_total Cumulative cpu time consumed by the container\n"
        "# TYPE container_cpu_usage_seconds_total counter\n"
        'container_cpu_usage_seconds_total{container="app",namespace="ns",pod="web"} 1.5 1767225610000\n'
        "# HELP container_memory_working_set_bytes Current working set of the container in bytes\n"
        "# TYPE container_memory_working_set_bytes gauge\n"
        'container_memory_working_set_bytes{container="app",namespace="ns",pod="web"} 4096.0 1767225610000\n'
        "# HELP container_start_time_seconds Start time of the container since unix epoch in seconds\n"
        "# TYPE container_start_time_seconds gauge\n"
        'container_start_time_seconds{container="app",namespace="ns",pod="web"} 1767225600.0\n'
        "# HELP node_cpu_usage_seconds_total Cumulative cpu time of the node\n"
        "# TYPE node_cpu_usage_seconds_total counter\n"
        "node_cpu_usage_seconds_total 3.0 1767225610000\n"
        "# HELP node_memory_working_set_bytes Working set of the node\n"
        "# TYPE node_memory_working_set_bytes gauge\n"
        "node_memory_working_set_bytes 8192.0 1767225610000\n"
        "# HELP pod_cpu_usage_seconds_total Cumulative cpu time consumed by the pod\n"
        "# TYPE pod_cpu_usage_seconds_total counter\n"
        'pod_cpu_usage_seconds_total{namespace="ns",pod="web"} 1.5 1767225610000\n'
        "# HELP pod_memory_working_set_bytes Current working set of the pod in bytes\n"
        "# TYPE pod_memory_working_set_bytes gauge\n"
        'pod_memory_working_set_bytes{namespace="ns",pod="web"} 4096.0 1767225610000\n'
        "# HELP resource_scrape_error 1 if there was an error while getting container metrics\n"
        "# TYPE resource_scrape_error gauge\n"
        "resource_scrape_error 0.0\n"
    )


def test_an_idle_container_is_measured_all_the_same():
    assert 'pod="web"} 1e-06 ' in render_resource_metrics(stats(10, 0.0))


def test_rates_are_between_two_readings():
    summary = summary_of(stats(20, 2.0), stats(10, 1.0))
    (pod,) = summary["pods"]
    assert summary["node"]["cpu"]["usageNanoCores"] == 200_000_000
    assert pod["containers"][0]["cpu"]["usageNanoCores"] == 100_000_000
    assert pod["cpu"]["usageCoreNanoSeconds"] == 2_000_000_000


def test_a_restarted_container_has_no_rate_yet():
    (pod,) = summary_of(stats(20, 0.1, START + timedelta(seconds=15)), stats(10, 1.0))["pods"]
    assert "usageNanoCores" not in pod["containers"][0]["cpu"]
    assert "usageNanoCores" not in pod["cpu"]
