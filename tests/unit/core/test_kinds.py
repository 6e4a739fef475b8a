import pytest
from linkerd.core import kinds
from linkerd.core.kinds import Target, TargetError, UnknownKind, parse_kind, parse_targets


@pytest.mark.parametrize("name", ["deploy", "deployment", "deployments"])
def test_a_kind_has_a_short_a_singular_and_a_plural_name(name):
    assert parse_kind(name) is kinds.DEPLOYMENT


@pytest.mark.parametrize("name", ["Deploy", "deploys", "au", ""])
def test_other_names_are_unknown(name):
    with pytest.raises(UnknownKind, match=r"cannot find Kubernetes canonical name from friendly name \["):
        parse_kind(name)


@pytest.mark.parametrize(
    ("arguments", "targets"),
    [
        (["deploy"], [Target(kinds.DEPLOYMENT, "", "shop")]),
        (["deploy/web"], [Target(kinds.DEPLOYMENT, "web", "shop")]),
        (["deploy", "web", "api"], [Target(kinds.DEPLOYMENT, "web", "shop"), Target(kinds.DEPLOYMENT, "api", "shop")]),
        (["deploy/web", "svc/api"], [Target(kinds.DEPLOYMENT, "web", "shop"), Target(kinds.SERVICE, "api", "shop")]),
        (["ns/shop"], [Target(kinds.NAMESPACE, "shop", "")]),
    ],
)
def test_targets(arguments, targets):
    assert parse_targets(arguments, "shop") == targets


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "No resource arguments provided"),
        (["deploy/web/x"], "Invalid resource string: deploy/web/x"),
        (["deploy/web", "deploy/web"], "cannot supply duplicate resources"),
        (["all", "deploy/web"], "'all' can't be supplied alongside other resources"),
    ],
)
def test_refused_targets(arguments, message):
    with pytest.raises(TargetError, match=message):
        parse_targets(arguments)
