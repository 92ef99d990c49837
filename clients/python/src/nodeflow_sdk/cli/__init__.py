"""The `nodeflow` command: one module for each group of commands.

Owns words, pictures and exit codes. Must not know a service other than by its API. stdout is data, stderr is progress.
"""
