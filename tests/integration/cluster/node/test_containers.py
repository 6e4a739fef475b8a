from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from linkerd.cluster.node.rootfs import Mount
from linkerd.cluster.node.spawning import SpawnerGone, SpawnError
from linkerd.cluster.node.syscalls import CAPABILITIES

from .conftest import CLONE, Rig


async def test_a_container_is_alone(rig: Rig) -> None:
    code, text = await rig.run(rig.script("hostname; echo $$; ls /proc | grep -c '^[0-9]'; ls /sys/class/net"))
    hostname, pid, processes, *interfaces = text.split()
    assert (code, hostname, pid) == (0, "pod-1", "1")
    assert int(processes) <= 4  # the shell, its pipe's children, nothing of the host
    assert interfaces == ["lo"]


async def test_the_hosts_programs_are_there_and_its_private_parts_are_not(rig: Rig, tmp_path: Path) -> None:
    (tmp_path / "state/secret").write_text("key")
    script = f"ls /tmp /run /home; ls {tmp_path} 2>&1 | head -1; test -x /usr/bin/env && echo there"
    _, text = await rig.run(rig.script(script))
    assert "secret" not in text
    assert text.endswith("there\n")
    assert str(os.getpid()) not in (await rig.run(rig.script("ls /proc")))[1].split()


async def test_the_root_is_read_only_but_for_its_own_places(rig: Rig) -> None:
    script = "touch /tmp/a /run/a /var/tmp/a && echo own; touch /etc/a || touch /usr/a || echo refused"
    _, text = await rig.run(rig.script(script))
    assert "own" in text
    assert "refused" in text


async def test_a_read_only_root_is_read_only_everywhere(rig: Rig) -> None:
    rig.readonly = True
    _, text = await rig.run(rig.script("for d in / /tmp /run /var/tmp; do touch $d/a 2>/dev/null && echo $d; done"))
    assert text == ""
    assert (await rig.run(rig.script("touch /dev/shm/a")))[0] == 0


async def test_user_groups_and_no_capabilities_of_an_ordinary_user(rig: Rig) -> None:
    command = replace(
        rig.script("id -u; id -g; id -G; grep -E 'CapEff|CapBnd' /proc/self/status"), uid=2102, gid=7, groups=(8, 9)
    )
    _, text = await rig.run(command)
    assert text.splitlines()[:3] == ["2102", "7", "7 8 9"]
    assert {line.split()[1] for line in text.splitlines()[3:]} == {"0000000000000000"}


async def test_root_has_just_the_capabilities_it_was_given(rig: Rig) -> None:
    number = CAPABILITIES.index("NET_ADMIN")
    command = replace(rig.script("grep CapEff /proc/self/status; ip link set lo up && echo up"), capabilities=(number,))
    _, text = await rig.run(command)
    assert int(text.split()[1], 16) == 1 << number
    assert text.endswith("up\n")
    _, without = await rig.run(rig.script("ip link set lo mtu 1400 2>/dev/null || echo refused"))
    assert without == "refused\n"


async def test_no_new_privileges(rig: Rig) -> None:
    command = replace(rig.script("grep NoNewPrivs /proc/self/status"), no_new_privileges=True)
    assert (await rig.run(command))[1].split() == ["NoNewPrivs:", "1"]


async def test_our_programs_run_for_any_user_wherever_they_are(rig: Rig) -> None:
    program = CLONE / "python/linkerd/__init__.py"
    command = replace(rig.script(f"head -c 3 {program} | wc -c"), uid=2102)
    assert (await rig.run(command))[1].strip() == "3"


