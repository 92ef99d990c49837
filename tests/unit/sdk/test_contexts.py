"""`nodeflow context` and `--context`: which suite is asked, and a file that may be wrong."""

import json
from pathlib import Path

import pytest
from tests.unit.sdk.conftest import Cli
from tests.unit.sdk.fake_services import EXECUTION_ID, FakeServices

NOBODY = "127.0.0.1:1"


@pytest.fixture
def unaddressed(cli: Cli) -> Cli:
    """A command line that no variable tells where to go."""
    del cli.environment["NODEFLOW_ADDRESS"]
    return cli


def file_of(cli: Cli) -> Path:
    return Path(cli.environment["XDG_CONFIG_HOME"]) / "nodeflow" / "contexts.yaml"


async def test_the_suite_asked_is_that_of_the_context_named_else_of_the_one_in_use(
    unaddressed: Cli, fakes: FakeServices
) -> None:
    cli = unaddressed
    for name, address in {"here": fakes.address, "nobody": NOBODY}.items():
        assert (await cli("context", "set", name, "--address", address)).code == 0
    assert (await cli("--context", "here", "ls", "-o", "name")).out == f"{EXECUTION_ID}\n"
    assert (await cli("ls", "--context", "here", "-o", "name")).out == f"{EXECUTION_ID}\n"
    assert NOBODY in (await cli("--context", "here", "ls", "--context", "nobody")).err
    assert (await cli("context", "use", "nobody")).code == 0
    assert NOBODY in (await cli("ls")).err
    assert (await cli("--context", "here", "ls")).code == 0
    assert (await cli("ls", "--address", fakes.address)).code == 0
    assert (await cli("context", "use")).code == 0
    listed = json.loads((await cli("context", "ls", "-o", "json")).out)["contexts"]
    assert [(each["name"], each["address"], each["current"]) for each in listed] == [
        ("here", fakes.address, False),
        ("nobody", NOBODY, False),
    ]


async def test_workers_of_a_context_are_asked_where_it_says(unaddressed: Cli, fakes: FakeServices) -> None:
    cli = unaddressed
    await cli("context", "set", "here", "--address", fakes.address, "--worker-manager", fakes.address)
    assert (await cli("--context", "here", "workers", "-o", "json")).code == 0


async def test_an_address_and_a_context_together_are_refused(cli: Cli, fakes: FakeServices) -> None:
    await cli("context", "set", "here", "--address", fakes.address)
    done = await cli("--context", "here", "ls")
    assert (done.code, done.out) == (2, "")
    assert f"both an address, {fakes.address}, and the context 'here' are named" in done.err


async def test_removing_the_one_in_use_leaves_none_in_use(unaddressed: Cli, fakes: FakeServices) -> None:
    cli = unaddressed
    await cli("context", "set", "here", "--address", fakes.address)
    await cli("context", "use", "here")
    assert "*" in (await cli("context", "ls")).out
    assert (await cli("context", "rm", "here")).code == 0
    assert json.loads((await cli("context", "ls", "-o", "json")).out) == {"contexts": []}


async def test_what_is_wrong_says_where_and_what_to_do(unaddressed: Cli) -> None:
    cli = unaddressed
    for arguments, told in {
        ("context", "use", "none"): "there is no context 'none'; there are: none yet",
        ("context", "rm", "none"): "there is no context 'none'",
        ("--context", "none", "ls"): "there is no context 'none'",
        ("context", "set", "a b", "--address", NOBODY): "'a b' is no context's name",
        ("context", "set", "a", "--address", "nowhere"): "--address 'nowhere' should be host:port",
    }.items():
        done = await cli(*arguments)
        assert (done.code, done.out) == (2, ""), arguments
        assert told in done.err
    file_of(cli).parent.mkdir(parents=True)
    for text in ("contexts: [", "- a", "contexts: {a: {adress: x}}", "contexts: 3"):
        file_of(cli).write_text(text)
        done = await cli("ls")
        assert (done.code, done.out) == (2, ""), text
        assert f"{file_of(cli)} is no file of contexts" in done.err
        assert "mend it, or remove it" in done.err
