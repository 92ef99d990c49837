"""What Tab offers, asked as a shell asks."""

from tests.unit.sdk.conftest import Cli
from tests.unit.sdk.fake_services import EXECUTION_ID, FakeServices


async def offered(cli: Cli, words: str) -> list[str]:
    """Return what is offered for the last word of a line."""
    last = str(len(words.split(" ")) - 1)
    cli.environment |= {"_NODEFLOW_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": last}
    done = await cli()
    assert done.err == ""
    return [line for line in done.out.splitlines() if line]


async def test_executions_workflows_documents_and_commands_are_offered(cli: Cli, fakes: FakeServices) -> None:
    assert await offered(cli, "nodeflow get ") == ["@latest", EXECUTION_ID]
    assert await offered(cli, "nodeflow diff 0199") == [EXECUTION_ID]
    assert await offered(cli, "nodeflow workflows wo") == ["word-count"]
    assert await offered(cli, "nodeflow submit wo") == ["workflow.yaml", "word-count"]
    assert "graph" in await offered(cli, "nodeflow gr")


async def test_without_a_suite_nothing_is_offered_and_nothing_is_said(cli: Cli) -> None:
    cli.environment["NODEFLOW_ADDRESS"] = "127.0.0.1:1"
    assert await offered(cli, "nodeflow get ") == []
    cli.environment["NODEFLOW_ADDRESS"] = "nowhere"
    assert await offered(cli, "nodeflow get ") == []
