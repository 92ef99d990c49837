"""Workflows as Python: decorators record what calls what, and a document comes out.

Owns the way from functions to a workflow document. Must not know how anything runs, nor talk to a service.
"""

from nodeflow_sdk.authoring.errors import Place, WiringError
from nodeflow_sdk.authoring.handles import Handle, NodeOutput, WorkflowInput
from nodeflow_sdk.authoring.node import Node, node
from nodeflow_sdk.authoring.options import Backoff
from nodeflow_sdk.authoring.process import Limits, Process, process

__all__ = [
    "Backoff",
    "Handle",
    "Limits",
    "Node",
    "NodeOutput",
    "Place",
    "Process",
    "WiringError",
    "WorkflowInput",
    "node",
    "process",
]
