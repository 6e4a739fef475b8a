import asyncio

import pytest
from linkerd.cluster.streams.duplex import Idle, Inbox, SocketDuplex


async def test_an_inbox_hands_out_all_that_is_there_and_then_the_end():
    inbox = Inbox()
    await inbox.put(b"a")
    await inbox.put(b"b")
    await inbox.end()
    assert await inbox.get() == b"ab"
    assert await inbox.get() == b""


async def test_a_full_inbox_holds_the_writer_until_it_is_read():
    inbox = Inbox(limit=3)
    await inbox.put(b"abcd")
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(inbox.put(b"e"))
        await asyncio.sleep(0)
        assert not waiting.done()
        assert await inbox.get() == b"abcd"
    assert await inbox.get() == b"e"


@pytest.mark.parametrize("way_out", ["discard", "end"])
async def test_a_held_writer_goes_on_when_nobody_reads_any_more(way_out):
    inbox = Inbox(limit=1)
    await inbox.put(b"a")
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(inbox.put(b"b"))
        await asyncio.sleep(0)
        await getattr(inbox, way_out)()


async def test_silence_for_too_long_ends_a_connection():
    reader = asyncio.StreamReader()
    duplex = SocketDuplex(reader, None, b"early", idle_seconds=0.01)
    assert await duplex.read() == b"early"
    with pytest.raises(Idle):
        await duplex.read()
