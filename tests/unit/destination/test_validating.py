"""What sp-validator refuses, and how it says so."""

from __future__ import annotations

import re

import pytest
from linkerd.destination.validating import check_service_profile

NAME = "web.shop.svc.cluster.local"
ROUTE = {"name": "x", "condition": {"pathRegex": "/x"}}
BUDGET = {"retryRatio": 0.2, "minRetriesPerSecond": 10, "ttl": "10s"}


def profile(name: str = NAME, **spec):
    return {"metadata": {"name": name}, "spec": spec}


@pytest.mark.parametrize(
    "good",
    [
        profile(),
        profile(routes=[ROUTE]),
        profile("example.com", routes=[ROUTE]),
        profile(routes=[{**ROUTE, "timeout": "250ms", "isRetryable": True}], retryBudget=BUDGET),
        profile(routes=[{"name": "x", "condition": {"not": {"method": "get"}}}]),
        profile(routes=[{**ROUTE, "responseClasses": [{"condition": {"status": {"min": 500}}, "isFailure": True}]}]),
        profile(dstOverrides=[{"authority": "a:80", "weight": "500m"}, {"authority": "b:80", "weight": 0}]),
    ],
)
def test_what_can_work_is_let_through(good):
    check_service_profile(good)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (profile("web"), "metadata.name: `web`: the full name of a Service is wanted"),
        (profile("Web_1.x"), "metadata.name: `Web_1.x` is not a DNS name"),
        (profile(routes=[{"condition": {"pathRegex": "/"}}]), "spec.routes[0].name must be given"),
        (profile(routes=[{"name": "x"}]), "spec.routes[0].condition must be given"),
        (profile(routes=[ROUTE, ROUTE]), "spec.routes[1].name: `x` is the name of an earlier route"),
        (profile(routes=[{**ROUTE, "condition": {"pathRegex": "/a("}}]), "condition.pathRegex: `/a(` is not a regular"),
        (profile(routes=[{**ROUTE, "condition": {"pathRegex": "(?!x)"}}]), "look-around"),
        (profile(routes=[{**ROUTE, "condition": {"method": "BREW"}}]), "condition.method: `BREW`: one of GET"),
        (profile(routes=[{**ROUTE, "condition": {"all": [{}]}}]), "spec.routes[0].condition.all[0]: one of"),
        (profile(routes=[{**ROUTE, "condition": {"path": "/"}}]), "condition.path is unknown"),
        (profile(routes=[{**ROUTE, "timeout": "-1s"}]), "spec.routes[0].timeout: `-1s` is negative"),
        (profile(routes=[{**ROUTE, "timeout": "1 minute"}]), "spec.routes[0].timeout: `1 minute` is not a duration"),
        (profile(retryBudget={**BUDGET, "retryRatio": -0.1}), "retryRatio: `-0.1`: 0 to 1000"),
        (profile(retryBudget={**BUDGET, "ttl": "2m"}), "ttl: `2m`: 1s to 60s"),
        (profile(retryBudget={"retryRatio": 0.2}), "spec.retryBudget.minRetriesPerSecond must be given"),
        (profile(dstOverrides=[{"authority": "a", "weight": "-1"}]), "weight `-1` is negative"),
        (profile(dstOverrides=[{"authority": "a", "weight": 0}]), "at least one weight"),
        (profile(dstOverrides=[{"authority": "a:x", "weight": 1}]), "dstOverrides[0].authority: `x` is not a port"),
        (profile(dstOverrides=[{"authority": "a b", "weight": 1}]), "dstOverrides[0].authority: `a b`: a DNS name"),
        (profile(route=[]), "spec.route is unknown; dstOverrides"),
        (
            profile(routes=[{**ROUTE, "responseClasses": [{"condition": {"status": {"min": 500, "max": 400}}}]}]),
            "responseClasses[0].condition.status: min `500` is larger than max `400`",
        ),
    ],
)
def test_what_cannot_work_is_refused_with_field_and_value(bad, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        check_service_profile(bad)