async def test_mounts_appear_where_nothing_was_and_hide_nothing(rig: Rig, tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("1.2.3.4 friend\n")
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/a").write_text("A\n")
    rig.mounts = [
        Mount(str(tmp_path / "hosts"), "/etc/hosts"),
        Mount(str(tmp_path / "conf"), "/etc/new/conf", readonly=True),
        Mount(str(tmp_path / "conf"), "/var/run/deep/er"),
        Mount(str(tmp_path / "conf/a"), "/usr/share/one/file"),
        Mount(str(tmp_path / "conf"), "/data"),
    ]
    script = "cat /etc/hosts /etc/new/conf/a /run/deep/er/a /usr/share/one/file; test -e /etc/passwd && echo still"
    _, text = await rig.run(rig.script(script))
    assert text == "1.2.3.4 friend\nA\nA\nA\nstill\n"
    assert (await rig.run(rig.script("touch /etc/new/conf/b")))[0] != 0
    assert (await rig.run(rig.script("touch /data/b")))[0] == 0
    assert (tmp_path / "conf/b").exists()


async def test_the_working_directory_is_made(rig: Rig) -> None:
    command = replace(rig.script("pwd"), cwd="/srv/of/mine")
    assert (await rig.run(command))[1] == "/srv/of/mine\n"


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("sh -c 'kill -9 $$'", 137)])
async def test_exit_codes(rig: Rig, script: str, code: int) -> None:
    assert (await rig.run(rig.script(script)))[0] == code


async def test_a_program_that_is_not_there_is_an_error_not_a_container(rig: Rig) -> None:
    with pytest.raises(SpawnError, match="No such file or directory") as caught:
        await rig.run(replace(rig.command, argv=("nonesuch",)))
    assert caught.value.errno == 2
    with pytest.raises(SpawnError, match="Permission denied"):
        await rig.run(replace(rig.command, argv=("/etc/passwd",)))


async def test_a_large_environment_arrives(rig: Rig) -> None:
    command = replace(rig.script("printf %s $BIG | wc -c"), env={"PATH": PATH_ONLY, "BIG": "x" * 100_000})
    assert (await rig.run(command))[1].strip() == "100000"


async def test_signals_are_as_a_program_expects_them(rig: Rig) -> None:
    _, text = await rig.run(rig.script("grep -E 'SigIgn|SigBlk' /proc/self/status"))
    c_library = 0b11 << 31  # 32 and 33 are glibc's own; whoever started us may have left them ignored
    assert {int(line.split()[1], 16) & ~c_library for line in text.splitlines()} == {0}


async def test_exec_is_in_the_containers_namespaces(rig: Rig) -> None:
    container = await rig.sleeping()
    _, text = await rig.run(rig.script("hostname; cat /proc/1/comm; ls /proc | grep -c '^[0-9]'"), container)
    assert text.split()[:2] == ["pod-1", "sleep"]
    assert (await rig.run(rig.script("exit 9"), container))[0] == 9


async def test_exec_of_what_is_not_there_leaves_the_container_alone(rig: Rig) -> None:
    container = await rig.sleeping()
    with pytest.raises(SpawnError):
        await rig.run(replace(rig.command, argv=("nonesuch",)), container)
    assert not container.exited.done()


async def test_a_terminal_has_a_name_inside(rig: Rig) -> None:
    container = await rig.sleeping()
    command = replace(rig.script("tty; test -t 0 && echo terminal"), tty=True)
    code, text = await rig.run(command, container)
    assert code == 0
    assert text.split() == ["/dev/pts/0", "terminal"]


async def test_the_end_of_the_first_process_ends_all(rig: Rig) -> None:
    container = await rig.sleeping()
    await rig.spawner.kill(container)
    ended = await container.wait()
    assert (ended.code, ended.status) == (-signal.SIGKILL, 137)
    with pytest.raises(SpawnError):
        await rig.run(rig.script("true"), container)


async def test_containers_die_with_the_spawner(rig: Rig) -> None:
    container = await rig.sleeping()
    pidfd = os.pidfd_open(container.pid)
    loop = asyncio.get_running_loop()
    died = loop.create_future()
    loop.add_reader(pidfd, died.set_result, None)
    rig.spawner.process.kill()
    async with asyncio.timeout(30):
        await died
    loop.remove_reader(pidfd)
    os.close(pidfd)
    with pytest.raises(SpawnerGone):
        await rig.run(rig.script("true"))


PATH_ONLY = "/usr/bin:/bin"
