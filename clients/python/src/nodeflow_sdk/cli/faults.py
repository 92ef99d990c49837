"""Faults of a document, shown in the document.

Owns the picture: path, line, source and marker. Must not know what a document may say.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from nodeflow.scheduler.v1.workflow_pb2 import DocumentFault
from rich.text import Text

from nodeflow_sdk.cli.errors import CliError, ExitCode


def invalid_document(file: Path, source: bytes, faults: Iterable[DocumentFault]) -> CliError:
    """Return the error that shows each fault of a document where it is."""
    listed = list(faults)
    lines = source.decode(errors="replace").splitlines()
    details = [line for fault in listed for line in fault_lines(file, lines, fault)]
    count = "1 fault" if len(listed) == 1 else f"{len(listed)} faults"
    return CliError(f"{file} is not a valid document: {count}", ExitCode.REFUSED, details=details)


def fault_lines(file: Path, source: list[str], fault: DocumentFault) -> list[Text]:
    """Return where a fault is, what it is, the line of the document with a marker, and what would be right."""
    place = f"{file}:{fault.line}" if fault.line else f"{file}"
    path = f" {fault.path}:" if fault.path else ""
    shown = [Text.assemble("  ", (f"{place}:", "bold"), (path, "cyan"), f" {fault.description}")]
    if 0 < fault.line <= len(source):
        shown += _source_lines(fault.line, source[fault.line - 1], fault.path)
    if fault.hint:
        shown.append(Text.assemble(("    try: ", "bold"), fault.hint))
    return shown


def _source_lines(number: int, line: str, path: str) -> list[Text]:
    line = line.replace("\t", " ")
    begin, end = _marked(line, path)
    margin = f"  {number:>5} | "
    marker = " " * begin + "^" * max(end - begin, 1)
    return [Text.assemble((margin, "dim"), line), Text.assemble((f"{'':>7} | ", "dim"), (marker, "bold red"))]


def _marked(line: str, path: str) -> tuple[int, int]:
    """Return the part of a line that a path points to: its last name if it is there, all of the text otherwise."""
    names = re.findall(r"[\w-]+", path)
    if names:
        found = re.search(rf"(?<![\w-]){re.escape(names[-1])}(?![\w-])", line)
        if found:
            return found.span()
    text = line.strip()
    begin = len(line) - len(line.lstrip())
    return begin, begin + len(text)
