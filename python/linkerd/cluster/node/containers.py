"""One container of a pod through its runs: start, hooks, probes, end, restart with back-off."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import secrets
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from linkerd.cluster.node import images, probing, security
from linkerd.cluster.node.backoff import Backoff, format_seconds
from linkerd.cluster.node.environment import ConfigError, build_argv, build_environment
from linkerd.cluster.node.logs import LogFile, StreamReader, last_output
from linkerd.cluster.node.probing import ProbeFailure, Threshold, parse_timing
from linkerd.cluster.node.rootfs import Mount, Overlay, plan_root
from linkerd.cluster.node.spawning import Child, Command, Exit, SpawnError
from linkerd.cluster.node.statuses import Kind, Object, Record, Running, Terminated, Waiting
from linkerd.cluster.node.volumes import VolumeError

if TYPE_CHECKING:
    from linkerd.cluster.node.pods import Pod

log = logging.getLogger(__name__)

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LAST_GRACE = 2.0  # seconds that SIGTERM gets even when preStop has used the whole grace period
_CONFIG_RETRY = 10.0  # seconds; a change of what was missing wakes earlier
_FIRST_PROBE = 0.3  # seconds after the start: before, hardly anything listens
_EAGER_PERIOD = 1.0  # seconds between readiness probes until the first success
_EAGER_FOR = 60.0  # seconds after the start during which that holds
_MESSAGE_LIMIT = 4096  # bytes of a termination message
_LOG_MESSAGE_LIMIT = 2048
_PROBE_OUTPUT = 10 * 1024


class StartFailure(Exception):
    """The container could not be started; `waiting` is what its status shows for it."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass
class Run:
    """One run of a container: a process and what belongs to it."""

    id: str
    child: Child
    command: Command
    log: LogFile
    security: security.Security
    started: float
    stdin: int | None = None
    readers: list[StreamReader] = field(default_factory=list)
    listeners: set[Callable[[str, bytes], None]] = field(default_factory=set)
    cpu_of_commands: float = 0.0
    """CPU seconds of exec'd commands that have ended: they are not children of the container's first process."""
    exit: Exit | None = None

    def tee(self, stream: str, data: bytes) -> None:
        """Output on its way to the log, for whoever is attached."""
        for listener in list(self.listeners):
            listener(stream, data)


