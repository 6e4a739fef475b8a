"""The entry point of the demo's image: `python -m linkerd_demo SERVICE`."""

from __future__ import annotations

import asyncio
import logging
import sys

from linkerd_demo.topology import BY_NAME, Service


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stdout)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    if len(sys.argv) != 2 or sys.argv[1] not in BY_NAME:
        sys.stderr.write(f"error: one service name is expected, of: {', '.join(BY_NAME)}\n")
        return 2
    asyncio.run(_run(BY_NAME[sys.argv[1]]))
    return 0


async def _run(service: Service) -> None:
    # Imported where they are used: a service carries only what it needs.
    if service.kind == "grpc":
        from linkerd_demo.ledger import serve_ledger

        await serve_ledger(service.name)
    elif service.kind == "cache":
        from linkerd_demo.cache import serve_cache

        await serve_cache()
    elif service.kind == "load":
        from linkerd_demo.load import generate

        await generate(service)
    else:
        from linkerd_demo.service import HttpService

        await HttpService(service).run()


if __name__ == "__main__":
    sys.exit(main())
