import asyncio

import pytest
from linkerd.kit.background import background


async def test_what_still_runs_is_cancelled_at_the_end():
    async with background() as start:
        task = start(asyncio.sleep(1000))
        await asyncio.sleep(0)
    assert task.cancelled()


async def test_the_blocks_own_error_passes_as_it_is():
    async def block() -> None:
        async with background() as start:
            start(asyncio.sleep(1000))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await block()


async def test_a_failing_task_ends_the_block():
    async def fail() -> None:
        raise ZeroDivisionError

    async def block() -> None:
        async with background() as start:
            start(fail())
            await asyncio.sleep(1000)

    with pytest.raises(ExceptionGroup) as failed:
        await block()
    assert isinstance(failed.value.exceptions[0], ZeroDivisionError)
