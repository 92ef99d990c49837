"""Writes docs/workflow.schema.json, the JSON Schema that editors use for workflow documents.

Owns that file. The schema is made of the models that validate documents, so the two cannot differ: `--check` fails when
the file was not written again after a change of the models.
"""

import argparse
import json
import sys
from pathlib import Path

from nodeflow_scheduler.domain.document_schema import document_schema

TARGET = Path(__file__).resolve().parent.parent / "docs" / "workflow.schema.json"


def main() -> int:
    """Write the file, or compare it; the exit code is 1 when it is out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare")
    check: bool = parser.parse_args().check
    text = json.dumps(document_schema(), indent=2, ensure_ascii=False) + "\n"
    if check:
        if TARGET.is_file() and TARGET.read_text(encoding="utf-8") == text:
            return 0
        print(f"docs/{TARGET.name} is out of date: run python scripts/write_schema.py", file=sys.stderr)
        return 1
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
