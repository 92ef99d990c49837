"""What an execution left behind, on stdout, and the quiet wait for it.

Owns the forms. Must not know how the execution came about.
"""

from nodeflow.scheduler.v1.execution_pb2 import Execution
from rich.text import Text

from nodeflow_sdk.cli.output import Output, emit, to_document, to_json
from nodeflow_sdk.cli.tables import executions_table
from nodeflow_sdk.cli.terminal import say, write
from nodeflow_sdk.client import Client
from nodeflow_sdk.payloads import from_json
from nodeflow_sdk.progress import SilentScreen
from nodeflow_sdk.progress.symbols import seconds


async def print_result(client: Client, output: Output | None, execution: Execution) -> None:
    """Print the outputs as JSON, or the execution in the form that was asked for."""
    if output is not None:
        emit(
            output,
            document=lambda: {"execution": to_document(execution)},
            names=[execution.execution_id],
            table=lambda: executions_table([execution], seconds(execution.finish_time)),
        )
    elif execution.HasField("outputs"):
        write(to_json(from_json(await client.read(execution.outputs))))


class SilentWaiting(SilentScreen):
    """Shows no events, but what a person who waits should know."""

    def notice(self, text: str) -> None:
        """Print a notice."""
        say(Text(text, style="yellow"))
