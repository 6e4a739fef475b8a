"""Flags as Linkerd's components take them: `--name=value`, booleans with a value (`--enable-h2-upgrade=true`)."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence

from linkerd import VERSION
from linkerd.core.ports import PortSet, parse_port_set
from linkerd.kit import logging as kit_logging
from linkerd.kit.durations import parse_duration

log = logging.getLogger(__name__)

CLUSTER_NETWORKS = "10.0.0.0/8,100.64.0.0/10,172.16.0.0/12,192.168.0.0/16,fd00::/8"
OPAQUE_PORTS = "25,587,3306,4444,5432,6379,9300,11211"


def parser(component: str, *, admin_addr: str) -> argparse.ArgumentParser:
    """A parser with what every component has."""
    flags = argparse.ArgumentParser(prog=f"linkerd-controller {component}", allow_abbrev=False)
    flags.add_argument("--log-level", default="info", type=_log_level, help="debug, info, warn or error")
    flags.add_argument("--admin-addr", default=admin_addr, help="address of /ready, /live, /metrics")
    flags.add_argument("--kubeconfig", default=None, help="instead of the pod's service account")
    return flags


def parse(flags: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """The values, with the log already set up. Exits with status 2 for a wrong flag, as argparse does."""
    values = flags.parse_args(argv)
    kit_logging.configure(values.log_level)
    log.info("starting", extra=kit_logging.fields(component=flags.prog.split()[-1], version=VERSION))
    return values


def dashed(argv: Sequence[str]) -> list[str]:
    """Linkerd's manifests write long flags with one dash (`-prometheus-url=…`), as Go allows; argparse wants two."""
    return ["-" + word if len(word) > 2 and word[0] == "-" and word[1].isalpha() else word for word in argv]


def boolean(text: str) -> bool:
    if text.lower() in ("true", "1", "t"):
        return True
    if text.lower() in ("false", "0", "f"):
        return False
    raise argparse.ArgumentTypeError(f"`{text}` is neither true nor false")


def duration(text: str) -> float:
    """A Go duration, in seconds."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _log_level(text: str) -> str:
    if text.lower() not in kit_logging.LEVELS:
        raise argparse.ArgumentTypeError(f"`{text}` is none of {', '.join(kit_logging.LEVELS)}")
    return text


def ports(text: str) -> PortSet:
    try:
        return parse_port_set(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
