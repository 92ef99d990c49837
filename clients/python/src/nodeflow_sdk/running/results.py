"""Outputs as Python values, wherever their bytes are.

Owns the decoding of artifacts and manifests. Must not know workflows.
"""

import base64
import json
from collections.abc import Container, Mapping
from typing import Final, cast

from nodeflow.common.v1.payload_pb2 import Payload

from nodeflow_sdk.client import Client
from nodeflow_sdk.payloads import JSON, from_json

MANIFEST: Final = "application/vnd.nodeflow.manifest+json"


async def read_outputs(client: Client, payload: Payload, whole: Container[str]) -> dict[str, object]:
    """Return the outputs by name; those named in `whole` may be references, which are downloaded."""
    outputs = cast("dict[str, object]", json.loads(await client.read(payload)) if payload.ByteSize() else {})
    return {name: await _resolved(client, value) if name in whole else value for name, value in outputs.items()}


async def _resolved(client: Client, value: object) -> object:
    """Return a value that stands for itself, or the one that an artifact or base64 holds."""
    match value:
        case {"artifact": {"digest": str(digest), "size_bytes": int()}, "content_type": str(content_type), **rest} if (
            not rest
        ):
            return await _decoded(client, await client.read_artifact(digest), content_type)
        case {"bytes": str(text), "content_type": str(content_type), **rest} if not rest:
            return await _decoded(client, base64.b64decode(text), content_type)
        case _:
            return value


async def _decoded(client: Client, data: bytes, content_type: str) -> object:
    if content_type == MANIFEST:
        entries = cast("list[Mapping[str, object]]", json.loads(data))
        return [each["value"] if "value" in each else await _resolved(client, each) for each in entries]
    return from_json(data) if content_type in ("", JSON) else data
