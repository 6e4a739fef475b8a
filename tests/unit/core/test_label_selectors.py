import pytest
from hypothesis import given
from hypothesis import strategies as st
from linkerd.core.label_selectors import parse_label_selector

LABELS = {"app": "web", "tier": "front", "app.kubernetes.io/name": "web"}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("app=web", True),
        ("app==web,tier=front", True),
        ("app=api", False),
        ("app!=api", True),
        ("canary!=yes", True),
        ("app.kubernetes.io/name=web", True),
        ("tier in (front, back)", True),
        ("tier notin (front),app=web", False),
        ("app", True),
        ("!app", False),
        ("!canary, app = web", True),
    ],
)
def test_selects(text, matches):
    assert parse_label_selector(text).matches(LABELS) is matches


@pytest.mark.parametrize("text", ["=web", "app=web=api", "app in web", "app web", "app=(a)", ","])
def test_says_what_it_cannot_read(text):
    with pytest.raises(ValueError, match="is not a label selector: cannot read"):
        parse_label_selector(text)


@given(st.text())
def test_any_text_is_read_or_refused(text):
    try:
        parse_label_selector(text)
    except ValueError:
        pass
