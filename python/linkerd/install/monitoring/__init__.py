"""Alert rules and Grafana dashboards, as data."""

from __future__ import annotations

from importlib.resources import files


def alert_rules() -> str:
    """A rule file of Prometheus."""
    return (files(__name__) / "alerts.yaml").read_text()


def dashboards() -> dict[str, str]:
    """Grafana's JSON by file name."""
    folder = files(__name__) / "dashboards"
    found = [entry for entry in folder.iterdir() if entry.name.endswith(".json")]
    return {entry.name: entry.read_text() for entry in sorted(found, key=lambda entry: entry.name)}
