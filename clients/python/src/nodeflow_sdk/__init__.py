"""The Python SDK and the nodeflow command; knows the services by their API only.

The names here are what user code needs; `nodeflow_sdk.client` is the API call by call.
"""

from nodeflow_sdk.authoring import Backoff, Limits, Node, NodeOutput, Process, WiringError, node, process
from nodeflow_sdk.loaded import Document, load
from nodeflow_sdk.running.failures import ExecutionCancelled, ExecutionFailed, NodeFailed
from nodeflow_sdk.running.handles import AsyncExecution, Execution
from nodeflow_sdk.running.updates import Attempt, LogLine, State, Update
from nodeflow_sdk.serving import serve, serving
from nodeflow_sdk.workflow import Workflow, workflow

__all__ = [
    "AsyncExecution",
    "Attempt",
    "Backoff",
    "Document",
    "Execution",
    "ExecutionCancelled",
    "ExecutionFailed",
    "Limits",
    "LogLine",
    "Node",
    "NodeFailed",
    "NodeOutput",
    "Process",
    "State",
    "Update",
    "WiringError",
    "Workflow",
    "load",
    "node",
    "process",
    "serve",
    "serving",
    "workflow",
]
