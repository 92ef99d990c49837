"""Draws docs/lifecycle.md from the lifecycle tables of the scheduler.

Owns that file. `--check` fails when it is not what the tables say.
"""

import argparse
import sys
from collections.abc import Mapping
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Final, TypeVar

from nodeflow_scheduler.domain.lifecycle import (
    EXECUTION_TRANSITIONS,
    TASK_TRANSITIONS,
    ExecutionState,
    ExecutionTrigger,
    TaskState,
    TaskTrigger,
)

TARGET: Final = Path(__file__).resolve().parent.parent / "docs" / "lifecycle.md"

S = TypeVar("S", bound=IntEnum)
T = TypeVar("T", bound=StrEnum)

TASK_MEANINGS: Final[Mapping[TaskTrigger, str]] = {
    TaskTrigger.QUEUE: "all it waits for is there, or its backoff has ended, or its attempt was lost: the next attempt",
    TaskTrigger.EXPAND: "the list of a mapped node is known; the node runs while its items do",
    TaskTrigger.START: "a worker reports that the attempt began (reports may be lost)",
    TaskTrigger.COMPLETE: "the attempt succeeded; of a mapped node: all items are over",
    TaskTrigger.RETRY: "the attempt failed and will be tried again when its backoff has ended",
    TaskTrigger.FAIL: "the attempt failed for good, or what the task needs could not be computed",
    TaskTrigger.LOSE: "nobody executes the attempt any more; it does not count as a try",
    TaskTrigger.SKIP: "its condition was false, or a parent failed under the policy `continue`",
    TaskTrigger.CANCEL: "a person, a timeout, or the failure of another node ended it",
}

EXECUTION_MEANINGS: Final[Mapping[ExecutionTrigger, str]] = {
    ExecutionTrigger.START: "its submission was accepted",
    ExecutionTrigger.COMPLETE: "every task is over, and its outputs are computed",
    ExecutionTrigger.FAIL: "a node failed, its outputs could not be computed, or its time was up",
    ExecutionTrigger.CANCEL: "a person cancelled it",
}

INTRODUCTION: Final = """\
# Lifecycle

Drawn from `services/scheduler/src/nodeflow_scheduler/domain/lifecycle.py` by `scripts/draw_lifecycle.py`: change the
tables there, then run the script. What is not drawn is refused. A state changes only by an event of the log.
"""


def diagram(initial: IntEnum, table: Mapping[S, Mapping[T, S]]) -> str:
    """A mermaid state diagram: one arrow for each pair of states, with all that leads from one to the other."""
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {initial.name}"]
    for state, moves in table.items():
        arrows: dict[S, list[str]] = {}
        for trigger, following in moves.items():
            arrows.setdefault(following, []).append(trigger.value)
        lines += [f"    {state.name} --> {after.name}: {', '.join(names)}" for after, names in arrows.items()]
        if not moves:
            lines.append(f"    {state.name} --> [*]")
    return "\n".join([*lines, "```"])


def triggers(table: Mapping[S, Mapping[T, S]], meanings: Mapping[T, str]) -> str:
    """A table of what can happen, and where it leads."""
    rows = ["| trigger | what happened | moves |", "|---|---|---|"]
    for trigger, meaning in meanings.items():
        moves = [f"{state.name} → {after[trigger].name}" for state, after in table.items() if trigger in after]
        rows.append(f"| {trigger.value} | {meaning} | {', '.join(moves)} |")
    return "\n".join(rows)


def page() -> str:
    """The whole file."""
    parts = [
        INTRODUCTION,
        "## Tasks\n",
        diagram(TaskState.PENDING, TASK_TRANSITIONS),
        "",
        triggers(TASK_TRANSITIONS, TASK_MEANINGS),
        "\n## Executions\n",
        diagram(ExecutionState.PENDING, EXECUTION_TRANSITIONS),
        "",
        triggers(EXECUTION_TRANSITIONS, EXECUTION_MEANINGS),
    ]
    return "\n".join(parts) + "\n"


def main() -> int:
    """Write the file, or compare it; the exit code is 1 when it is out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare")
    check: bool = parser.parse_args().check
    untold = [*(set(TaskTrigger) - set(TASK_MEANINGS)), *(set(ExecutionTrigger) - set(EXECUTION_MEANINGS))]
    if untold:
        print(f"scripts/draw_lifecycle.py does not say what {', '.join(untold)} means", file=sys.stderr)
        return 1
    text = page()
    if not check:
        TARGET.parent.mkdir(exist_ok=True)
        TARGET.write_text(text, encoding="utf-8")
        return 0
    if TARGET.is_file() and TARGET.read_text(encoding="utf-8") == text:
        return 0
    print(f"docs/{TARGET.name} is out of date: run python scripts/draw_lifecycle.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
