"""The life of a service process: settings, logs, loop, server, readiness, drain, exit code.

Owns the order of start and stop. Must not know what any service does.
"""

import asyncio
import gc
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final, Protocol, TypeVar

import grpc.aio
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection

from nodeflow_shared.address import is_loopback, why_not_free, with_port
from nodeflow_shared.channel import MAX_MESSAGE_BYTES
from nodeflow_shared.errors import StartupError
from nodeflow_shared.interceptors import ErrorInterceptor
from nodeflow_shared.last_resort import LastResort
from nodeflow_shared.logs import configure_logs, get_log
from nodeflow_shared.readiness import Readiness
from nodeflow_shared.settings import ServiceSettings, load, variable_name
from nodeflow_shared.shutdown import stop_signals, wait_for_orphanhood

try:
    import uvloop

    _new_fast_loop: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
except ImportError:  # it does not exist for every platform, and asyncio's own loop does as well
    _new_fast_loop = asyncio.new_event_loop

__all__ = ["WHOLE", "Service", "StartupError", "run_service", "serve"]

S = TypeVar("S", bound=ServiceSettings)

GC_THRESHOLDS: Final = (200_000, 20, 50)
ORPHAN_DRAIN_S: Final = 1.0
EXIT_CLEAN: Final = 0
EXIT_CRASH: Final = 1
EXIT_STARTUP: Final = 2
EXIT_INTERRUPTED: Final = 130

# What those who watch the health get to hear of a stop before anything ends.
NOTICE_S: Final = 0.05

# What calls that are still open after the drain get: streams that no drain ends, such as watches of the health service.
STREAM_GRACE_S: Final = 0.5

# How much longer than its drain a stop may take, all in all, before the process is taken to hang.
STOP_MARGIN_S: Final = 15.0

