from __future__ import annotations

from typing import Any

import pytest
from linkerd.cluster.node.environment import ConfigError
from linkerd.cluster.node.security import Account, Security, decide, parse_accounts
from linkerd.cluster.node.syscalls import CAPABILITIES

ACCOUNTS = [Account("root", 0, 0, "/root"), Account("nobody", 65534, 65534, "/nonexistent")]


def decided(pod: dict[str, Any] | None = None, image_user: str = "", **own: Any) -> Security:
    return decide({"securityContext": pod or {}}, {"name": "c", "securityContext": own}, image_user, ACCOUNTS)


def names(security: Security) -> set[str]:
    return {CAPABILITIES[number] for number in security.capabilities}


def test_the_container_goes_over_the_pod() -> None:
    assert decided({"runAsUser": 1, "runAsGroup": 2}, runAsUser=3) == decided(runAsUser=3, runAsGroup=2)


@pytest.mark.parametrize(
    ("image_user", "ids"), [("", (0, 0)), ("nobody", (65534, 65534)), ("10", (10, 0)), ("10:20", (10, 20))]
)
def test_the_images_user_is_the_default(image_user: str, ids: tuple[int, int]) -> None:
    security = decided(image_user=image_user)
    assert (security.uid, security.gid) == ids


def test_an_unknown_user_name_is_an_error() -> None:
    with pytest.raises(ConfigError, match="unable to find user web"):
        decided(image_user="web")


def test_groups_of_the_pod_are_supplementary() -> None:
    assert decided({"fsGroup": 30, "supplementalGroups": [10, 20]}).groups == (10, 20, 30)


def test_root_is_refused_where_it_is_not_wanted() -> None:
    with pytest.raises(ConfigError, match="runAsNonRoot and image will run as root"):
        decided({"runAsNonRoot": True})
    with pytest.raises(ConfigError, match="breaks non-root policy"):
        decided({"runAsNonRoot": True}, runAsUser=0)
    assert decided({"runAsNonRoot": True}, runAsUser=5).uid == 5


def test_capabilities_of_a_runtime() -> None:
    assert "NET_RAW" in names(decided())
    assert "NET_ADMIN" not in names(decided())
    assert "NET_ADMIN" in names(decided(capabilities={"add": ["CAP_NET_ADMIN"]}))
    assert names(decided(capabilities={"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]})) == {"NET_BIND_SERVICE"}
    assert names(decided(capabilities={"add": ["ALL"]})) == set(CAPABILITIES)
    assert names(decided(privileged=True)) == set(CAPABILITIES)


def test_the_remaining_switches() -> None:
    security = decided(allowPrivilegeEscalation=False, readOnlyRootFilesystem=True)
    assert security.no_new_privileges
    assert security.readonly_root
    assert not decided().no_new_privileges


def test_a_passwd_file_is_read() -> None:
    assert parse_accounts("root:x:0:0:root:/root:/bin/sh\n# broken\nx:y\n") == [Account("root", 0, 0, "/root")]
