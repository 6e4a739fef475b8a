"""A caller: requests in turn to its targets, at a rate that can be changed while it runs (0 stops it)."""

from __future__ import annotations

import asyncio
import logging
import signal

import aiohttp

from linkerd_demo.faults import read_rate
from linkerd_demo.topology import Call, Service

log = logging.getLogger(__name__)

_MAX_RATE = 2_000
_MAX_OPEN = 200
_IDLE_CHECK_SECONDS = 1.0


async def generate(service: Service) -> None:
    """Calls until SIGTERM."""
    task = asyncio.current_task()
    assert task is not None, "runs in a task"
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    timeout = aiohttp.ClientTimeout(total=10)
    connector = aiohttp.TCPConnector(limit=_MAX_OPEN)
    try:
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session, asyncio.TaskGroup() as group:
            await _pace(service, session, group)
    except asyncio.CancelledError:
        log.info("%s ends", service.name)


async def _pace(service: Service, session: aiohttp.ClientSession, group: asyncio.TaskGroup) -> None:
    """An open loop: a slow answer does not slow the next request down, up to a bound of open ones."""
    loop = asyncio.get_running_loop()
    slots = asyncio.Semaphore(_MAX_OPEN)
    due = loop.time()
    turn = 0
    rate = current_rate(service)
    checked = due
    while True:
        now = loop.time()
        if now - checked >= _IDLE_CHECK_SECONDS:
            rate, checked = current_rate(service), now
        if rate <= 0:
            await asyncio.sleep(_IDLE_CHECK_SECONDS)
            due = loop.time()
            continue
        due = max(due + 1 / rate, now - 1)
        await asyncio.sleep(max(0.0, due - now))
        await slots.acquire()
        group.create_task(_one(session, service.targets[turn % len(service.targets)], slots))
        turn += 1


def current_rate(service: Service) -> float:
    return min(read_rate(service.rate, service.name), _MAX_RATE)


async def _one(session: aiohttp.ClientSession, call: Call, slots: asyncio.Semaphore) -> None:
    try:
        async with session.request(call.method, call.url) as response:
            await response.read()
    except (aiohttp.ClientError, TimeoutError) as error:
        log.warning("%s %s: error: %s", call.method, call.url, error or type(error).__name__)
    finally:
        slots.release()
