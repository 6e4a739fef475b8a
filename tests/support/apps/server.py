"""An HTTP/1.1 server that does what the path says, on port 8080 (or the first argument).

`/status/CODE` answers with that code · `/slow/MS` answers after so many milliseconds · `/echo` sends the body back ·
`/count` says how many requests came in before it · anything else gets 200. `/crash` ends the process with code 3.
SIGTERM lets open requests end.
"""

import asyncio
import os
import signal
import sys

from aiohttp import web

count = 0


async def handle(request: web.Request) -> web.Response:
    global count
    seen, count = count, count + 1
    match request.path.split("/")[1:]:
        case ["status", code]:
            return web.Response(status=int(code), text=code)
        case ["slow", milliseconds]:
            await asyncio.sleep(int(milliseconds) / 1000)
            return web.Response(text=os.uname().nodename)
        case ["echo"]:
            return web.Response(body=await request.read())
        case ["count"]:
            return web.json_response({"count": seen})
        case ["crash"]:
            os._exit(3)
    return web.Response(text=os.uname().nodename)


async def main() -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=10)
    await runner.setup()
    await web.TCPSite(runner, None, int(sys.argv[1]) if len(sys.argv) > 1 else 8080).start()
    print("listening", flush=True)
    await ended.wait()
    await runner.cleanup()


asyncio.run(main())
