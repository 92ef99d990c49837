"""`nodeflow up`: the whole suite on this machine.

Owns what a person sees of a suite. Must not know how processes are watched.
"""

import asyncio
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.text import Text

from nodeflow_sdk.cli.session import Interrupted, execute
from nodeflow_sdk.cli.terminal import err
from nodeflow_sdk.suite.services import DEFAULT_PORT, SuiteOptions, SuiteService
from nodeflow_sdk.suite.supervisor import running_suite

_COLOURS: Final = {
    SuiteService.SCHEDULER: "cyan",
    SuiteService.STATE_MANAGER: "green",
    SuiteService.WORKER_MANAGER: "magenta",
    SuiteService.WORKER: "blue",
}
_WIDTH: Final = max(len(service) for service in SuiteService)

DataDirOption = Annotated[Path, typer.Option("--data-dir", help="Where the suite keeps its data, logs and suite.json.")]
SlotsOption = Annotated[
    int | None, typer.Option("--slots", min=1, help="Attempts that the worker runs at once. Default: one for each CPU.")
]
PathOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--path",
        exists=True,
        file_okay=False,
        help="Directory to import functions from, after the document's own; repeatable. Default: this one.",
    ),
]


class LogLevel(StrEnum):
    """What --log-level takes."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


class LogView:
    """Every line of every service on stderr, with the service's name in its colour."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def on_line(self, service: SuiteService, line: str) -> None:
        """Print a line of a service."""
        self._print(service, _COLOURS[service], Text(line))

    def on_restart(self, service: SuiteService, exit_code: int, pid: int) -> None:
        """Print that a service was restarted."""
        self._own(f"service_restarted service={service} exit_code={exit_code} pid={pid}", "yellow")

    def on_silence(self, service: SuiteService, pid: int) -> None:
        """Print that a service hangs."""
        self._own(f"service_silent service={service} pid={pid}: it answers nobody, and is killed", "yellow")

    def on_wait(self, reason: str) -> None:
        """Print what is waited for."""
        self._own(f"waiting: {reason}")

    def say(self, text: str) -> None:
        """Print a line of the supervisor."""
        self._own(text)

    def _own(self, text: str, style: str = "bold") -> None:
        self._print("nodeflow", "bold", Text(text, style=style))

    def _print(self, name: str, colour: str, text: Text) -> None:
        self._console.print(Text.assemble((f"{name:<{_WIDTH}} │ ", colour), text), soft_wrap=True)


class RestartView:
    """Only what a person who waits for a run should know; the log files have the rest."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def on_line(self, service: SuiteService, line: str) -> None:
        """Leave a line to the log file."""

    def on_restart(self, service: SuiteService, exit_code: int, pid: int) -> None:
        """Print that a service was restarted."""
        self._print(f"service_restarted service={service} exit_code={exit_code} pid={pid}")

    def on_silence(self, service: SuiteService, pid: int) -> None:
        """Print that a service hangs."""
        self._print(f"service_silent service={service} pid={pid}: it answers nobody, and is killed")

    def on_wait(self, reason: str) -> None:
        """Print what is waited for."""
        self._print(f"waiting: {reason}")

    def _print(self, text: str) -> None:
        self._console.print(Text(text, style="yellow"), soft_wrap=True)


def add_commands(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: nodeflow up --port 7430 --slots 4")(up)


def up(
    port: Annotated[
        int,
        typer.Option(
            "--port", min=0, max=65_532, help="Port of the scheduler; the three above it are used too. 0: free ports."
        ),
    ] = DEFAULT_PORT,
    data_dir: DataDirOption = Path(".nodeflow"),
    slots: Annotated[
        int | None,
        typer.Option(
            "--slots",
            min=0,
            help="Attempts that the worker runs at once; 0: no worker here, others connect. Default: one for each CPU.",
        ),
    ] = None,
    path: PathOption = None,
    log_level: Annotated[
        LogLevel, typer.Option("--log-level", case_sensitive=False, help="The least severe lines to show.")
    ] = LogLevel.INFO,
) -> None:
    """Run the suite here: every service a child process, restarted when it dies, until Ctrl-C."""
    options = suite_options(data_dir=data_dir, port=port, slots=slots, path=path, log_level=log_level.value)
    view = LogView(err())
    try:
        execute(_serve(options, view))
    except Interrupted:
        # The normal end of a suite.
        view.say("stopped")


def suite_options(
    *,
    data_dir: Path,
    slots: int | None,
    path: list[Path] | None,
    port: int = 0,
    log_level: str = "INFO",
    lasting: bool = True,
) -> SuiteOptions:
    """Return the options of a suite from those of a command."""
    return SuiteOptions(
        data_dir=data_dir,
        port=port,
        slots=slots,
        path=tuple(path) if path else (Path.cwd(),),
        log_level=log_level,
        lasting=lasting,
    )


async def _serve(options: SuiteOptions, view: LogView) -> None:
    begin = time.monotonic()
    async with running_suite(options, view) as suite:
        where = ", ".join(f"{service} {address}" for service, address in suite.addresses.items())
        view.say(f"ready after {time.monotonic() - begin:.1f} s: {where}")
        view.say("try: nodeflow run workflow.yaml --watch (in another terminal); Ctrl-C stops the suite")
        try:
            await asyncio.Event().wait()
        finally:
            view.say("stopping")
