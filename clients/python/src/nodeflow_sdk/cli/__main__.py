"""`python -m nodeflow_sdk.cli` is the `nodeflow` command."""

from nodeflow_sdk.cli.main import main

main()
