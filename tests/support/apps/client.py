"""Sends a known number of requests and prints what became of them, as JSON: `{"200": 270, "503": 30, "error": 0}`.

    client.py URL --count N [--error-every K] [--concurrency C] [--interval MS] [--until-stdin-ends]

Every K-th request goes to `URL/status/503` instead of `URL/`. With --until-stdin-ends it goes on until its standard
input is closed, and --count is a bound. A request that got no answer counts as `error`, its reason on stderr.
"""

import argparse
import asyncio
import collections
import json
import sys

import aiohttp


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--error-every", type=int, default=0)
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--interval", type=float, default=0, help="milliseconds between the requests of one worker")
    parser.add_argument("--path", default="/", help="{n} is the number of the request")
    parser.add_argument("--until-stdin-ends", action="store_true")
    return parser.parse_args()


async def main() -> None:
    options = parse()
    results: collections.Counter[str] = collections.Counter()
    numbers = iter(range(1, options.count + 1))
    stopped = asyncio.Event()
    if options.until_stdin_ends:
        asyncio.get_running_loop().add_reader(
            sys.stdin, lambda: stopped.set() if not sys.stdin.buffer.read1() else None
        )

    async def work(session: aiohttp.ClientSession) -> None:
        for number in numbers:
            if stopped.is_set():
                return
            fails = options.error_every and number % options.error_every == 0
            path = "/status/503" if fails else options.path.format(n=number)
            try:
                async with session.get(options.url + path) as response:
                    await response.read()
                results[str(response.status)] += 1
            except (aiohttp.ClientError, TimeoutError) as error:
                print(f"request {number}: {error or type(error).__name__}", file=sys.stderr)
                results["error"] += 1
            if options.interval:
                await asyncio.sleep(options.interval / 1000)

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        await asyncio.gather(*(work(session) for _ in range(options.concurrency)))
    print(json.dumps(results))


asyncio.run(main())
