"""The shape of a pipeline document, as pydantic models: for validation, and for the JSON Schema that editors use.

Owns fields, types, bounds and their descriptions. What spans several fields, jobs or stages is `pipeline`'s.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field
from pydantic.json_schema import WithJsonSchema

from nodeflow_scheduler.domain.document_model import (
    DocumentModel,
    HeaderModel,
    InputModel,
    LimitsModel,
    Name,
    RetryModel,
    Timeout,
    UserValue,
    fault,
)
from nodeflow_scheduler.domain.workflow import FailurePolicy

PIPELINE: Final = "Pipeline"
JOBS_LIMIT: Final = 1_000
STAGES_LIMIT: Final = 100
COMBINATIONS_LIMIT: Final = 256

Environment = dict[str, UserValue]

_POLICY_SCHEMA: Final = {"type": "string", "enum": ["cancel_dependents", "fail_fast"]}


def _not_continue(policy: FailurePolicy) -> FailurePolicy:
    if policy is FailurePolicy.CONTINUE:
        raise fault("a stage completes only if all its jobs do", "write allow_failure: true at jobs that may fail")
    return policy


class SourceModel(DocumentModel):
    """The files that every job finds in its working directory, packed when the pipeline is submitted."""

    path: str = Field(
        min_length=1,
        max_length=4_096,
        description="A directory (without what .gitignore ignores) or a tar archive, from the document's directory on.",
        examples=["."],
    )


class JobModel(DocumentModel):
    """One job: a script, in a working directory of its own with the source and the files of earlier jobs in it."""

    name: Name = Field(description="Its name, which no other job of the pipeline has.")
    run: str = Field(
        max_length=65_536,
        description="What /bin/sh -e runs, as it is; values come by `env`.",
        examples=["python -m pytest -q tests/unit"],
    )
    env: Environment = Field(
        default={}, description="Environment variables; `${…}` holds a CEL expression, anything but text becomes JSON."
    )
    needs: list[str] = Field(default=[], description="Jobs of the same stage that must complete first.")
    uses: list[str] | None = Field(
        default=None,
        description="Jobs whose artifacts it finds in its working directory. "
        "Left out: all of earlier stages, and those of `needs`.",
    )
    artifacts: list[str] = Field(
        default=[],
        max_length=100,
        description="Files that it leaves, as paths and globs below the working directory; "
        "later jobs find them at the same paths.",
        examples=[["dist/*.whl"]],
    )
    matrix: dict[str, list[UserValue]] = Field(
        default={},
        description="Values by name: the job runs once for each combination, with MATRIX_<NAME> in its environment.",
        examples=[{"python": ["3.11", "3.12"]}],
    )
    when: UserValue = Field(
        default=None,
        description="A condition in CEL; the job is skipped when it is false, which keeps nothing else from running.",
        examples=['jobs.lint.state == "SUCCESS"'],
        json_schema_extra={"type": ["boolean", "string"]},
    )
    allow_failure: bool = Field(default=False, description="Its failure does not fail its stage.")
    retry: RetryModel = RetryModel(attempts=1)
    timeout: Timeout | None = Field(default=None, description="How long one try may take.")
    limits: LimitsModel = Field(default=LimitsModel(), description="What it may use.")
    description: str = Field(default="", max_length=4_096, description="For people.")


class StageHeadModel(DocumentModel):
    """What a stage says about itself."""

    name: Name = Field(description="Its name, which no other stage has.")
    description: str = Field(default="", max_length=4_096, description="For people.")


class StageModel(StageHeadModel):
    """Jobs that may run at the same time. The next stage begins when all of them have completed."""

    jobs: list[JobModel] = Field(min_length=1, max_length=JOBS_LIMIT, description="The jobs.")


class PipelineHeadModel(HeaderModel):
    """What a document says about the pipeline as a whole."""

    kind: Literal["Pipeline"] = Field(description="What the document describes.")  # type: ignore[assignment]  # the other kind
    name: Name = Field(description="The name of the pipeline.")
    on_failure: Annotated[
        FailurePolicy, Field(strict=False), AfterValidator(_not_continue), WithJsonSchema(_POLICY_SCHEMA)
    ] = Field(
        default=FailurePolicy.CANCEL_DEPENDENTS,
        description="When a job fails: let its stage come to an end and begin no other, or cancel everything.",
    )
    env: Environment = Field(default={}, description="Environment variables of all jobs; a job's own come before them.")
    source: SourceModel | None = Field(default=None, description="The files that every job begins with.")


class PipelineModel(PipelineHeadModel):
    """A pipeline document: stages of jobs."""

    inputs: dict[Name, InputModel] = Field(default={}, description="What a submission gives, by name.")
    stages: list[StageModel] = Field(min_length=1, max_length=STAGES_LIMIT, description="The stages, in their order.")
    outputs: dict[Name, UserValue] = Field(default={}, description="What the execution gives, by name.")