class Container:
    """A container of one pod. `supervise()` runs it until it has ended for good or is stopped."""

    def __init__(self, pod: Pod, spec: Object, record: Record) -> None:
        self.pod = pod
        self.node = pod.node
        self.spec = spec
        self.record = record
        self.run: Run | None = None
        self.launched = asyncio.Event()
        """Set after the first try to start it, postStart included: the next container's turn."""
        self.settled = asyncio.Event()
        """Set when it counts as started (startup probe passed), or when it has ended for good."""
        self.done = False
        self._stopping = asyncio.Event()
        self._backoff = Backoff()
        self._pull_backoff = Backoff(delay=10.0)

    # Its life

    async def supervise(self) -> None:
        """Run, and run again as the restart policy wants it."""
        while not self._stopping.is_set():
            began = time.monotonic()
            ended = await self._run_once()
            if ended is not None:
                self._show_end(ended)
                if self._stopping.is_set() or not self._restarts(ended.exit_code):
                    break
                await self._wait_before_restart(self._backoff.next(time.monotonic() - began))
            elif isinstance(self.record.state, Waiting):
                self.launched.set()
        self.done = True
        self.launched.set()
        self.settled.set()
        self.pod.container_changed()

    def _restarts(self, code: int) -> bool:
        if self.record.kind is Kind.SIDECAR:
            return True
        policy = self.spec.get("restartPolicy") or self.pod.restart_policy
        if self.record.kind is Kind.INIT:
            return code != 0 and policy != "Never"
        return policy == "Always" or (policy == "OnFailure" and code != 0)

    def _show_end(self, ended: Terminated) -> None:
        self.record.state = ended
        self.record.ready = False
        self.record.started = False
        self.pod.container_changed()

    async def _wait_before_restart(self, delay: float) -> None:
        assert isinstance(self.record.state, Terminated)
        self.launched.set()
        self.record.last = self.record.state
        if delay:
            # Kubelet shows the end itself until its next look; here it would be gone at once.
            text = (
                f"back-off {format_seconds(delay)} restarting failed container={self.record.name} pod={self.pod.title}"
            )
            self.record.state = Waiting("CrashLoopBackOff", text)
            self._event(
                "Warning", "BackOff", f"Back-off restarting failed container {self.record.name} in pod {self.pod.title}"
            )
            self.pod.container_changed()
            await self._pause(delay)
        if self._stopping.is_set():
            self.record.state = self.record.last  # a pod that ends shows how the container ended, not that it waits
        else:
            self.record.restarts += 1

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    async def _run_once(self) -> Terminated | None:
        """One run and its end; None when it did not come to a run and shall be tried again."""
        try:
            await self._start()
        except images.UnknownImage as error:
            await self._wait_for_image(str(error))
            return None
        except (ConfigError, VolumeError) as error:
            await self._wait_for_config(str(error))
            return None
        except SpawnError as error:
            return self._failed_start(error)
        except OSError as error:
            # A full disk, say: this container waits, its neighbours go on.
            return self._failed_start(SpawnError(error.errno or 0, error.strerror or str(error)))
        try:
            return await self._attend()
        finally:
            self._close_run()

    async def _wait_for_image(self, message: str) -> None:
        name = self.spec["image"]
        self._event("Normal", "Pulling", f'Pulling image "{name}"')
        self._event("Warning", "Failed", f'Failed to pull image "{name}": {message}')
        self._event("Warning", "Failed", "Error: ErrImagePull")
        self._wait_as("ErrImagePull", message)
        self.launched.set()
        await self._pause(1.0)
        if not self._stopping.is_set():
            self._event("Normal", "BackOff", f'Back-off pulling image "{name}"')
            self._event("Warning", "Failed", "Error: ImagePullBackOff")
            self._wait_as("ImagePullBackOff", f'Back-off pulling image "{name}": ErrImagePull: {message}')
            await self._pause(self._pull_backoff.next(0))

    async def _wait_for_config(self, message: str) -> None:
        self._event("Warning", "Failed", f"Error: {message}")
        self._wait_as("CreateContainerConfigError", message)
        self.launched.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(_CONFIG_RETRY):
                await self.pod.references_changed()

    def _wait_as(self, reason: str, message: str) -> None:
        self.record.state = Waiting(reason, message)
        self.pod.container_changed()

    def _failed_start(self, error: SpawnError) -> Terminated:
        program = (self.spec.get("command") or self.spec.get("args") or [self.spec["image"]])[0]
        message = f"failed to start container: {describe_start_error(error, program)}"
        self._event("Warning", "Failed", f"Error: {message}")
        now = time.time()
        self.record.container_id = new_id()
        code = 127 if error.errno == errno.ENOENT else 128
        return Terminated(code, "StartError", now, now, self.record.container_id, message=message)

    # Starting

    async def _start(self) -> None:
        image = self.node.image(self.spec["image"])
        self._event("Normal", "Pulled", f'Container image "{self.spec["image"]}" already present on machine')
        allowed = security.decide(self.pod.object["spec"], self.spec, image.user, self.node.accounts(image))
        command = self._command(image, allowed)
        mounts = [*self.pod.common_mounts(), *self.pod.volumes.mounts(self.spec, dict(command.env))]
        mounts.append(self._termination_log(allowed))
        plan = plan_root(
            self.node.root,
            overlay=self._overlay(image),
            shm=str(self.pod.shm),
            mounts=mounts,
            cwd=command.cwd,
            readonly=allowed.readonly_root,
        )
        run_id = new_id()
        self._event("Normal", "Created", f"Created container: {self.record.name}")
        logs = LogFile(self.pod.log_path(self.record.name, self.record.restarts))
        logs.open()
        self.pod.drop_old_logs(self.record.name, self.record.restarts)
        try:
            run = await self._spawn(run_id, command, plan.to_json(), allowed, logs)
        except SpawnError:
            logs.close()
            raise
        self.run = run
        self.record.container_id = run_id
        self.record.image_id = f"{self.spec['image']}@{image.id}"
        self.record.state = Running(run.started)
        self._event("Normal", "Started", f"Started container {self.record.name}")
        if self._stopping.is_set():
            await self.node.spawner.kill(run.child)

    def _command(self, image: images.Image, allowed: security.Security) -> Command:
        given = build_environment(
            self.pod.object, self.spec, self.node.references.services(), self.node.references, self.pod.facts
        )
        environment = {"PATH": _PATH, "HOSTNAME": self.pod.hostname, "HOME": allowed.home, **image.env, **given}
        if self.spec.get("tty"):
            environment.setdefault("TERM", "xterm")
        return Command(
            argv=build_argv(self.spec, given, image.entrypoint, image.cmd),
            env=environment,
            cwd=self.spec.get("workingDir") or image.workdir,
            uid=allowed.uid,
            gid=allowed.gid,
            groups=allowed.groups,
            capabilities=allowed.capabilities,
            no_new_privileges=allowed.no_new_privileges,
            tty=bool(self.spec.get("tty")),
        )

    def _overlay(self, image: images.Image) -> Overlay | None:
        if image.root is None:
            return None
        layer = self.pod.directory / self.record.name / "layer"
        shutil.rmtree(layer, ignore_errors=True)  # what an earlier run wrote ends with it
        upper, work = layer / "upper", layer / "work"
        for path in (upper, work):
            path.mkdir(parents=True, exist_ok=True)
        return Overlay(str(image.root), str(upper), str(work))

    def _termination_log(self, allowed: security.Security) -> Mount:
        path = self.pod.directory / self.record.name / "termination-log"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        path.chmod(0o666)
        return Mount(str(path), self.spec.get("terminationMessagePath") or "/dev/termination-log")

    async def _spawn(
        self, run_id: str, command: Command, root: Object, allowed: security.Security, logs: LogFile
    ) -> Run:
        streams = _Streams.open(stdin=bool(self.spec.get("stdin")) and not command.tty, tty=command.tty)
        try:
            child = await self.node.spawner.start_container(
                command,
                {**streams.theirs, **self.pod.namespaces()},
                root=root,
                privileged=allowed.privileged,
                oom_score=self.pod.oom_score,
            )
        except SpawnError:
            streams.close_ours()
            raise
        finally:
            streams.close_theirs()
        run = Run(run_id, child, command, logs, allowed, time.time(), stdin=streams.stdin)
        if child.master is not None:
            run.readers = [StreamReader(child.master, "stdout", logs, run.tee)]
        else:
            run.readers = [StreamReader(fd, name, logs, run.tee) for name, fd in streams.outputs.items()]
        return run

    # Running

    async def _attend(self) -> Terminated:
        run = self.run
        assert run is not None
        async with asyncio.TaskGroup() as group:
            care = group.create_task(self._care(run))
            run.exit = await run.child.wait()
            care.cancel()
        return self._ended(run, run.exit)

    async def _care(self, run: Run) -> None:
        """postStart, then the startup probe, then the other probes until the container ends."""
        hook = (self.spec.get("lifecycle") or {}).get("postStart")
        if hook and not await self._post_start(hook):
            return
        probes = {name: self.spec.get(f"{name}Probe") for name in ("startup", "liveness", "readiness")}
        self.record.ready = not probes["readiness"] and not probes["startup"]
        self.record.started = not probes["startup"]
        self._show_running()
        if probes["startup"] and not await self._wait_started(probes["startup"], run):
            return
        self.record.started = True
        self.record.ready = not probes["readiness"]
        self._show_running()
        async with asyncio.TaskGroup() as group:
            if probes["liveness"]:
                group.create_task(self._watch_liveness(probes["liveness"], run))
            if probes["readiness"]:
                group.create_task(self._watch_readiness(probes["readiness"], run))

    def _show_running(self) -> None:
        self.launched.set()
        if self.record.started:
            self.settled.set()
        self.pod.container_changed()

    async def _post_start(self, hook: Object) -> bool:
        try:
            await probing.ask(hook, self._target(), timeout=24 * 3600)
        except ProbeFailure as error:
            self._event("Warning", "FailedPostStartHook", f"PostStartHook failed: {error}")
            self.launched.set()
            await self._kill_for("FailedPostStartHook", self.pod.grace_of(None))
            return False
        return True

    async def _wait_started(self, probe: Object, run: Run) -> bool:
        if await self._decide("Startup", probe, run, holds=False):
            return True
        await self._kill_for(
            f"Container {self.record.name} failed startup probe, will be restarted", self.pod.grace_of(probe)
        )
        return False

    async def _watch_liveness(self, probe: Object, run: Run) -> None:
        await self._decide("Liveness", probe, run, holds=True)
        await self._kill_for(
            f"Container {self.record.name} failed liveness probe, will be restarted", self.pod.grace_of(probe)
        )

    async def _decide(self, name: str, probe: Object, run: Run, *, holds: bool) -> bool:
        """Ask until the answers change the state, or confirm that it does not hold; the state then."""
        timing = parse_timing(probe)
        threshold = Threshold(timing, holds)
        await self._wait_first_probe(timing, run)
        while True:
            if threshold.observe(await self._answer(name, probe)):
                return threshold.holds
            await asyncio.sleep(timing.period)

    async def _watch_readiness(self, probe: Object, run: Run) -> None:
        """Until the first success it is asked more often than its period: a pod should not wait 10 s for a try."""
        timing = parse_timing(probe)
        threshold = Threshold(timing, holds=False)
        eager = min(_EAGER_PERIOD, timing.period)
        was_ready = False
        await self._wait_first_probe(timing, run)
        while True:
            answer = await self._answer("Readiness", probe)
            if threshold.observe(answer) and self.record.ready != threshold.holds:
                self.record.ready = threshold.holds
                was_ready = was_ready or threshold.holds
                self.pod.container_changed()
            young = time.time() - run.started < _EAGER_FOR
            await asyncio.sleep(eager if young and not was_ready else timing.period)

    async def _wait_first_probe(self, timing: probing.Timing, run: Run) -> None:
        age = time.time() - run.started
        await asyncio.sleep(max(0.0, max(timing.initial_delay, _FIRST_PROBE) - age))

    async def _answer(self, name: str, probe: Object) -> bool:
        try:
            await probing.ask(probe, self._target(), parse_timing(probe).timeout)
        except ProbeFailure as error:
            if not self._stopping.is_set() and self.run is not None and self.run.exit is None:
                self._event("Warning", "Unhealthy", f"{name} probe failed: {error}")
            return False
        return True

    def _target(self) -> probing.Target:
        ports = {port["name"]: port["containerPort"] for port in self.spec.get("ports") or () if port.get("name")}
        return probing.Target(self.pod.address, ports, self._execute)

    async def _execute(self, argv: list[str], timeout: float) -> tuple[int, bytes]:
        """A probe's or hook's command: its output is kept as far as an event may show it."""
        if self.run is None:
            raise ProbeFailure("the container is not running")
        output = os.memfd_create("output", os.MFD_CLOEXEC)  # unlike a pipe it never makes the command wait
        try:
            child = await self.start_exec(argv, {"stdin": None, "stdout": output, "stderr": output})
            ended = await self._wait_command(child)
            return ended.status, os.pread(output, _PROBE_OUTPUT, 0)
        except SpawnError as error:
            return 126, str(error.strerror).encode()
        finally:
            os.close(output)

    async def _wait_command(self, child: Child) -> Exit:
        try:
            return await child.wait()
        except asyncio.CancelledError:
            self.node.spawner.kill_nowait(child)
            raise

    async def start_exec(
        self,
        argv: Sequence[str],
        fds: Mapping[str, int | None],
        *,
        tty: bool = False,
        env: Mapping[str, str] | None = None,
    ) -> Child:
        """One more process in the running container. None as a descriptor is /dev/null. Raises SpawnError."""
        run = self.run
        if run is None or run.exit is not None:
            raise SpawnError(errno.ESRCH, "the container is not running")
        environment = {**run.command.env, **({"TERM": "xterm"} if tty else {}), **(env or {})}
        command = replace(run.command, argv=tuple(argv), env=environment, tty=tty)
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        try:
            passed = {name: null if fd is None else fd for name, fd in fds.items()}
            child = await self.node.spawner.start_exec(run.child, command, passed)
        finally:
            os.close(null)
        child.exited.add_done_callback(lambda done: _add_cpu(run, done))
        return child

    # Ending

    async def _kill_for(self, message: str, grace: float) -> None:
        self._event("Normal", "Killing", message)
        await self._terminate(grace)

    async def stop(self, grace: float) -> None:
        """End it for good: preStop, SIGTERM, and SIGKILL after `grace` seconds."""
        self._stopping.set()
        if self.run is None or self.run.exit is not None:
            return
        self._event("Normal", "Killing", f"Stopping container {self.record.name}")
        await self._terminate(grace)

    async def kill(self) -> None:
        """End it at once."""
        self._stopping.set()
        if self.run is not None:
            await self.node.spawner.kill(self.run.child)

    def kill_nowait(self) -> None:
        """The same for the way out, where nothing can be waited for."""
        self._stopping.set()
        if self.run is not None:
            self.node.spawner.kill_nowait(self.run.child)

    async def _terminate(self, grace: float) -> None:
        run = self.run
        assert run is not None
        deadline = time.monotonic() + grace
        hook = (self.spec.get("lifecycle") or {}).get("preStop")
        if hook and grace > 0:
            await self._pre_stop(hook, grace, run)
        left = max(deadline - time.monotonic(), min(grace, _LAST_GRACE))
        if left > 0:
            await self.node.spawner.kill(run.child, self._stop_signal())
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await run.child.wait()
                    return
        await self.node.spawner.kill(run.child, signal.SIGKILL)
        await run.child.wait()

    async def _pre_stop(self, hook: Object, grace: float, run: Run) -> None:
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(self._ask_pre_stop(hook, grace))
            ending = group.create_task(run.child.wait())
            await asyncio.wait([asking, ending], return_when=asyncio.FIRST_COMPLETED)
            asking.cancel()
            ending.cancel()

    async def _ask_pre_stop(self, hook: Object, grace: float) -> None:
        try:
            await probing.ask(hook, self._target(), grace)
        except ProbeFailure as error:
            self._event("Warning", "FailedPreStopHook", f"PreStopHook failed: {error}")

    def _stop_signal(self) -> int:
        name = (self.spec.get("lifecycle") or {}).get("stopSignal") or "SIGTERM"
        return signal.Signals[name] if name in signal.Signals.__members__ else signal.SIGTERM

    def _close_run(self) -> None:
        run = self.run
        if run is None:
            return
        for reader in run.readers:
            reader.finish()
        run.log.close()
        if run.stdin is not None:
            os.close(run.stdin)
            run.stdin = None
        self.run = None

    def _ended(self, run: Run, ended: Exit) -> Terminated:
        for reader in run.readers:
            reader.finish()
        return Terminated(
            exit_code=ended.status,
            reason="Completed" if ended.status == 0 else "Error",
            started=run.started,
            finished=ended.time,
            container_id=run.id,
            message=self._message(run, ended.status),
        )

    def _message(self, run: Run, code: int) -> str:
        """What the program has left as its last words, by terminationMessagePolicy."""
        path = self.pod.directory / self.record.name / "termination-log"
        text = path.read_bytes()[:_MESSAGE_LIMIT].decode(errors="replace")
        if text or code == 0 or self.spec.get("terminationMessagePolicy") != "FallbackToLogsOnError":
            return text
        return last_output(run.log.path, lines=80)[-_LOG_MESSAGE_LIMIT:].decode(errors="replace")

    def _event(self, kind: str, reason: str, message: str) -> None:
        group = "containers" if self.record.kind is Kind.APP else "initContainers"
        self.pod.event(kind, reason, message, f"spec.{group}{{{self.record.name}}}")


