"""The TLS of our webhooks: `tls.crt` and `tls.key` of a mounted Secret, taken up again when they are replaced."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from linkerd.kit.files import changes

log = logging.getLogger(__name__)

DIRECTORY = Path("/var/run/linkerd/tls")


def server_context(directory: Path = DIRECTORY) -> ssl.SSLContext:
    """TLS 1.2 and newer, as the API server speaks it. Raises OSError or ssl.SSLError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    _load(context, directory)
    return context


async def keep_current(context: ssl.SSLContext, directory: Path = DIRECTORY) -> None:
    """For ever: new connections use the certificate that is in the directory now."""
    async for changed in changes([directory / "tls.crt", directory / "tls.key"]):
        if not changed:
            continue
        try:
            _load(context, directory)
            log.info("the webhook's certificate was replaced")
        except (OSError, ssl.SSLError) as error:
            log.error("the webhook's new certificate cannot be used, the old one stays: %s", error)


def _load(context: ssl.SSLContext, directory: Path) -> None:
    context.load_cert_chain(directory / "tls.crt", directory / "tls.key")
