"""`load`: a document in a file, run from Python as a workflow that was written in it.

Owns what can be done with a document. Must not know what it says: the suite judges that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from nodeflow_sdk.authoring.errors import Place, WiringError
from nodeflow_sdk.authoring.hints import to_json_value
from nodeflow_sdk.running.handles import AsyncExecution, Execution
from nodeflow_sdk.running.home import current_runs
from nodeflow_sdk.running.orders import EVERY_NAME, Order, Submittable

if TYPE_CHECKING:
    from nodeflow_shared.errors import FieldViolation

_LINE: Final = re.compile(r" \(line (\d+)\)$")


class Document:
    """A workflow or a pipeline from a file. Its runs take inputs by name and give all outputs as a dict.

    The `source` of a pipeline is packed with each run. Besides the inputs, runs take what those of `Workflow` take.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self._source = path.read_bytes()

    def __repr__(self) -> str:
        return f"<document {self.path}>"

    def run(
        self,
        *,
        suite: str | None = None,
        request_id: str = "",
        labels: Mapping[str, str] | None = None,
        **inputs: object,
    ) -> dict[str, Any]:
        """Run it to its end; returns the outputs, raises NodeFailed. Interrupted, it cancels the execution."""
        order = Order(inputs=_plain(inputs), suite=suite, request_id=request_id, labels=labels or {})
        return cast("dict[str, Any]", current_runs().run(self.submittable(), order))

    async def arun(
        self,
        *,
        suite: str | None = None,
        request_id: str = "",
        labels: Mapping[str, str] | None = None,
        **inputs: object,
    ) -> dict[str, Any]:
        """Run it to its end, on a running loop. Cancelled, it cancels the execution."""
        order = Order(inputs=_plain(inputs), suite=suite, request_id=request_id, labels=labels or {})
        return cast("dict[str, Any]", await current_runs().arun(self.submittable(), order))

    def start(
        self,
        *,
        suite: str | None = None,
        request_id: str = "",
        labels: Mapping[str, str] | None = None,
        **inputs: object,
    ) -> Execution[dict[str, Any]]:
        """Start it; returns a handle once the start is durable. Raises WiringError for a fault of the document."""
        order = Order(inputs=_plain(inputs), suite=suite, request_id=request_id, labels=labels or {})
        return current_runs().start(self.submittable(), order)

    async def astart(
        self,
        *,
        suite: str | None = None,
        request_id: str = "",
        labels: Mapping[str, str] | None = None,
        **inputs: object,
    ) -> AsyncExecution[dict[str, Any]]:
        """Start it, on a running loop."""
        order = Order(inputs=_plain(inputs), suite=suite, request_id=request_id, labels=labels or {})
        return await current_runs().astart(self.submittable(), order)

    def register(self, *, suite: str | None = None) -> str:
        """Register it on a suite, for others to start by name; returns the revision. Raises WiringError."""
        return current_runs().register(self.submittable(), suite)

    def submittable(self) -> Submittable:
        """Return it as a suite takes it."""
        return Submittable(
            source=self._source,
            content_type="application/json" if self.path.suffix.lower() == ".json" else "application/yaml",
            directory=str(self.path.parent),
            whole=EVERY_NAME,
            value=dict,
            at_fault=self._at_fault,
            has_source=True,
        )

    def _at_fault(self, fault: FieldViolation) -> WiringError:
        line = _LINE.search(fault.description)
        place = Place(file=str(self.path), line=int(line[1]) if line else 1)
        return WiringError(place, f"{fault.path}: {_LINE.sub('', fault.description)}", fault.hint)


def load(path: str | Path) -> Document:
    """Read a workflow or pipeline document: `load("release.yaml").run()`. Raises OSError if it cannot be read."""
    return Document(Path(path))


def _plain(inputs: Mapping[str, object]) -> dict[str, object]:
    return {name: to_json_value(value) for name, value in inputs.items()}
