"""Arguments and outputs as they stand in a document: constants, and handles as `${…}`.

Owns that form. Must not know what takes the values.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from nodeflow_sdk.authoring.errors import WiringError, calling_place
from nodeflow_sdk.authoring.graph import Recording
from nodeflow_sdk.authoring.handles import Handle, NodeOutput, foreign
from nodeflow_sdk.authoring.hints import to_json_value


@dataclass(slots=True)
class Written:
    """A value of a document, and the nodes that it reads."""

    recording: Recording
    nodes: set[str] = field(default_factory=set)

    def value(self, value: object, what: str) -> object:
        """Return the document's form; raises WiringError for what JSON cannot say. `what` names it in the message."""
        match value:
            case Handle():
                return self._handle(value)
            case list() | tuple():
                return [self.value(each, what) for each in value]
            case Mapping():
                return {self._key(key, what): self.value(each, what) for key, each in value.items()}
            case str():
                return value.replace("${", "$${")
            case bool() | int() | float() | None:
                return value
            case _:
                return self._constant(value, what)

    def _handle(self, handle: Handle) -> str:
        if handle._recording is not self.recording:  # noqa: SLF001  # the form of a handle is this module's business
            raise foreign(handle, self.recording)
        expression = handle._expression  # noqa: SLF001
        root, _, rest = expression.partition(".")
        if root == "nodes":
            self.nodes.add(rest.partition(".")[0])
        return f"${{{expression}}}"

    def _key(self, key: object, what: str) -> str:
        if not isinstance(key, str) or "${" in key:
            problem = (
                f"{what} has the key {key!r}" if not isinstance(key, Handle) else f"{what} has a key not known yet"
            )
            raise WiringError(calling_place(), problem, "keys are constant text")
        return key

    def _constant(self, value: object, what: str) -> object:
        if isinstance(value, bytes | bytearray | memoryview):
            raise WiringError(calling_place(), f"{what} is bytes", "pass text, or the path of a file")
        try:
            plain = to_json_value(value)
        except (TypeError, ValueError, RecursionError) as error:
            remedy = "pass JSON values, dataclasses or enums"
            raise WiringError(calling_place(), f"{what} cannot be sent to a worker: {error}", remedy) from None
        return self.value(plain, what)


def has_handles(value: object) -> bool:
    """Whether a handle is in a value, at any depth."""
    match value:
        case Handle():
            return True
        case list() | tuple():
            return any(has_handles(each) for each in value)
        case Mapping():
            return any(has_handles(each) for each in value.values())
        case _:
            return False


def is_whole_output(value: object) -> bool:
    """Whether a value is just a node's output or an input as a whole: then it may be of any size."""
    return isinstance(value, NodeOutput)
