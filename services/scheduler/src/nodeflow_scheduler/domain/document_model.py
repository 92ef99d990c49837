"""The shape of a workflow document, as pydantic models: for validation, and for the JSON Schema that editors use.

Owns fields, types, bounds and their descriptions. What spans several fields or nodes is `document`'s; expressions are
plain text here.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue, WithJsonSchema
from pydantic_core import CoreSchema, PydanticCustomError

from nodeflow_scheduler.domain.durations import PATTERN, parse_duration
from nodeflow_scheduler.domain.sizes import PATTERN as SIZE_PATTERN
from nodeflow_scheduler.domain.sizes import parse_size
from nodeflow_scheduler.domain.workflow import FailurePolicy

API_VERSION: Final = "nodeflow/v1"
KIND: Final = "Workflow"
NAME_PATTERN: Final = r"^[A-Za-z_][A-Za-z0-9_-]{0,62}$"
FUNCTION_PATTERN: Final = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(@sha256:[0-9a-f]{64})?$"
NODES_LIMIT: Final = 10_000
NAME_HINT: Final = "use a letter or _ first, then letters, digits, _ or -, at most 63"

HINTED: Final = "hinted"
"""Errors of this type carry their hint in their context."""


def fault(description: str, hint: str) -> PydanticCustomError:
    """An error of a validator, in the words of faults."""
    return PydanticCustomError(HINTED, "{description}", {"description": description, "hint": hint})


def _shown(value: object) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:60] + "…"


def _duration(value: object) -> int:
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise fault(f"{_shown(value)} has no unit", f"write {value:g}s for seconds, or {value:g}ms")
    if not isinstance(value, str):
        raise fault("must be a duration in text", "write it like 30s, 1m30s, 500ms or 2h")
    try:
        return parse_duration(value)
    except ValueError as error:
        raise fault(f"{_shown(value)} {error}", "write it like 30s, 1m30s, 500ms or 2h") from None


def _positive(milliseconds: int) -> int:
    if milliseconds <= 0:
        raise fault("must be longer than nothing", "leave it out for no limit")
    return milliseconds


def _size(value: object) -> int:
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise fault(f"{_shown(value)} has no unit", f"write {value:g}Mi for mebibytes, or {value:g}Gi")
    if not isinstance(value, str):
        raise fault("must be an amount of bytes in text", "write it like 512Mi or 2Gi")
    try:
        size = parse_size(value)
    except ValueError as error:
        raise fault(f"{_shown(value)} {error}", "write it like 512Mi or 2Gi") from None
    if size <= 0:
        raise fault("must be more than nothing", "leave it out for no limit")
    return size


def _name(value: str) -> str:
    if not re.fullmatch(NAME_PATTERN, value):
        raise fault(f"{_shown(value)} is not a name", NAME_HINT)
    return value


def _function(value: str) -> str:
    if not re.fullmatch(FUNCTION_PATTERN, value):
        module, dot, function = value.rpartition(".")
        meant = f"{module}:{function}"
        hint = (
            f"did you mean {meant}?"
            if dot and re.fullmatch(FUNCTION_PATTERN, meant)
            else "such as examples.word_count:count"
        )
        raise fault(f"{_shown(value)} does not name a function as module:callable", hint)
    return value


_DURATION_SCHEMA: Final = {"type": "string", "pattern": PATTERN, "examples": ["500ms", "30s", "1m30s", "2h"]}

Milliseconds = Annotated[int, BeforeValidator(_duration), WithJsonSchema(_DURATION_SCHEMA)]
Timeout = Annotated[int, BeforeValidator(_duration), AfterValidator(_positive), WithJsonSchema(_DURATION_SCHEMA)]
Size = Annotated[
    int,
    BeforeValidator(_size),
    WithJsonSchema({"type": "string", "pattern": SIZE_PATTERN, "examples": ["512Mi", "2Gi"]}),
]
Name = Annotated[str, AfterValidator(_name), Field(json_schema_extra={"pattern": NAME_PATTERN})]
Function = Annotated[str, AfterValidator(_function), Field(json_schema_extra={"pattern": FUNCTION_PATTERN})]

# Any JSON value of the user's, in which expressions may stand: its shape is not ours to know.
UserValue = Any


class DocumentModel(BaseModel):
    """What all parts of a document have in common: nothing unknown, nothing converted, nothing changed."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, validate_default=False)


class BackoffModel(DocumentModel):
    """The wait before a retry: `initial * factor^retries`, at most `max`, give or take `jitter` of it."""

    initial: Milliseconds = Field(default=1_000, description="The first wait.", json_schema_extra={"default": "1s"})
    factor: float = Field(default=2.0, ge=1, le=1_000, allow_inf_nan=False, description="How much longer each wait is.")
    max: Milliseconds | None = Field(
        default=None,
        description="The longest wait; 60s, or `initial` if that is longer.",
        json_schema_extra={"default": "60s"},
    )
    jitter: float = Field(
        default=0.2, ge=0, le=1, allow_inf_nan=False, description="The share of a wait that is random, from 0 to 1."
    )

    @model_validator(mode="after")
    def _max_after_initial(self) -> Self:
        if self.max is not None and self.max < self.initial:
            raise fault("`max` is shorter than `initial`", "make `max` at least as long as `initial`")
        return self


