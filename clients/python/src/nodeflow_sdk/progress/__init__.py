"""How an execution is shown while it runs: a live tree on a terminal, plain lines elsewhere.

Owns the picture. Must not know how events are had, nor what happens after the end.
"""

from nodeflow_sdk.progress.follow import Screen, SilentScreen, follow
from nodeflow_sdk.progress.live import LiveScreen
from nodeflow_sdk.progress.plain import PlainScreen
from nodeflow_sdk.progress.view import ExecutionView, NodeView

__all__ = ["ExecutionView", "LiveScreen", "NodeView", "PlainScreen", "Screen", "SilentScreen", "follow"]
