"""Which screen shows an execution: a live tree, plain lines, events as JSON or YAML, or nothing.

Owns the choice. Must not know how an execution is followed.
"""

from collections.abc import Callable, Iterable
from typing import Self, TextIO

from nodeflow.scheduler.v1.event_pb2 import Event
from nodeflow.scheduler.v1.execution_pb2 import Execution
from nodeflow.scheduler.v1.workflow_pb2 import Workflow

from nodeflow_sdk.cli.output import Output, to_document, to_json, to_yaml
from nodeflow_sdk.cli.terminal import err, out, say
from nodeflow_sdk.progress import ExecutionView, LiveScreen, PlainScreen, Screen


class EventScreen:
    """Writes every event in the protobuf JSON form: a line of JSON, or a document of YAML."""

    def __init__(self, view: ExecutionView, output: Output, write: Callable[[str], None]) -> None:
        self.view = view
        self._output = output
        self._write = write

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    async def refresh(self) -> None:
        """Nothing moves."""

    def show(self, events: Iterable[Event]) -> None:
        """Write the events."""
        for event in events:
            self.view.apply(event)
            document = to_document(event)
            if self._output is Output.JSON:
                self._write(to_json(document, indent=None))
            else:
                self._write(f"---\n{to_yaml(document).rstrip()}")

    def notice(self, text: str) -> None:
        """Tell something that is not an event."""
        say(text)


def screen_for(
    execution: Execution, workflow: Workflow, output: Output | None, *, to: TextIO, write: Callable[[str], None]
) -> Screen:
    """Return the screen for events that go to a stream, with the way to write lines to it."""
    view = ExecutionView(execution, workflow.nodes)
    if output in (Output.JSON, Output.YAML):
        return EventScreen(view, output, write)
    if to.isatty():
        console = err() if to.fileno() == 2 else out()
        return LiveScreen(view, console)
    return PlainScreen(view, write, notice=say)
