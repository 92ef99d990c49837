"""The process: settings, service, exit code."""

import sys

from nodeflow_shared.server import run_service
from nodeflow_worker_manager.bootstrap import build
from nodeflow_worker_manager.config import Settings

sys.exit(run_service(Settings, build))
