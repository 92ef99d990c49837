"""The entry of the worker process."""

import sys

from nodeflow_shared.server import run_service
from nodeflow_worker.bootstrap import build
from nodeflow_worker.config import Settings

if __name__ == "__main__":
    sys.exit(run_service(Settings, build))
