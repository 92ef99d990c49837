"""The JSON Schema of documents that editors use, made of the models that validate them."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from nodeflow_scheduler.domain.document_model import WorkflowModel
from nodeflow_scheduler.domain.pipeline_model import PIPELINE, PipelineModel


class _SchemaForEditors(GenerateJsonSchema):
    """Without what editors show as noise: titles made of names, nulls for what may be left out, compiled defaults."""

    def field_title_should_be_set(self, schema: object) -> bool:  # noqa: ARG002 -- the base class names it
        return False

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])


def document_schema() -> Mapping[str, object]:
    """The JSON Schema of documents of both kinds."""
    kinds, schema = models_json_schema(
        [(WorkflowModel, "validation"), (PipelineModel, "validation")],
        by_alias=True,
        schema_generator=_SchemaForEditors,
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "Node Flow workflow or pipeline",
        "type": "object",
        "if": {"properties": {"kind": {"const": PIPELINE}}, "required": ["kind"]},
        "then": kinds[PipelineModel, "validation"],
        "else": kinds[WorkflowModel, "validation"],
    }
