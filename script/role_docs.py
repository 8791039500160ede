"""Write each role's README from its argument specs and defaults; --check says where they disagree.

Ansible reads a role's variables from `defaults/main.yml` (values) and `meta/argument_specs.yml`
(types and meaning). This script generates the README from both, and refuses a variable that is only
in one of them. A role without variables needs no argument specs, which would cost a task in each
play: its README is written by hand.
"""

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent


class Loader(yaml.SafeLoader):
    """YAML as Ansible reads it: its own tags are kept as their text."""


Loader.add_multi_constructor("!", lambda loader, _suffix, node: loader.construct_scalar(node))


def load(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    return yaml.load(path.read_text(), Loader) or {}


def text(description: str | list[str]) -> str:
    paragraphs = description if isinstance(description, list) else [description]
    joined = " ".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    return re.sub(r"C\(([^)]*)\)", r"`\1`", joined)


def cell(value: Any) -> str:
    """A default as a table cell: YAML on one line."""
    if isinstance(value, str) and "{{" in value:
        return "computed: `" + " ".join(value.split()).replace("|", "\\|") + "`"
    written = yaml.safe_dump(value, default_flow_style=True, width=10_000).strip()
    return "`" + written.removesuffix("\n...").strip().replace("|", "\\|") + "`"


def kind(option: dict[str, Any]) -> str:
    name = option.get("type", "str")
    if "elements" in option:
        name += f" of {option['elements']}"
    if "choices" in option:
        name += ": " + ", ".join(f"`{choice}`" for choice in option["choices"])
    return name


def disagreements(role: str, defaults: dict[str, Any], options: dict[str, Any]) -> list[str]:
    found = [f"{role}: default without an argument spec: {n}" for n in defaults if n not in options]
    for name, option in options.items():
        if not name.startswith(role + "_"):
            found.append(f"{role}: {name} does not start with the role's name")
        if name not in defaults and not option.get("required", False) and "default" in option:
            found.append(f"{role}: {name} has a default in its spec and none in defaults/main.yml")
        if name in defaults and "default" in option and option["default"] != defaults[name]:
            found.append(
                f"{role}: the spec's default of {name} is not the one in defaults/main.yml"
            )
        if "description" not in option:
            found.append(f"{role}: {name} has no description")
    return found


def rows(name: str, option: dict[str, Any], default: str | None) -> list[str]:
    """The table's row for a variable, and one for each key of the dictionaries it holds."""
    if default is None:
        default = "required" if option.get("required") else "none"
    meaning = text(option["description"]).replace("|", "\\|")
    found = [f"| `{name}` | {kind(option)} | {default} | {meaning} |"]
    for key, inner in option.get("options", {}).items():
        written = cell(inner["default"]) if "default" in inner else None
        found += rows(f"{name}[].{key}", inner, written)
    return found


def readme(role: str, spec: dict[str, Any], defaults: dict[str, Any]) -> str:
    lines = [f"# Role `{role}`", "", text(spec["short_description"]), ""]
    for paragraph in spec.get("description", []):
        lines += [text(paragraph), ""]
    lines += ["## Variables", "", "| variable | type | default | meaning |", "|---|---|---|---|"]
    for name, option in sorted(spec.get("options", {}).items()):
        lines += rows(name, option, cell(defaults[name]) if name in defaults else None)
    lines += [
        "",
        "Written by `script/role_docs.py` from `meta/argument_specs.yml` and `defaults/main.yml`.",
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit with 1 on a difference"
    )
    check = parser.parse_args().check
    problems: list[str] = []
    for folder in sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir()):
        specs = load(folder / "meta" / "argument_specs.yml").get("argument_specs", {})
        defaults = load(folder / "defaults" / "main.yml")
        if "main" not in specs:
            if specs or defaults:
                problems.append(f"{folder.name}: no argument specs for its main entry point")
            continue
        wrong = disagreements(folder.name, defaults, specs["main"].get("options", {}))
        problems += wrong
        if wrong:
            continue
        page = folder / "README.md"
        wanted = readme(folder.name, specs["main"], defaults)
        if check and (not page.exists() or page.read_text() != wanted):
            problems.append(
                f"{folder.name}: README.md is out of date; run .venv/bin/python script/role_docs.py"
            )
        elif not check:
            page.write_text(wanted)
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
