"""Errors whose message is the whole story: raised without the way that they took through this package.

Owns which ones these are.
"""

import os
from typing import Final

from nodeflow_sdk.authoring.errors import WiringError
from nodeflow_sdk.running.failures import ExecutionFailed
from nodeflow_sdk.suite.errors import SuiteError
from nodeflow_shared.errors import NodeflowError

DEBUG_VARIABLE: Final = "NODEFLOW_DEBUG"
TOLD: Final = (NodeflowError, ExecutionFailed, SuiteError, WiringError, TimeoutError)


def shortened(error: Exception) -> Exception:
    """Return an error without its way, unless that is asked for."""
    if os.environ.get(DEBUG_VARIABLE):
        return error
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
