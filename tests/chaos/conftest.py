"""The report to compare with; and recovery times, told at the end of a test run whether it passed or not."""

from collections.abc import Callable

import pytest
from tests.chaos.report_run import check_logs, check_run, run_report
from tests.support.suite import running

Tell = Callable[[str], None]

_TOLD = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
async def undisturbed_report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of the report of a run that nothing happened to."""
    with running(tmp_path_factory.mktemp("undisturbed")) as suite:
        run = await run_report(suite)
    check_run(suite, run)
    check_logs(suite)
    return run.report


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Tell:
    """Keep a line for the summary of the test run."""
    return request.config.stash.setdefault(_TOLD, []).append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Write what was told."""
    if lines := config.stash.get(_TOLD, []):
        terminalreporter.section("recovery")
        for line in lines:
            terminalreporter.write_line(line)