@dataclass
class _Streams:
    """The pipes of one run: their ends go to the container, ours stay."""

    theirs: dict[str, int]
    outputs: dict[str, int]
    stdin: int | None

    @classmethod
    def open(cls, *, stdin: bool, tty: bool) -> _Streams:
        if tty:
            return cls({}, {}, None)
        theirs, outputs, ours = {}, {}, None
        if stdin:
            theirs["stdin"], ours = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(ours, False)
        else:
            theirs["stdin"] = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        for name in ("stdout", "stderr"):
            outputs[name], theirs[name] = os.pipe2(os.O_CLOEXEC)
        return cls(theirs, outputs, ours)

    def close_theirs(self) -> None:
        for fd in self.theirs.values():
            os.close(fd)

    def close_ours(self) -> None:
        for fd in (*self.outputs.values(), *([self.stdin] if self.stdin is not None else [])):
            os.close(fd)


def new_id() -> str:
    """A container's id in the form that tools expect: runtime and 64 hex digits."""
    return f"linkerd://{secrets.token_hex(32)}"


def describe_start_error(error: OSError, program: str) -> str:
    """The kernel's reason in the words that users of container runtimes know."""
    if error.errno == errno.ENOENT and "/" not in program:
        return f'exec: "{program}": executable file not found in $PATH'
    return f'exec: "{program}": {error.strerror}'


def _add_cpu(run: Run, done: asyncio.Future[Exit]) -> None:
    if not done.cancelled() and done.exception() is None:
        run.cpu_of_commands += done.result().cpu_seconds
