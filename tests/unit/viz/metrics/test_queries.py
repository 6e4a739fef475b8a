import pytest
from linkerd.core import kinds
from linkerd.core.kinds import Target
from linkerd.viz.metrics import queries
from linkerd.viz.metrics.queries import Matcher, Question, parse_window, plan

WEB = Target(kinds.DEPLOYMENT, "web", "shop")
ALL = Target(kinds.DEPLOYMENT, "", "shop")


def labels(question: Question) -> set[str]:
    return {str(matcher) for matcher in plan(question).matchers}


@pytest.mark.parametrize(
    ("question", "matchers", "key"),
    [
        (
            Question(WEB),
            {'direction="inbound"', 'deployment="web"', 'namespace="shop"', 'deployment!=""'},
            ("namespace", "deployment"),
        ),
        (
            Question(Target(kinds.NAMESPACE, "shop")),
            {'direction="inbound"', 'namespace="shop"', 'namespace!=""'},
            ("", "namespace"),
        ),
        (
            Question(Target(kinds.JOB, "nightly", "shop")),
            {'direction="inbound"', 'k8s_job="nightly"', 'namespace="shop"', 'k8s_job!=""'},
            ("namespace", "k8s_job"),
        ),
        (
            Question(ALL, to=Target(kinds.SERVICE, "db", "data")),
            {'direction="outbound"', 'namespace="shop"', 'deployment!=""', 'dst_service="db"', 'dst_namespace="data"'},
            ("namespace", "deployment"),
        ),
        (
            Question(ALL, source=Target(kinds.NAMESPACE, "front")),
            {'direction="outbound"', 'namespace="front"', 'dst_namespace="shop"', 'dst_deployment!=""'},
            ("dst_namespace", "dst_deployment"),
        ),
        (
            Question(Target(kinds.SERVER, "grpc", "shop")),
            {'direction="inbound"', 'srv_kind="server"', 'srv_name="grpc"', 'namespace="shop"', 'srv_name!=""'},
            ("namespace", "srv_name"),
        ),
        (
            Question(Target(kinds.AUTHORIZATION_POLICY, "", "shop")),
            {'direction="inbound"', 'authz_kind="authorizationpolicy"', 'namespace="shop"', 'authz_name!=""'},
            ("namespace", "authz_name"),
        ),
    ],
)
def test_where_a_rows_traffic_is_found(question, matchers, key):
    assert labels(question) == matchers
    assert plan(question).key == key


@pytest.mark.parametrize(
    ("target", "pattern"),
    [
        (Target(kinds.SERVICE, "web", "shop"), r"web\\.shop\\.svc\\.cluster\\.local(:\\d+)?"),
        (Target(kinds.SERVICE, "", "shop"), r"[^.]+\\.shop\\.svc\\.cluster\\.local(:\\d+)?"),
        (Target(kinds.SERVICE, "", ""), r"[^.]+\\.[^.]+\\.svc\\.cluster\\.local(:\\d+)?"),
    ],
)
def test_services_are_found_by_their_whole_authority(target, pattern):
    assert f'authority=~"{pattern}"' in labels(Question(target))


def test_values_cannot_leave_their_quotes():
    assert str(Matcher("name", 'a"b\\c')) == 'name="a\\"b\\\\c"'


def test_latency_is_summed_by_bucket():
    assert plan(Question(WEB)).latency("30s").endswith("by (le, namespace, deployment)")


def test_authorizations_have_no_tcp():
    assert plan(Question(Target(kinds.SERVER_AUTHORIZATION, "a", "shop"))).tcp_matchers is None


@pytest.mark.parametrize(("text", "seconds"), [("1m", 60), ("1h30m", 5400), ("500ms", 0.5), ("1d", 86400)])
def test_windows(text, seconds):
    assert parse_window(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "m", "1.5m", "1m ", "-1m"])
def test_no_windows(text):
    with pytest.raises(ValueError, match="not a valid duration"):
        parse_window(text)


def test_profiles_are_matched_with_and_without_a_port():
    assert str(queries.profile_matcher(["b.x", "a.x"])) == 'dst=~"(a\\\\.x|b\\\\.x)(:\\\\d+)?"'
