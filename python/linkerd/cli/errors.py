"""Errors that a person reads: one line of what is wrong, one of what to try.

Commands raise `UserError`; everything else that may reach the top is explained here, in the one place that turns
exceptions into words and exit codes.
"""

from __future__ import annotations

import sys


class UserError(Exception):
    """Ends the command with `error: <message>`, `hint: <hint>` on stderr and the exit code."""

    def __init__(self, message: str, hint: str = "", exit_code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit_code = exit_code


def explain(error: BaseException) -> UserError | None:
    """What to tell about an exception of the Kubernetes client or the network; None if it is a defect of ours.

    The modules are looked up, not imported: a command that never spoke to a cluster never raised their errors.
    """
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, UserError):
        return error
    return _explain_kubernetes(error) or _explain_network(error)


def _explain_kubernetes(error: BaseException) -> UserError | None:
    config, errors = sys.modules.get("linkerd.k8s.config"), sys.modules.get("linkerd.k8s.errors")
    if config is not None and isinstance(error, config.ConfigError):
        return UserError(
            f"cannot configure the Kubernetes API client: {error}",
            "set KUBECONFIG, pass `--kubeconfig`, or start a local cluster with `linkerd cluster start`",
        )
    if errors is None or not isinstance(error, errors.ApiError):
        return None
    if isinstance(error, errors.Unauthorized):
        return UserError(f"the Kubernetes API does not know you: {error}", "check the credentials in the kubeconfig")
    if isinstance(error, errors.Forbidden):
        return UserError(str(error), "the kubeconfig's user lacks this right; see `kubectl auth can-i --list`")
    return UserError(str(error))


def _explain_network(error: BaseException) -> UserError | None:
    aiohttp = sys.modules.get("aiohttp")
    if aiohttp is not None and isinstance(error, aiohttp.ClientConnectionError):
        return UserError(
            f"cannot reach the Kubernetes API: {error or type(error).__name__}",
            "is the cluster up? (`kubectl cluster-info`, `linkerd cluster status`)",
        )
    if aiohttp is not None and isinstance(error, aiohttp.ClientError):
        return UserError(f"the connection to the Kubernetes API broke: {error or type(error).__name__}")
    if isinstance(error, TimeoutError):
        return UserError(f"no answer in time{f': {error}' if str(error) else ''}")
    if isinstance(error, OSError) and error.filename:
        return UserError(f"{error.filename}: {error.strerror}")
    if isinstance(error, ConnectionError):
        return UserError(f"the connection broke: {error}")
    return None


def report(error: UserError) -> None:
    """To stderr."""
    print(f"error: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)
