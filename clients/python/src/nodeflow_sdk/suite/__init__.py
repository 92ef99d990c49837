"""The embedded suite: every service as a child process on loopback, watched over and restarted.

Owns the processes, their ports, logs and data directory. Must not import a service, nor print.
"""

from nodeflow_sdk.suite.attach import Attachment, attached, find_running
from nodeflow_sdk.suite.errors import SuiteError
from nodeflow_sdk.suite.observer import SuiteObserver
from nodeflow_sdk.suite.record import SuiteRecord
from nodeflow_sdk.suite.services import SuiteOptions, SuiteService
from nodeflow_sdk.suite.supervisor import Suite, running_suite

__all__ = [
    "Attachment",
    "Suite",
    "SuiteError",
    "SuiteObserver",
    "SuiteOptions",
    "SuiteRecord",
    "SuiteService",
    "attached",
    "find_running",
    "running_suite",
]
