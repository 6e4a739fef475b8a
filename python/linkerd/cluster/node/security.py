"""Who a container runs as and what it may do: securityContext of pod and container together (pure)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from linkerd.cluster.node.environment import ConfigError
from linkerd.cluster.node.syscalls import CAPABILITIES

Object = dict[str, Any]

_NAMES = """
    CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL
    AUDIT_WRITE
"""
_DEFAULT_CAPABILITIES = frozenset(_NAMES.split())
"""What container runtimes leave to root."""


@dataclass(frozen=True, slots=True)
class Account:
    """A line of /etc/passwd."""

    name: str
    uid: int
    gid: int
    home: str


@dataclass(frozen=True, slots=True)
class Security:
    """The outcome for one container."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    capabilities: tuple[int, ...]
    no_new_privileges: bool
    privileged: bool
    readonly_root: bool


def parse_accounts(text: str) -> list[Account]:
    """The lines of a passwd file; those that are none are left out."""
    accounts = []
    for line in text.splitlines():
        fields = line.split(":")
        if len(fields) >= 6 and fields[2].isdigit() and fields[3].isdigit():
            accounts.append(Account(fields[0], int(fields[2]), int(fields[3]), fields[5]))
    return accounts


def decide(pod_spec: Object, container: Object, image_user: str, accounts: Iterable[Account]) -> Security:
    """Raises ConfigError, with kubelet's words, when the container may not run as it would."""
    pod = pod_spec.get("securityContext") or {}
    own = container.get("securityContext") or {}
    known = list(accounts)
    uid, gid, home = _user(pod | _set(own), image_user, known)
    if _first("runAsNonRoot", own, pod) and uid == 0:
        raise ConfigError(
            f'container has runAsNonRoot and image will run as root (container: "{container["name"]}")'
            if _first("runAsUser", own, pod) is None
            else "container's runAsUser breaks non-root policy"
        )
    groups = {*(pod.get("supplementalGroups") or ()), *([pod["fsGroup"]] if "fsGroup" in pod else [])} - {gid}
    privileged = bool(own.get("privileged"))
    return Security(
        uid=uid,
        gid=gid,
        groups=tuple(sorted(groups)),
        home=home,
        capabilities=_capabilities(own.get("capabilities") or {}, privileged=privileged),
        no_new_privileges=own.get("allowPrivilegeEscalation") is False,
        privileged=privileged,
        readonly_root=bool(own.get("readOnlyRootFilesystem")),
    )


def _set(values: Object) -> Object:
    return {key: value for key, value in values.items() if value is not None}


def _first(key: str, *contexts: Object) -> Any:
    for context in contexts:
        if context.get(key) is not None:
            return context[key]
    return None


def _user(context: Object, image_user: str, accounts: list[Account]) -> tuple[int, int, str]:
    uid = context.get("runAsUser")
    wanted_gid = context.get("runAsGroup")
    name, _, group = image_user.partition(":")
    if uid is None:
        if name and not name.isdigit():
            found = next((account for account in accounts if account.name == name), None)
            if found is None:
                raise ConfigError(f"unable to find user {name}: no matching entries in passwd file")
            uid = found.uid
        else:
            uid = int(name or 0)
        if wanted_gid is None and group.isdigit():
            wanted_gid = int(group)
    account = next((account for account in accounts if account.uid == uid), None)
    gid = wanted_gid if wanted_gid is not None else (account.gid if account else 0)
    return uid, gid, account.home if account else "/"


def _capabilities(wanted: Object, *, privileged: bool) -> tuple[int, ...]:
    if privileged:
        return tuple(range(len(CAPABILITIES)))
    add = {_short(name) for name in wanted.get("add") or ()}
    drop = {_short(name) for name in wanted.get("drop") or ()}
    kept = frozenset(CAPABILITIES) if "ALL" in add else _DEFAULT_CAPABILITIES
    kept = frozenset() if "ALL" in drop else kept - drop
    kept |= (add & set(CAPABILITIES)) if "ALL" not in add else kept
    return tuple(number for number, name in enumerate(CAPABILITIES) if name in kept)


def _short(name: str) -> str:
    return name.upper().removeprefix("CAP_")
