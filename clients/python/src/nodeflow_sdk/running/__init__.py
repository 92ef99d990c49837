"""Runs of workflows from Python: a suite found or started once per process, executions as handles, failures raised.

Owns the background loop that all of this lives on. Must not know how workflows are defined. What users name (failures,
handles, updates) loads no gRPC, as workers import it with every module of user code; `runs` and what it needs do.
"""
