"""What the functions of simulated work do, and what they give: everything follows from their arguments.

Owns the deed of a node, and the value that it must come to. Must not know graphs or the engine: whoever foretells an
execution, and whoever executes it, take both from here.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final
from zlib import crc32

from nodeflow_testing.virtual_runners import Died, Raised, Scripted, Value

FUNCTIONS: Final = ("f:quick", "f:steady", "f:odd", "f:slow")
"""Names of functions; a worker measures each for itself. All do as their deed says."""
ENDLESS: Final = 1_000_000
"""`fails` of a task that never succeeds."""

HANGS: Final = float("inf")


class Manner(StrEnum):
    """How a task fails."""

    RAISES = "raises"
    DIES = "dies"
    HANGS = "hangs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """What a node does."""

    salt: int
    """Sets its value apart from that of every other node."""
    takes_s: float
    fails: int = 0
    """How many of its first attempts fail."""
    manner: Manner = Manner.RAISES
    stumbles: int = 0
    """Of a mapped node: items divisible by it never succeed; 0 for none."""
    yields: int = 0
    """Gives a list of so many numbers; 0 for a single number."""
    bulk: int = 0
    """Gives text of about so many characters; 0 for a number."""
    prints: int = 0
    """Lines that an attempt writes while it runs."""

    def written(self) -> str:
        """Return the deed as an argument: as text, which a scheduler need not look into."""
        return json.dumps(asdict(self), separators=(",", ":"))

    def never_succeeds(self, item: object) -> bool:
        """Whether no number of attempts is enough."""
        stumbles = self.stumbles and isinstance(item, int) and item % self.stumbles == 0
        return self.fails >= ENDLESS or bool(stumbles)


def act(arguments: dict[str, Any], attempt: int) -> tuple[float, Scripted]:
    """Do what the deed in the arguments says, or in a process's environment. For VirtualSuite."""
    arguments = arguments.get("env", arguments)
    deed = Deed(**json.loads(arguments["deed"]))
    item = arguments.get("item")
    prints = [line_of(deed, item, attempt, number) for number in range(1, deed.prints + 1)]
    if attempt <= deed.fails or deed.never_succeeds(item):
        match Manner(deed.manner):
            case Manner.RAISES:
                return deed.takes_s, Raised()
            case Manner.DIES:
                return deed.takes_s, Died()
            case Manner.HANGS:
                return HANGS, Value(None)
    spread = 1 + crc32(repr((deed.salt, item)).encode()) % 100 / 100
    values = [arguments[name] for name in sorted(arguments) if name.startswith("v")]
    return deed.takes_s * spread, Value(value_of(deed, item, values), prints=prints)


def line_of(deed: Deed, item: object, attempt: int, number: int) -> str:
    """Return a line that an attempt writes; nothing else writes the same."""
    return f"{deed.salt}/{item}/{attempt}: line {number}"


def value_of(deed: Deed, item: object, values: list[object]) -> object:
    """Return what a task gives: it tells whether everything that it was given was right."""
    number = crc32(json.dumps([deed.salt, item, values], separators=(",", ":")).encode())
    if deed.yields:
        return [(number + place) % 1_000 for place in range(deed.yields)]
    if deed.bulk:
        return str(number) * (deed.bulk // len(str(number)))
    return number


def functions() -> Mapping[str, Any]:
    """Return all functions, for VirtualSuite."""
    return dict.fromkeys(FUNCTIONS, act)
