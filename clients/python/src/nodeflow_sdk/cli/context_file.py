"""contexts.yaml: suites by name, in the configuration directory of whoever runs the command.

Owns the file's place and form. Must not know how a suite is asked.
"""

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from nodeflow_sdk.cli.errors import usage_error
from nodeflow_sdk.cli.output import to_yaml

_ANEW: Final = "mend it, or remove it and set the contexts anew: nodeflow context set NAME --address HOST:PORT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Where a suite is."""

    address: str
    worker_manager: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contexts:
    """All contexts, and the name of the one in use; empty for none."""

    by_name: Mapping[str, Context]
    current: str = ""

    def named(self, name: str) -> Context:
        """Return a context; raises CliError that names those there are."""
        if name not in self.by_name:
            known = ", ".join(sorted(self.by_name)) or "none yet"
            raise usage_error(
                f"there is no context {name!r}; there are: {known}", f"nodeflow context set {name} --address …"
            )
        return self.by_name[name]


def contexts_path() -> Path:
    """Return where the file is: below XDG_CONFIG_HOME, or ~/.config."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "nodeflow" / "contexts.yaml"


def read_contexts() -> Contexts:
    """Return what the file says, nothing if there is none; raises CliError if it makes no sense."""
    path = contexts_path()
    try:
        text = path.read_text()
    except FileNotFoundError:
        return Contexts(by_name={})
    except OSError as error:
        raise usage_error(f"{path} cannot be read: {error.strerror or error}") from None
    try:
        document = YAML(typ="safe", pure=True).load(io.StringIO(text)) or {}
        listed = document.get("contexts") or {}
        by_name = {str(name): Context(**fields) for name, fields in listed.items()}
        return Contexts(by_name=by_name, current=str(document.get("current") or ""))
    except (YAMLError, TypeError, AttributeError) as error:
        raise usage_error(f"{path} is no file of contexts: {' '.join(str(error).split())}", _ANEW) from None


def write_contexts(contexts: Contexts) -> None:
    """Write the file so that readers see all of it or none."""
    path = contexts_path()
    listed: dict[str, dict[str, str]] = {}
    for name, each in sorted(contexts.by_name.items()):
        listed[name] = {"address": each.address}
        if each.worker_manager:
            listed[name]["worker_manager"] = each.worker_manager
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(to_yaml({"current": contexts.current, "contexts": listed}))
        partial.replace(path)
    except OSError as error:
        raise usage_error(f"{path} cannot be written: {error.strerror or error}") from None
