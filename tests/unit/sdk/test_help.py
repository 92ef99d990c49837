"""What every command has: an example in its help, and the same global options."""

import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from nodeflow_sdk.cli.main import app

# Any: typer carries the click that its commands are made of inside, and it is not public.
Command = Any


def commands(command: Command, path: tuple[str, ...]) -> Iterator[tuple[str, Command]]:
    """Every command below one, by what is typed to call it."""
    for name, each in getattr(command, "commands", {}).items():
        if hasattr(each, "commands"):
            yield from commands(each, (*path, name))
        yield " ".join((*path, name)), each


ALL = dict(commands(typer.main.get_command(app), ()))


@pytest.mark.parametrize("name", ALL)
def test_every_command_says_what_it_does_and_has_an_example_of_itself(name: str) -> None:
    command = ALL[name]
    assert command.help, "without a line that says what it does"
    assert command.epilog, "without an example"
    assert command.epilog.startswith(f"Example: nodeflow {name}"), command.epilog
    words = shlex.split(command.epilog.removeprefix("Example: "))
    options = {word.partition("=")[0] for word in words if word.startswith("-") and word != "-"}
    target = command if not hasattr(command, "commands") else ALL[" ".join(words[1:3])]
    known = {option for parameter in target.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert options <= known


@pytest.mark.parametrize("name", ALL)
def test_every_option_and_argument_is_explained(name: str) -> None:
    silent = [each.name for each in ALL[name].params if not getattr(each, "help", "")]
    assert silent == []


@pytest.mark.parametrize("name", [name for name, each in ALL.items() if name != "context set"])
def test_whoever_can_be_told_an_address_can_be_told_a_context(name: str) -> None:
    options = {option for parameter in ALL[name].params for option in parameter.opts}
    assert ("--address" in options) == ("--context" in options)
