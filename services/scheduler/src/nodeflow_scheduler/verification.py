"""Results that name artifacts, checked before they are decided on: the log refuses events that name what is not stored.

A worker that names bytes which it did not upload would else take its whole shard down with each report. Knows the store
through its port; whether a result counts at all is the core's to say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from nodeflow_scheduler.domain.failures import Failure, FailureKind
from nodeflow_scheduler.domain.messages import Held, Input, Outcome, Produced, Report, Updates
from nodeflow_scheduler.domain.values import Stored
from nodeflow_scheduler.ports import Artifacts

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Verification:
    """Looks up what results name."""

    def __init__(self, artifacts: Artifacts, tenant_of: Callable[[str], str | None]) -> None:
        self._artifacts = artifacts
        self._tenant_of = tenant_of

    async def verify(self, inputs: Sequence[Input]) -> None:
        """Turns each result that names an artifact which is not stored into a failure, in place."""
        for each in inputs:
            # Plain bytes name nothing, and are nearly all there is.
            if isinstance(each, Updates | Held) and any(report[6].__class__ is not bytes for report in each.results):
                await self._verify_reports(each.results)

    async def _verify_reports(self, reports: list[Report]) -> None:
        named: dict[str, set[str]] = {}
        for report in reports:
            tenant = self._tenant_of(report.execution_id)
            if tenant is not None:
                named.setdefault(tenant, set()).update(digests_in(report.outcome))
        missing = {tenant: await self._missing(tenant, digests) for tenant, digests in named.items() if digests}
        for position, report in enumerate(reports):
            lost = missing.get(self._tenant_of(report.execution_id) or "", set()).intersection(
                digests_in(report.outcome)
            )
            if lost:
                reports[position] = report._replace(outcome=not_uploaded(min(lost)))

    async def _missing(self, tenant: str, digests: set[str]) -> set[str]:
        known = {digest for digest in digests if _DIGEST.fullmatch(digest)}
        return digests - known | await self._artifacts.missing(tenant, known)


def digests_in(outcome: Outcome) -> Iterable[str]:
    """The artifacts that an outcome names."""
    if isinstance(outcome, Produced):
        return [*digests_in(outcome.output), *(file.digest for file in outcome.artifacts.values())]
    return [outcome.digest] if isinstance(outcome, Stored) and outcome.digest else []


def not_uploaded(digest: str) -> Failure:
    """The worker named an artifact that the store does not have."""
    message = f"the worker names artifact {digest}, which is not stored; it must upload an artifact before its result"
    return Failure(kind=FailureKind.SYSTEM, reason="ARTIFACT_MISSING", message=message, retryable=True)
