"""The process of sp-validator: the admission webhook for ServiceProfiles."""

from __future__ import annotations

import argparse
import ssl
from pathlib import Path

from linkerd.destination.validating import check_service_profile
from linkerd.kit.admin import Readiness, serve_admin, serve_http
from linkerd.kit.admission import admission_app
from linkerd.kit.tasks import fail, run, run_until_terminated
from linkerd.kit.tls import DIRECTORY, keep_current, server_context
from linkerd.runtime import flags


def main(argv: list[str]) -> int:
    values = flags.parse(_parser(), argv)
    try:
        tls = server_context(values.tls_dir)
    except (OSError, ssl.SSLError) as error:
        return fail(f"the webhook's certificate in {values.tls_dir} cannot be used: {error}")
    return run(_serve(values, tls))


def _parser() -> argparse.ArgumentParser:
    parser = flags.parser("sp-validator", admin_addr=":9997")
    parser.add_argument("--addr", default=":8443")
    parser.add_argument("--tls-dir", type=Path, default=DIRECTORY, help="tls.crt and tls.key of the webhook")
    return parser


async def _serve(values: argparse.Namespace, tls: ssl.SSLContext) -> None:
    async with (
        serve_admin(values.admin_addr, Readiness()),
        serve_http(admission_app(check_service_profile), values.addr, tls),
    ):
        await run_until_terminated(keep_current(tls, values.tls_dir))
