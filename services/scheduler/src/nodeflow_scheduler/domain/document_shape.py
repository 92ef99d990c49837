"""Fits a part of a document to its pydantic model, and tells what does not fit in words for people.

A misfit is taken out and the rest is fitted again, so that one fault does not hide the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from nodeflow_scheduler.domain.document_faults import FaultList, Path, meant, short
from nodeflow_scheduler.domain.document_model import (
    HINTED,
    BackoffModel,
    LimitsModel,
    ProcessModel,
    RetryModel,
    fields_of,
)
from nodeflow_scheduler.domain.json_text import JsonValue, kind
from nodeflow_scheduler.domain.pipeline_model import SourceModel

M = TypeVar("M", bound=BaseModel)

_INNER: Mapping[str, type[BaseModel]] = {
    "retry": RetryModel,
    "backoff": BackoffModel,
    "process": ProcessModel,
    "limits": LimitsModel,
    "source": SourceModel,
}

_WANTED: Mapping[str, str] = {
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_type": "a mapping",
    "string_type": "text",
}


def fitted(
    model: type[M],
    raw: JsonValue,
    place: Path,
    faults: FaultList,
    *,
    stand_in: Mapping[str, JsonValue],
    also: Sequence[str] = (),
) -> M:
    """The model of `raw`; what does not fit is noted and left out, with `stand_in` for required fields.

    `also` names fields that are allowed beside the model's own, for hints.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        details = error.errors(include_url=False)
    for each in details:
        faults.add((*place, *_path(each)), *_described(each, [*fields_of(model), *also]))
    misfits = {each["loc"][0] for each in details if each["loc"]}
    fields = raw if isinstance(raw, dict) and misfits else {}
    return model.model_validate({**stand_in, **{key: value for key, value in fields.items() if key not in misfits}})


def _path(error: ErrorDetails) -> Path:
    """Where it is; the marker that pydantic puts behind a faulty key is not a place."""
    return tuple(step for step in error["loc"] if step != "[key]")


def _described(error: ErrorDetails, fields: Sequence[str]) -> tuple[str, str]:
    """What is wrong, and what would be right."""
    context = error.get("ctx", {})
    path = _path(error)
    match error["type"]:
        case "extra_forbidden":
            return _unknown(path, fields)
        case "missing":
            required = {
                "apiVersion": "write apiVersion: nodeflow/v1",
                "kind": "write kind: Workflow (or Pipeline)",
            }
            examples = {"name": "such as name: word-count", "run": "such as run: pytest -q", "path": "such as path: ."}
            return "is missing", {**examples, **required}.get(str(path[-1]), "")
        case "literal_error" if path == ("kind",):
            return f"{_shown(error['input'])} is not known", "write Workflow or Pipeline"
        case "literal_error" | "enum":
            expected = str(context.get("expected", "")).replace("'", "")
            return f"{_shown(error['input'])} is not known", f"write {expected}"
        case str(found) if found in _WANTED:
            return f"must be {_WANTED[found]}, not {_kind(error['input'])}", _example(path)
        case str(found) if found == HINTED:
            return str(context["description"]), str(context["hint"])
        case "greater_than_equal":
            return f"must be at least {context['ge']}, not {_shown(error['input'])}", ""
        case "less_than_equal":
            return f"must be at most {context['le']}, not {_shown(error['input'])}", ""
        case "string_too_long":
            return f"must have at most {context['max_length']:,} characters", ""
        case _:
            return short(error["msg"], 200), ""


def _unknown(path: Path, fields: Sequence[str]) -> tuple[str, str]:
    container = path[-2] if len(path) > 1 else ""
    known = fields_of(_INNER[container]) if isinstance(container, str) and container in _INNER else fields
    return "is not a known field", meant(str(path[-1]), known, f"the fields here are {', '.join(known)}")


def _example(path: Path) -> str:
    examples = {
        "needs": "such as needs: [count]",
        "retry": "such as retry: 3, or retry: {attempts: 3, backoff: {initial: 1s}}",
        "backoff": "such as backoff: {initial: 1s, factor: 2, max: 30s, jitter: 0.2}",
        "with": 'such as with: {path: "${inputs.path}"}',
        "function": "such as function: my_module:my_function",
        "process": 'such as process: {command: ["sort", "-u", "${inputs.path}"]}',
        "command": 'such as command: ["sort", "-u", "${inputs.path}"]; for a shell, write script: |',
        "env": "such as env: {LC_ALL: C}",
        "uses": "such as uses: [build]",
        "run": "such as run: pytest -q",
        "matrix": 'such as matrix: {python: ["3.11", "3.12"]}',
        "source": "such as source: {path: .}",
        "artifacts": 'such as artifacts: ["out/*.csv"]',
        "limits": "such as limits: {memory: 512Mi, cpu_time: 60s, open_files: 256, directory: 1Gi}",
    }
    if path[-2:-1] == ("matrix",):
        return 'such as ["3.11", "3.12"]'
    return examples.get(str(path[-1]), "") if path else ""


def _kind(value: object) -> str:
    return kind(value).replace("an object", "a mapping").replace("a string", "text")


def _shown(value: object) -> str:
    return short(repr(value)) if isinstance(value, str | int | float) else _kind(value)
