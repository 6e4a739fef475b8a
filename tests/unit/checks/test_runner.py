"""Which checks run, which are tried again, and what comes of failures."""

from __future__ import annotations

import asyncio

from linkerd.checks import runner
from linkerd.checks.model import Category, Check, CheckFailure, Outcome, Severity, Skipped
from linkerd.checks.runner import Runner
from linkerd.k8s.errors import Forbidden


def check(run, **options):
    return Check("d", "a", run, **options)


def failing(error):
    async def run():
        raise error

    return run


async def passing():
    pass


async def results(*checks, wait=0.0, forget=lambda: None, waiting=lambda _: None):
    deadline = asyncio.get_running_loop().time() + wait
    return [r async for r in Runner(deadline, forget, waiting).run([Category("c", [c]) for c in checks])]


async def test_a_fatal_failure_ends_the_run():
    found = await results(check(failing(CheckFailure("no"))), check(passing))
    assert [(r.outcome, r.error) for r in found] == [(Outcome.FAILED, "no")]


async def test_an_error_does_not_end_the_run():
    found = await results(check(failing(CheckFailure("no")), severity=Severity.ERROR), check(passing))
    assert [r.outcome for r in found] == [Outcome.FAILED, Outcome.OK]


async def test_a_warning_is_no_failure():
    found = await results(check(failing(CheckFailure("hm")), severity=Severity.WARNING))
    assert [r.outcome for r in found] == [Outcome.WARNING]


async def test_what_need_not_be_checked_is_left_out():
    assert await results(check(failing(Skipped()))) == []


async def test_errors_of_the_api_are_told():
    found = await results(check(failing(Forbidden(403, "Forbidden", "pods is forbidden"))))
    assert found[0].error == "pods is forbidden"


async def test_a_failure_is_tried_again_with_fresh_eyes(monkeypatch):
    monkeypatch.setattr(runner, "RETRY_SECONDS", 0.0)
    attempts, told = [], []

    async def third_time():
        attempts.append(None)
        if len(attempts) < 3:
            raise CheckFailure("not yet")

    forgotten = []
    found = await results(
        check(third_time, retry=True, surface=True),
        wait=60,
        forget=lambda: forgotten.append(None),
        waiting=told.append,
    )
    assert found[0].outcome is Outcome.OK
    assert (len(attempts), len(forgotten), told) == (3, 2, ["not yet", "not yet"])


async def test_without_time_there_is_one_attempt():
    found = await results(check(failing(CheckFailure("no")), retry=True))
    assert found[0].outcome is Outcome.FAILED
