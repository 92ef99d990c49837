"""Workflows in tests: in this process, on virtual time, with the real scheduler behind them.

Owns the fixture `nodeflow` of pytest (`nodeflow_sdk.pytest_plugin`), and the same for other frameworks:
`with in_process() as nodeflow:`. Needs the extra `testing`; the one part of the SDK that imports `nodeflow_testing`.
"""

try:
    import nodeflow_testing as _  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "the test suite of Node Flow is not installed here; install it with `pip install 'nodeflow-sdk[testing]'`",
        name=error.name,
    ) from error

from nodeflow_sdk.testing.in_process import InProcess, Stubbed, in_process

__all__ = ["InProcess", "Stubbed", "in_process"]
