import pytest
from linkerd.cli.sampling import Sampled, parse_reading, traffic


def metrics(success: int, failure: int = 0, fast: int = 0, read: int = 0) -> str:
    total = success + failure
    return f"""
# HELP response_total Total count of HTTP responses.
# TYPE response_total counter
response_total{{direction="inbound",status_code="200",classification="success"}} {success}
response_total{{direction="inbound",status_code="500",classification="failure"}} {failure}
response_total{{direction="inbound",route_kind="default",route_name="probe",classification="failure"}} {success * 2}
response_total{{direction="outbound",status_code="200",classification="success"}} 99999
response_latency_ms_bucket{{direction="inbound",le="1"}} {fast}
response_latency_ms_bucket{{direction="inbound",le="10"}} {total}
response_latency_ms_bucket{{direction="inbound",le="+Inf"}} {total}
tcp_open_connections{{direction="inbound",peer="src"}} 3
tcp_open_connections{{direction="inbound",peer="dst"}} 8
tcp_read_bytes_total{{direction="inbound",peer="src"}} {read}
# EOF
"""


def sampled(before: str, after: str, seconds: float = 5.0) -> Sampled:
    return Sampled(parse_reading(before, 100.0), parse_reading(after, 100.0 + seconds))


def test_what_was_counted_in_between_is_the_traffic():
    counted, tcp = traffic([sampled(metrics(100, read=1000), metrics(190, 10, fast=50, read=1500))], 5.0)
    assert (counted.success, counted.failure, counted.success_rate) == (90, 10, 0.9)
    assert (counted.p50, counted.p95) == (1.0, pytest.approx(9.1))
    assert (tcp.connections, tcp.read_bytes) == (3, 500)


def test_each_proxy_is_scaled_by_its_own_time():
    counted, _ = traffic([sampled(metrics(0), metrics(50)), sampled(metrics(0), metrics(60), seconds=6.0)], 5.0)
    assert counted.total == 100


def test_a_proxy_that_restarted_counts_what_it_has_now():
    counted, _ = traffic([sampled(metrics(1000), metrics(7))], 5.0)
    assert counted.total == 7


def test_silence_is_no_traffic():
    counted, _ = traffic([sampled(metrics(10), metrics(10))], 5.0)
    assert counted is None
