"""The alert rules, each with Prometheus' own rule tests: when it tells, and when it keeps quiet."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field

import pytest
import yaml
from linkerd.install.monitoring import alert_rules
from support.apiserver import ROOT

PROGRAM = ROOT / ".venv/bin/promtool"
WEB = 'namespace="shop",deployment="web"'
POD = 'namespace="shop",pod="web-1"'
INBOUND = f'response_total{{direction="inbound",route_kind="default",route_name="default",{WEB},classification="%s"}}'
PROBE = f'response_total{{direction="inbound",route_kind="default",route_name="probe",{WEB},classification="failure"}}'
BUCKET = f'response_latency_ms_bucket{{direction="inbound",route_kind="HTTPRoute",route_name="r",{WEB},le="%s"}}'
ROUTE = f'route_response_total{{direction="outbound",{WEB}}}'
ATTEMPT = f'route_actual_response_total{{direction="outbound",{WEB}}}'
RETRY = f"outbound_http_route_retry_requests_total{{{WEB}}}"
STATUS = f"outbound_http_route_request_statuses_total{{{WEB}}}"
CPU = f'process_cpu_seconds_total{{job="linkerd-proxy",{POD}}}'
OVERFLOW = f'proxy_metrics_overflow_total{{{POD},family="response_total"}}'
UP = f'up{{job="linkerd-proxy",{POD}}}'


@dataclass(frozen=True)
class Story:
    """Series (one value a minute), and whether the alert is on at the end of the given minute."""

    alert: str
    series: dict[str, str]
    fires: bool
    minute: int = 20
    labels: dict[str, str] = field(default_factory=lambda: {"namespace": "shop", "deployment": "web"})


def growing(per_minute: float, minutes: int = 30) -> str:
    return f"0+{per_minute}x{minutes}"


def certificate(left: float, lifetime: float) -> dict[str, str]:
    """As seen at minute 20 of a clock that starts at 0."""
    now = 20 * 60
    return {
        f"control_identity_cert_expiration_timestamp_seconds{{{POD}}}": f"{now + left}x30",
        f"control_identity_cert_refresh_timestamp_seconds{{{POD}}}": f"{now + left - lifetime}x30",
    }


OF_POD = {"namespace": "shop", "pod": "web-1"}
STORIES = [
    Story("LinkerdSuccessRateLow", {INBOUND % "success": growing(998), INBOUND % "failure": growing(2)}, True),
    Story("LinkerdSuccessRateLow", {INBOUND % "success": growing(9995), INBOUND % "failure": growing(5)}, False),
    Story("LinkerdSuccessRateLow", {INBOUND % "success": growing(999), PROBE: growing(60)}, False),
    Story("LinkerdSuccessRateLow", {INBOUND % "failure": growing(10)}, True),
    Story("LinkerdSuccessRateLow", {INBOUND % "success": growing(9), INBOUND % "failure": growing(1)}, False, 1),
    Story(
        "LinkerdLatencyHigh",
        {BUCKET % "1000": growing(98), BUCKET % "2000": growing(100), BUCKET % "+Inf": growing(100)},
        True,
    ),
    Story("LinkerdLatencyHigh", {BUCKET % "1000": growing(100), BUCKET % "+Inf": growing(100)}, False),
    Story("LinkerdRetryRateHigh", {ROUTE: growing(100), ATTEMPT: growing(115)}, True),
    Story("LinkerdRetryRateHigh", {ROUTE: growing(100), ATTEMPT: growing(105)}, False),
    Story("LinkerdRetryRateHigh", {STATUS: growing(100), RETRY: growing(20)}, True),
    Story("LinkerdRetryRateHigh", {STATUS: growing(100), RETRY: growing(5)}, False),
    Story("LinkerdProxyCPUHigh", {CPU: growing(54)}, True, labels=OF_POD),
    Story("LinkerdProxyCPUHigh", {CPU: growing(42)}, False, labels=OF_POD),
    Story("LinkerdCertificateNotRenewed", certificate(left=3600, lifetime=86400), True, labels=OF_POD),
    Story("LinkerdCertificateNotRenewed", certificate(left=30000, lifetime=86400), False, labels=OF_POD),
    Story("LinkerdIssuerExpiring", {"issuer_cert_ttl_seconds": "1000000x30"}, True, labels={}),
    Story("LinkerdIssuerExpiring", {"issuer_cert_ttl_seconds": "2000000x30"}, False, labels={}),
    Story(
        "LinkerdPodsNotMeshed",
        {'viz_pods{of_namespace="shop",meshed="false"}': "2x30", 'viz_pods{of_namespace="shop",meshed="true"}': "5x30"},
        True,
        labels={"of_namespace": "shop", "meshed": "false"},
    ),
    Story("LinkerdPodsNotMeshed", {'viz_pods{of_namespace="legacy",meshed="false"}': "2x30"}, False),
    Story("LinkerdSeriesLimitReached", {OVERFLOW: growing(1)}, True, labels=OF_POD | {"family": "response_total"}),
    Story("LinkerdSeriesLimitReached", {OVERFLOW: "7x30"}, False),
    Story("LinkerdProxyNotScraped", {UP: "0x30"}, True, labels=OF_POD | {"job": "linkerd-proxy"}),
    Story("LinkerdProxyNotScraped", {UP: "1x30"}, False),
]


def promtool(*arguments: object, directory) -> subprocess.CompletedProcess[str]:
    if not PROGRAM.exists():
        pytest.skip(f"{PROGRAM} is not built (`make .build/promtool`)")
    command = [str(PROGRAM), *map(str, arguments)]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def rules(tmp_path):
    (tmp_path / "alerts.yaml").write_text(alert_rules())
    return tmp_path


def test_every_alert_has_a_story_in_which_it_tells_and_one_in_which_it_does_not():
    groups = yaml.safe_load(alert_rules())["groups"]
    alerts = {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}
    assert alerts == {story.alert for story in STORIES if story.fires}
    assert alerts == {story.alert for story in STORIES if not story.fires}


def test_the_rules_are_ones_that_prometheus_takes(rules):
    checked = promtool("check", "rules", "--lint=all", "--lint-fatal", "alerts.yaml", directory=rules)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("story", STORIES, ids=lambda story: f"{story.alert}-{'on' if story.fires else 'off'}")
def test_an_alert_tells(rules, story):
    """With the labels that name the object; the annotations are read from the rule, their templates filled in."""
    test = {
        "rule_files": ["alerts.yaml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in story.series.items()],
                "promql_expr_test": [
                    {
                        "expr": f'count by (alertname) (ALERTS{{alertname="{story.alert}", alertstate="firing"}})',
                        "eval_time": f"{story.minute}m",
                        "exp_samples": [{"labels": f'{{alertname="{story.alert}"}}', "value": 1}]
                        if story.fires
                        else [],
                    },
                    {
                        "expr": f"count(ALERTS{{{matchers(story)}}})",
                        "eval_time": f"{story.minute}m",
                        "exp_samples": [{"labels": "{}", "value": 1}] if story.fires else [],
                    },
                ],
            }
        ],
    }
    (rules / "test.yaml").write_text(yaml.safe_dump(test))
    done = promtool("test", "rules", "test.yaml", directory=rules)
    assert done.returncode == 0, done.stdout + done.stderr


def matchers(story: Story) -> str:
    labels = {"alertname": story.alert, "alertstate": "firing", **story.labels}
    return ",".join(f'{name}="{value}"' for name, value in labels.items())
