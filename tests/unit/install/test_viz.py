"""The manifests of viz."""

from __future__ import annotations

from pathlib import Path

import yaml
from linkerd.cli.output.documents import yaml_text
from linkerd.cli.rendering import complete_values
from linkerd.install.certificates import ServerCertificate
from linkerd.install.values import merged
from linkerd.install.viz import VizInstallation, render
from support.golden import check_golden

GOLDENS = Path(__file__).parent / "goldens"
TAP = ServerCertificate("CERT\n", "KEY\n", "CA\n")


def documents(**given):
    values = complete_values(merged({"linkerdVersion": "stable-9.9.9"}, given), "viz_values.yaml")
    return render(VizInstallation("linkerd-viz", values, TAP))


def names(found, kind):
    return [d["metadata"]["name"] for d in found if d["kind"] == kind]


def test_the_manifests():
    check_golden(GOLDENS / "viz.yaml", "".join("---\n" + yaml_text(document) for document in documents()))


def test_a_prometheus_of_the_users_takes_the_place_of_ours():
    found = documents(prometheusUrl="http://mine:9090")
    assert names(found, "Deployment") == ["metrics-api", "tap"]
    assert found[0]["metadata"]["annotations"]["viz.linkerd.io/external-prometheus"] == "http://mine:9090"
    container = next(d for d in found if d["kind"] == "Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert "--prometheus-url=http://mine:9090" in container["args"]


def prometheus_files(**settings):
    found = documents(prometheus=settings)
    return next(d for d in found if d["metadata"]["name"] == "prometheus-config")["data"]


def test_the_alert_rules_are_prometheus_own_unless_switched_off():
    files = prometheus_files()
    assert yaml.safe_load(files["prometheus.yml"])["rule_files"] == ["/etc/prometheus/alerts.yml"]
    assert "LinkerdSuccessRateLow" in files["alerts.yml"]
    off = prometheus_files(alerts=False)
    assert set(off) == {"prometheus.yml"}
    assert "rule_files" not in off["prometheus.yml"]


def test_prometheus_scrapes_with_its_identity():
    """Through its proxy, or no policy could let it in (`viz allow-scrapes`)."""
    prometheus = next(d for d in documents() if d["kind"] == "Deployment" and d["metadata"]["name"] == "prometheus")
    annotations = prometheus["spec"]["template"]["metadata"]["annotations"]
    assert annotations["config.linkerd.io/skip-outbound-ports"] == "443,6443"


def test_who_is_told_of_alerts():
    alerting = yaml.safe_load(prometheus_files(alertmanagers=["mine:9093"])["prometheus.yml"])["alerting"]
    assert alerting["alertmanagers"] == [{"static_configs": [{"targets": ["mine:9093"]}]}]


def test_a_grafana_of_the_users_gets_the_dashboards():
    assert "linkerd-grafana-dashboards" not in names(documents(), "ConfigMap")
    found = documents(grafana={"url": "http://grafana:3000"})
    assert found[0]["metadata"]["annotations"]["viz.linkerd.io/grafana"] == "http://grafana:3000"
    dashboards = next(d for d in found if d["metadata"]["name"] == "linkerd-grafana-dashboards")
    assert dashboards["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert set(dashboards["data"]) == {"health.json", "routes.json", "top-line.json", "workload.json"}


def test_the_scrape_timeout_is_never_longer_than_the_interval():
    def config(interval):
        found = documents(prometheus={"scrapeInterval": interval})
        data = next(d for d in found if d["metadata"]["name"] == "prometheus-config")["data"]
        return yaml.safe_load(data["prometheus.yml"])["global"]

    assert config("5s") == {"scrape_interval": "5s", "scrape_timeout": "5s", "evaluation_interval": "5s"}
    assert config("30s")["scrape_timeout"] == "10s"
