"""The runner: the process that executes the user's code, started by the agent with `python -m nodeflow_worker.runner`.

Must import nothing of the agent but this package: it starts quickly, and user code finds nothing of the engine in it.
"""
