"""Documents to compile, and the faults of those that are wrong."""

import pytest

from nodeflow_scheduler.domain.document import compile_document
from nodeflow_scheduler.domain.document_faults import DocumentFaults, Fault
from nodeflow_scheduler.domain.workflow import Workflow

HEAD = "apiVersion: nodeflow/v1\nkind: Workflow\nname: w\n"


def compiled(text: str | bytes, content_type: str = "", directory: str = "/jobs") -> Workflow:
    return compile_document(text if isinstance(text, bytes) else text.encode(), content_type, directory)


def faults_of(text: str | bytes, content_type: str = "") -> tuple[Fault, ...]:
    with pytest.raises(DocumentFaults) as caught:
        compiled(text, content_type)
    return caught.value.faults


def fault_of(text: str | bytes, content_type: str = "") -> Fault:
    [fault] = faults_of(text, content_type)
    return fault


def workflow_of(nodes: str, more: str = "") -> str:
    return f"{HEAD}{more}nodes:\n" + "".join(f"  {line}\n" for line in nodes.splitlines())