class RetryModel(DocumentModel):
    """How often a task is tried; `retry: 3` is short for `retry: {attempts: 3}`."""

    attempts: int = Field(ge=1, le=1_000, description="Tries at most, the first included.")
    backoff: BackoffModel = BackoffModel()

    @model_validator(mode="before")
    @classmethod
    def _from_number(cls, value: object) -> object:
        return {"attempts": value} if isinstance(value, int) and not isinstance(value, bool) else value

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """A number stands for the object with that many attempts."""
        long_form = handler(schema)
        return {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 1_000}, long_form]}


class LimitsModel(DocumentModel):
    """What a process and all that it starts may use together; one that is exceeded ends it, and is named."""

    memory: Size | None = Field(default=None, description="Resident memory.")
    cpu_time: Timeout | None = Field(default=None, description="Time on processors.")
    open_files: int | None = Field(default=None, ge=8, le=1_048_576, description="Open files of each process.")
    directory: Size | None = Field(default=None, description="All files that it keeps in its directories.")


class ProcessModel(DocumentModel):
    """A command or a script, in a new working directory and a clean environment."""

    command: list[UserValue] | None = Field(
        default=None,
        description="The program and its arguments; `${…}` holds a CEL expression. No shell reads it.",
        examples=[["sort", "-u", "${inputs.path}"]],
    )
    script: str | None = Field(
        default=None,
        max_length=65_536,
        description="What /bin/sh -e runs, as it is; values come by `env`.",
        examples=['wc -w < "$FILE"'],
    )
    env: dict[str, UserValue] = Field(
        default={}, description="Environment variables; `${…}` holds a CEL expression, anything but text becomes JSON."
    )
    stdin: UserValue = Field(
        default=None,
        description="What its standard input reads: a string as it is, anything else as JSON.",
        examples=["${nodes.fetch.output}"],
    )
    artifacts: list[str] = Field(
        default=[],
        max_length=100,
        description="Files that it leaves, as paths and globs below the working directory.",
        examples=[["out/*.csv"]],
    )
    limits: LimitsModel = Field(default=LimitsModel(), description="What it may use.")


class NodeModel(DocumentModel):
    """One node: a function or a process, what it is given, and when it runs."""

    function: Function | None = Field(
        default=None, description="What runs: `module:callable`.", examples=["examples.word_count:count"]
    )
    process: ProcessModel | None = Field(default=None, description="What runs: a command or a script.")
    map: UserValue = Field(
        default=None,
        description="A list, or an expression that gives one: the node runs once per item, with `item` and `index`.",
        json_schema_extra={"anyOf": [{"type": "array"}, {"type": "string"}]},
    )
    arguments: dict[str, UserValue] = Field(
        default={}, alias="with", description="The function's arguments by parameter; `${…}` holds a CEL expression."
    )
    needs: list[str] = Field(default=[], description="Nodes that must complete first, besides those in expressions.")
    when: UserValue = Field(
        default=None,
        description="A condition in CEL; the node is skipped when it is false.",
        examples=["size(inputs.paths) > 0"],
        json_schema_extra={"type": ["boolean", "string"]},
    )
    retry: RetryModel = RetryModel(attempts=1)
    timeout: Timeout | None = Field(default=None, description="How long one try may take.")
    description: str = Field(default="", max_length=4_096, description="For people.")

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Exactly one of the two says what runs."""
        node = handler.resolve_ref_schema(handler(schema))
        return {**node, "oneOf": [{"required": ["function"]}, {"required": ["process"]}]}


class HeaderModel(DocumentModel):
    """What a document says about the workflow as a whole."""

    api_version: Literal["nodeflow/v1"] = Field(alias="apiVersion", description="The version of this format.")
    kind: Literal["Workflow"] = Field(description="What the document describes.")
    name: Name = Field(description="The name of the workflow.")
    description: str = Field(default="", max_length=4_096, description="For people.")
    timeout: Timeout | None = Field(default=None, description="How long an execution may take.")
    on_failure: Annotated[FailurePolicy, Field(strict=False)] = Field(
        default=FailurePolicy.CANCEL_DEPENDENTS,
        description="When a node fails: cancel what depends on it, cancel everything, or go on without it.",
    )


class InputModel(BaseModel):
    """The JSON Schema of one input; with a `default` it may be left out."""

    model_config = ConfigDict(extra="allow")

    @classmethod
    def __get_pydantic_json_schema__(cls, _: CoreSchema, __: GetJsonSchemaHandler) -> JsonSchemaValue:
        """JSON Schema's own schema says what an input may be."""
        return {"$ref": "https://json-schema.org/draft/2020-12/schema", "type": "object"}


class WorkflowModel(HeaderModel):
    """A workflow document."""

    inputs: dict[Name, InputModel] = Field(default={}, description="What a submission gives, by name.")
    nodes: dict[Name, NodeModel] = Field(
        min_length=1, max_length=NODES_LIMIT, description="The nodes by name; their order numbers the tasks."
    )
    outputs: dict[Name, UserValue] = Field(default={}, description="What the execution gives, by name.")


def fields_of(model: type[BaseModel]) -> list[str]:
    """The names of a model's fields as documents write them."""
    return [field.alias or name for name, field in model.model_fields.items()]
