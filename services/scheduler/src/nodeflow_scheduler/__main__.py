"""Runs a scheduler: `python -m nodeflow_scheduler`."""

import sys

from nodeflow_scheduler.bootstrap import build
from nodeflow_scheduler.config import Settings
from nodeflow_shared.server import run_service

if __name__ == "__main__":
    sys.exit(run_service(Settings, build))
