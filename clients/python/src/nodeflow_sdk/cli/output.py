"""Forms of data: JSON and YAML (the protobuf JSON form of the API's messages), names, tables.

Owns how a message becomes text. Must not know where messages come from.
"""

import io
import json
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.console import RenderableType
from ruamel.yaml import YAML

from nodeflow_sdk.cli.terminal import out, write

# Any: the JSON form of a message has values of every JSON type.
Document = dict[str, Any]


class Output(StrEnum):
    """What -o takes."""

    JSON = "json"
    YAML = "yaml"
    TABLE = "table"
    NAME = "name"


def to_document(message: Message) -> Document:
    """Return a message's protobuf JSON form."""
    return MessageToDict(message)


def list_document(key: str, messages: Iterable[Message]) -> Document:
    """Return the JSON form of a list response: the key is there even when the list is empty."""
    return {key: [to_document(message) for message in messages]}


def emit(
    output: Output, *, document: Callable[[], Document], names: Sequence[str], table: Callable[[], RenderableType]
) -> None:
    """Print data in the form that was asked for."""
    match output:
        case Output.JSON:
            write(to_json(document()))
        case Output.YAML:
            write(to_yaml(document()).rstrip("\n"))
        case Output.NAME:
            for name in names:
                write(name)
        case Output.TABLE:
            out().print(table())


def to_json(value: object, *, indent: int | None = 2) -> str:
    """Return a value as JSON for people and programs."""
    return json.dumps(value, indent=indent, ensure_ascii=False)


def to_yaml(value: object) -> str:
    """Return a value as YAML in block style, keys in their order."""
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.width = 4096
    text = io.StringIO()
    yaml.dump(value, text)
    return text.getvalue()
