"""`python -m nodeflow_state_manager`: one state-manager process."""

import sys

from nodeflow_shared.server import run_service
from nodeflow_state_manager.bootstrap import build
from nodeflow_state_manager.config import StateManagerSettings

if __name__ == "__main__":
    sys.exit(run_service(StateManagerSettings, build))
