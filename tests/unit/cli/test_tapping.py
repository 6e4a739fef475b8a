import pytest
from linkerd.cli.errors import UserError
from linkerd.cli.tapping import Losses, parse_statuses


@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        ("", []),
        ("5xx", [(500, 599)]),
        ("404", [(404, 404)]),
        ("5XX, 404,429-431", [(500, 599), (404, 404), (429, 431)]),
    ],
)
def test_statuses(text, ranges):
    assert parse_statuses(text) == ranges


@pytest.mark.parametrize("text", ["6xx", "20", "abc", "500-", "5x"])
def test_no_statuses(text):
    with pytest.raises(UserError, match="is not a status"):
        parse_statuses(text)


def test_losses_are_told_with_what_helps():
    told: list[str] = []
    losses = Losses(100, told.append)
    losses.add(0)
    losses.add(5)
    losses.add(3)  # within the second: told together with the next
    losses.tell(last=True)
    assert told == [
        "5 requests were not shown: too many at once; raise --max-rps (now 100) or narrow the filter",
        "3 requests were not shown: too many at once",
    ]
