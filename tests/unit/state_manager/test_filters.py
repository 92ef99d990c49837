"""The grammar of filters, and what its faults are called."""

import pytest

from nodeflow_shared.errors import InvalidInput
from nodeflow_state_manager.domain.filters import (
    EXAMPLE,
    LabelTerm,
    Operator,
    StateTerm,
    Term,
    TimeField,
    TimeTerm,
    WorkflowTerm,
    parse_filter,
)
from nodeflow_state_manager.domain.values import ExecutionState


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("", ()),
        ("  ", ()),
        ('state = "RUNNING"', (StateTerm(state=ExecutionState.RUNNING, equal=True),)),
        ('state!="running"', (StateTerm(state=ExecutionState.RUNNING, equal=False),)),
        ('state = "SUCCESS"', (StateTerm(state=ExecutionState.COMPLETED, equal=True),)),
        ('state = "Success"', (StateTerm(state=ExecutionState.COMPLETED, equal=True),)),
        ('state = "Completed"', (StateTerm(state=ExecutionState.COMPLETED, equal=True),)),
        ('state = "CANCELED"', (StateTerm(state=ExecutionState.CANCELLED, equal=True),)),
        (
            ' workflow="a \\"b\\" \\\\ AND c"  AND labels.k8s.io/team-1 = "" ',
            (
                WorkflowTerm(workflow='a "b" \\ AND c', equal=True),
                LabelTerm(key="k8s.io/team-1", value="", equal=True),
            ),
        ),
        (
            'create_time >= "2026-01-31T00:00:00Z" AND finish_time<"1970-01-01T01:00:00.5+01:00"',
            (
                TimeTerm(field=TimeField.CREATE_TIME, operator=Operator.GREATER_OR_EQUAL, time_ms=1_769_817_600_000),
                TimeTerm(field=TimeField.FINISH_TIME, operator=Operator.LESS, time_ms=500),
            ),
        ),
    ],
)
def test_filters_are_read(text: str, terms: tuple[Term, ...]) -> None:
    assert parse_filter(text) == terms


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("state", "column 6: expected an operator: =, !=, <, <=, > or >="),
        ("state = RUNNING", "column 9: expected a value in double quotes, like \"RUNNING\", found 'RUNNING'"),
        ('state = "RUNNING', 'column 9: expected a value in double quotes, like "RUNNING", found \'"RUNNING\''),
        ('state > "RUNNING"', "column 7: state is compared with = or !=, not >"),
        ('labels.a >= "1"', "column 10: labels.a is compared with = or !=, not >="),
        ('stat = "RUNNING"', "column 1: there is no field 'stat'"),
        ('labels. = "a"', "column 1: labels. needs the label's key after the dot"),
        (
            '= "a"',
            "column 1: expected a field: state, workflow, labels.KEY, create_time or finish_time, found '= \"a\"'",
        ),
        ('workflow = "a" OR state = "b"', "column 16: expected AND between two terms, found 'OR state = \"b\"'"),
        ('workflow = "a" ANDstate = "b"', "column 16: expected AND between two terms, found 'ANDstate = \"b\"'"),
        ('workflow = "a" AND', "column 19: expected a field: state, workflow, labels.KEY, create_time or finish_time"),
        ('create_time > "yesterday"', "column 15: 'yesterday' is no RFC 3339 time"),
        (
            'create_time > "2026-01-31T00:00:00"',
            "column 15: '2026-01-31T00:00:00' has no time zone; end it with Z or an offset",
        ),
        (
            'state = "DONE"',
            "column 9: 'DONE' is no state; there are PENDING, QUEUED, RUNNING, COMPLETED, FAILED, CANCELLED, PAUSED",
        ),
    ],
)
def test_faults_say_what_is_wrong_at_which_column(text: str, fault: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_filter(text)
    (violation,) = caught.value.violations
    assert (violation.path, violation.description, violation.hint) == ("filter", fault, EXAMPLE)


def test_the_example_in_faults_is_right() -> None:
    assert len(parse_filter(EXAMPLE)) == 3
