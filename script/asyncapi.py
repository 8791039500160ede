#!/usr/bin/env python3
"""Write the schemas of docs/asyncapi.yaml from the frames in chat/protocol.py.

Usage: script/asyncapi.py [--check]

What is above the marker in the file is written by people; with --check, nothing is written, and the
exit code is 1 if the file is not what it would be.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, get_args

import msgspec
import yaml

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from chat import protocol  # noqa: E402

DOCUMENT = ROOT / "docs" / "asyncapi.yaml"
MARKER = "  # From here on it is written by script/asyncapi.py.\n"


class Dumper(yaml.SafeDumper):
    """Lists are indented, as everywhere in the project."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        return super().increase_indent(flow, False)


def schemas() -> dict[str, Any]:
    """JSON schemas of all frames, by the names of their structs."""
    frames = get_args(protocol.ClientFrame) + get_args(protocol.ServerFrame)
    _, components = msgspec.json.schema_components(
        frames, ref_template="#/components/schemas/{name}"
    )
    for schema in components.values():
        for field in schema.get("properties", {}).values():
            _adapt(field)
        if "description" in schema:
            schema["description"] = " ".join(schema["description"].split())
    return components


def _adapt(field: dict[str, Any]) -> None:
    # Messages are encoded before: for msgspec they could be anything.
    if field.get("items") == {}:
        field["items"] = {"$ref": "#/components/schemas/Message"}
    for one in (field, *field.get("anyOf", ())):
        if "pattern" in one:
            one["pattern"] = one["pattern"].replace(r"\A", "^").replace(r"\Z", "$")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    check = parser.parse_args().check
    written = DOCUMENT.read_text()
    by_hand, _, _ = written.partition(MARKER)
    generated = yaml.dump({"schemas": schemas()}, Dumper=Dumper, sort_keys=False, width=100)
    wanted = by_hand + MARKER + "".join(f"  {line}\n" for line in generated.splitlines())
    if check and wanted != written:
        print("docs/asyncapi.yaml is not what script/asyncapi.py writes: run it", file=sys.stderr)
        return 1
    if not check:
        DOCUMENT.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
