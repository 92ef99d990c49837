"""Runs of workflows from Python: a suite found or started once per process, executions as handles, failures raised.

Owns the background loop that all of this lives on. Must not know how workflows are defined.
"""

from nodeflow_sdk.running.background import Background
from nodeflow_sdk.running.failures import ExecutionCancelled, ExecutionFailed, NodeFailed
from nodeflow_sdk.running.handles import AsyncExecution, Execution
from nodeflow_sdk.running.remote import Remote
from nodeflow_sdk.running.updates import State, Update

__all__ = [
    "AsyncExecution",
    "Background",
    "Execution",
    "ExecutionCancelled",
    "ExecutionFailed",
    "NodeFailed",
    "Remote",
    "State",
    "Update",
]
