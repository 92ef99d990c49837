"""Workflows, registered and compiled. Owns the cache of compiled revisions; the truth is in the catalogue."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from hashlib import sha256

from nodeflow_scheduler.domain.document import compile_document
from nodeflow_scheduler.domain.workflow import Workflow
from nodeflow_scheduler.ports import Catalogue, WorkflowRecord
from nodeflow_shared.errors import FieldViolation, InvalidInput

CACHED_WORKFLOWS = 256
"""Compiled revisions that are kept in memory; others are read and compiled again."""
DIRECTORY_LIMIT = 4_096
"""Characters; it is in every message that hands out a task."""


class Library:
    """Compiled workflows by revision."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._by_revision: OrderedDict[tuple[str, str], Workflow] = OrderedDict()
        self._by_source: OrderedDict[tuple[str, bytes], Workflow] = OrderedDict()

    async def register(
        self, tenant: str, source: bytes, content_type: str, directory: str
    ) -> tuple[Workflow, WorkflowRecord, bool]:
        """Compiles a document and stores its revision; tells whether it is new. Raises InvalidInput, DocumentFaults."""
        if len(directory) > DIRECTORY_LIMIT:
            found = f"has {len(directory):,} characters"
            violation = FieldViolation("document.directory", found, f"a path of at most {DIRECTORY_LIMIT:,}")
            raise InvalidInput("the directory of the document is too long", violations=[violation])
        workflow = compile_document(source, content_type, directory)
        record = WorkflowRecord(
            tenant=tenant,
            name=workflow.name,
            revision=workflow.revision,
            document=source,
            content_type=content_type or "application/yaml",
            directory=directory,
        )
        stored, created = await self._catalogue.create_workflow(record)
        self._remember(tenant, workflow)
        return workflow, stored, created

    async def from_document(self, tenant: str, source: bytes, content_type: str, directory: str) -> Workflow:
        """The workflow of a document, registered on the way unless the very same document was seen before."""
        key = (tenant, sha256(b"\0".join((source, content_type.encode(), directory.encode()))).digest())
        workflow = self._by_source.get(key)
        if workflow is None:
            workflow, _, _ = await self.register(tenant, source, content_type, directory)
            self._by_source[key] = workflow
            if len(self._by_source) > CACHED_WORKFLOWS:
                self._by_source.popitem(last=False)
        return workflow

    async def newest(self, tenant: str, name: str) -> Workflow:
        """The newest revision of a workflow. Raises NotFound."""
        return self.compile(await self._catalogue.get_workflow(tenant, name, ""))

    async def workflow(self, tenant: str, revision: str) -> Workflow:
        """The workflow at a revision. Raises NotFound."""
        workflow = self._by_revision.get((tenant, revision))
        if workflow is None:
            workflow = self.compile(await self._catalogue.get_workflow(tenant, "", revision))
            await asyncio.sleep(0)  # Compiling takes milliseconds: let others in between many.
        return workflow

    def compile(self, record: WorkflowRecord) -> Workflow:
        """The workflow of a stored revision."""
        workflow = self._by_revision.get((record.tenant, record.revision))
        if workflow is None:
            workflow = compile_document(record.document, record.content_type, record.directory)
            self._remember(record.tenant, workflow)
        return workflow

    def _remember(self, tenant: str, workflow: Workflow) -> None:
        self._by_revision[tenant, workflow.revision] = workflow
        if len(self._by_revision) > CACHED_WORKFLOWS:
            self._by_revision.popitem(last=False)
