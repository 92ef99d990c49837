"""Workflow documents in files.

Owns how a file becomes a WorkflowDocument. Must not know what a document may say: the service judges that.
"""

from pathlib import Path
from typing import Final

from nodeflow.scheduler.v1.workflow_pb2 import WorkflowDocument

DOCUMENT_SUFFIXES: Final = (".yaml", ".yml", ".json")


class UnreadableFile(Exception):
    """A file cannot be read; the message names it and says why."""


def read_document(path: Path) -> WorkflowDocument:
    """Read a document; functions are imported from its directory. Raises UnreadableFile."""
    if path.suffix.lower() == ".py":
        raise UnreadableFile(f"{path} is a Python program, not a workflow document; run it as such: python {path}")
    source = read_file(path, "a workflow document (YAML or JSON)")
    content_type = "application/json" if path.suffix.lower() == ".json" else "application/yaml"
    return WorkflowDocument(source=source, content_type=content_type, directory=str(path.resolve().parent))


def read_file(path: Path, wanted: str) -> bytes:
    """Return a file's bytes; raises UnreadableFile that says what was `wanted`."""
    try:
        return path.read_bytes()
    except IsADirectoryError:
        raise UnreadableFile(f"{path} is a directory; name {wanted}") from None
    except FileNotFoundError:
        raise UnreadableFile(f"{path} does not exist; name {wanted}") from None
    except OSError as error:
        raise UnreadableFile(f"{path} cannot be read: {error.strerror or error}") from None