_OPTIONS: Final = (
    # With port sharing, a second process would silently take half of the calls.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Clients ping every 20 s, with or without calls; pings further apart than 5 s are never held against them.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    # And a client that vanished without a word is noticed from here.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)

WHOLE: Final[Mapping[str, asyncio.Event]] = MappingProxyType({})
"""The `parts_ready` of a service that is in order as a whole, or not at all."""

_log = get_log()


class Service(Protocol):
    """What a process serves. (Properties, so that plain attributes of any narrower type will do.)"""

    @property
    def name(self) -> str:
        """For logs."""
        ...

    @property
    def service_names(self) -> Sequence[str]:
        """Full proto names, for reflection and health."""
        ...

    @property
    def ready(self) -> asyncio.Event:
        """Set when calls can be answered; cleared and set again when that is lost and regained. Health shows it."""
        ...

    @property
    def parts_ready(self) -> Mapping[str, asyncio.Event]:
        """Those of its services that can be out of order alone, by full proto name; `ready` is that of the others."""
        ...

    def register(self, server: grpc.aio.Server) -> None:
        """Add the servicers to the server."""
        ...

    async def run(self) -> None:
        """Do the long-running work; return only when drained. An exception ends the process."""
        ...

    async def drain(self) -> None:
        """Take nothing new and let what runs finish; it and the end of `run` have `drain_timeout_s` together."""
        ...

    async def close(self) -> None:
        """Release everything; called once, last, however the process ends."""
        ...


def run_service(settings_type: type[S], build: Callable[[S], Awaitable[Service]]) -> int:
    """Run a service process from its settings to its exit code: 0 clean, 1 crash, 2 cannot start, 3 a stop that hung.

    `build` runs inside the loop (where channels must be created) and returns the service.
    """
    parent = os.getppid()  # first of all: the parent may die any moment
    try:
        settings = load(settings_type)
        configure_logs(_log_name(settings_type), settings.log_level, settings.log_format)
        with asyncio.Runner(loop_factory=_loop_factory(settings)) as runner:
            return runner.run(_live(settings, build, parent))
    except StartupError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_STARTUP
    except KeyboardInterrupt:  # during the build; once it serves, a signal means a drain
        return EXIT_INTERRUPTED


def _calm_garbage_collector() -> None:
    """Have the cycle collector look less often: our values hold no cycles, and there are many of them.

    With the defaults a service that holds thousands of executions spends a fifth of its time looking at them.
    """
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


async def _live(settings: S, build: Callable[[S], Awaitable[Service]], parent: int) -> int:
    try:
        service = await build(settings)
        _calm_garbage_collector()
        await serve(service, settings, parent=parent, last_resort=LastResort())
    except StartupError:
        raise
    except Exception as error:
        startup = _startup_error_in(error)
        if startup is not None:
            raise startup from error
        _log.critical("crashed", exc_info=error)
        return EXIT_CRASH
    return EXIT_CLEAN


async def serve(
    service: Service,
    settings: ServiceSettings,
    *,
    parent: int | None = None,
    last_resort: LastResort | None = None,
) -> None:
    """Serve until stopped by a signal, by the death of the parent (if told so), or by the end of `service.run()`.

    Raises StartupError if it cannot listen, and the group of what failed if `run` fails. `service.close()` is called
    in every case. The last resort is armed once the end begins: it ends the process should that hang.
    """
    process = _Process(service, settings, os.getppid() if parent is None else parent, last_resort)
    try:
        await process.live()
    finally:
        await service.close()
        process.withdraw()


class _Process:
    """One service, its server and its tasks."""

    def __init__(
        self, service: Service, settings: ServiceSettings, parent: int, last_resort: LastResort | None
    ) -> None:
        self._last_resort = last_resort
        self._service = service
        self._settings = settings
        self._parent = parent
        self._stop = asyncio.Event()
        self._drain_timeout_s = settings.drain_timeout_s
        self._readiness = Readiness(service.service_names, service.ready, service.parts_ready)
        self._server = grpc.aio.server(
            interceptors=[ErrorInterceptor(call_limit=settings.max_calls, reader_timeout_s=settings.reader_timeout_s)],
            options=_OPTIONS,
        )
        self._address = ""

    async def live(self) -> None:
        self._address = await self._start()
        self._forget_old_address()
        name = self._service.name
        try:
            with stop_signals(self._stop):
                async with asyncio.TaskGroup() as group:
                    run = group.create_task(self._run(), name=f"{name}.run")
                    side = [group.create_task(self._follow_readiness(), name=f"{name}.readiness")]
                    if self._settings.exit_with_parent:
                        side.append(group.create_task(self._follow_parent(), name=f"{name}.parent"))
                    end = group.create_task(self._shut_down(run, side), name=f"{name}.shutdown")
                    try:
                        await asyncio.wait([end])
                    finally:  # here at once if something fails: the rest is cancelled, which may hang as well
                        self._expect_end(STOP_MARGIN_S)
        finally:
            await self._server.stop(0)

    def _expect_end(self, within_s: float) -> None:
        if self._last_resort is not None:
            self._last_resort.arm(within_s)

    async def _start(self) -> str:
        _refuse_exposure(self._settings)
        self._service.register(self._server)
        await self._readiness.register(self._server)
        names = (*self._service.service_names, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        address = _listen(self._server, self._settings)
        await self._server.start()
        _log.info("listening", address=address)
        return address

    async def _run(self) -> None:
        await self._service.run()
        self._stop.set()

    async def _follow_readiness(self) -> None:
        await self._readiness.follow(self._announce)

    async def _follow_parent(self) -> None:
        await wait_for_orphanhood(self._parent)
        # The peers die with the parent: there is hardly anybody to finish for, and a successor waits.
        self._drain_timeout_s = min(self._drain_timeout_s, ORPHAN_DRAIN_S)
        self._stop.set()
        _log.info("stopping", cause="parent_died")

    async def _shut_down(self, run: asyncio.Task[None], side: Sequence[asyncio.Task[None]]) -> None:
        """Stop in the order that callers need: told first, then served to the end, then cut off."""
        await self._stop.wait()
        self._expect_end(self._drain_timeout_s + STOP_MARGIN_S)
        await self._readiness.end()
        for task in side:
            task.cancel()
        # The watches of the health service are streams like others: without this, those that drain would race them.
        await asyncio.sleep(NOTICE_S)
        try:
            async with asyncio.timeout(self._drain_timeout_s):
                await self._service.drain()
                await asyncio.wait([run])
        except TimeoutError:
            _log.warning("drain_timed_out", drain_timeout_s=self._drain_timeout_s)
        await self._server.stop(STREAM_GRACE_S)
        run.cancel()
        _log.info("stopped")

    def _announce(self) -> None:
        _log.info("ready", address=self._address)
        if self._settings.announce_file is not None:
            _write_atomically(self._settings.announce_file, self._address)

    def _forget_old_address(self) -> None:
        """Remove what an earlier process that was killed left behind: its readers would take it for ours."""
        if self._settings.announce_file is not None:
            self._settings.announce_file.unlink(missing_ok=True)

    def withdraw(self) -> None:
        """Take back the announcement, unless a successor has already made its own."""
        file = self._settings.announce_file
        if file is not None and self._address and file.exists() and file.read_text() == self._address:
            file.unlink(missing_ok=True)


def _refuse_exposure(settings: ServiceSettings) -> None:
    if settings.insecure or is_loopback(settings.bind):
        return
    bind, insecure = (variable_name(type(settings), field) for field in ("bind", "insecure"))
    raise StartupError(
        f"refusing to listen on {settings.bind}: other machines could reach it without TLS or authentication; "
        f"set {bind} to a loopback address like 127.0.0.1:0, or {insecure}=true to allow it"
    )


def _listen(server: grpc.aio.Server, settings: ServiceSettings) -> str:
    """Bind the server's port and return the real address."""
    # Asked before, because gRPC would write its own lines about a failure to stderr.
    problem = why_not_free(settings.bind)
    if problem is None:
        try:
            return with_port(settings.bind, server.add_insecure_port(settings.bind))
        except RuntimeError:
            problem = why_not_free(settings.bind) or "the port is in use"
    bind = variable_name(type(settings), "bind")
    raise StartupError(f"cannot listen on {settings.bind}: {problem}; set {bind} or stop the other process")


def _write_atomically(path: Path, text: str) -> None:
    """Write a small file so that readers see all of it or none."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text)
    partial.replace(path)


def _startup_error_in(error: Exception) -> StartupError | None:
    """Return the StartupError that a group (of the process's tasks) consists of, if it does."""
    if not isinstance(error, ExceptionGroup):
        return None
    starts, rest = error.split(StartupError)
    if rest is not None or starts is None:
        return None
    first = starts.exceptions[0]
    return first if isinstance(first, StartupError) else None


def _log_name(settings_type: type[ServiceSettings]) -> str:
    prefix = settings_type.model_config.get("env_prefix", "")
    return prefix.removeprefix("NODEFLOW_").strip("_").lower().replace("_", "-") or "nodeflow"


def _loop_factory(settings: ServiceSettings) -> Callable[[], asyncio.AbstractEventLoop] | None:
    return _new_fast_loop if settings.use_uvloop else None
