"""The page of messages and calls, from the ``.proto`` files and their comments."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "engine" / "api" / "leeway" / "v1"
FILES = ("service.proto", "records.proto", "admin.proto")
_HEAD = """<!-- written by: python -m deploy.pages -->

# Messages and calls

The `.proto` files below `engine/api/leeway/v1/`, which come with the wheel: clients in other languages are generated
from them. Field numbers are for ever. [Deciding and reporting](../deciding.md) says what the calls promise,
[Events](../events.md)
which topics hold which records.
"""
_OPENS = re.compile(r"(service|message|enum) (\w+) \{")
_CALL = re.compile(r"rpc (\w+)\(((?:stream )?[\w.]+)\) returns \(((?:stream )?[\w.]+)\)")
_FIELD = re.compile(r"((?:repeated |optional )?(?:map<[^>]+>|[\w.]+)) (\w+) = (\d+)(?: \[.*\])?;")
_VALUE = re.compile(r"(\w+) = (-?\d+);")


def page() -> str:
    """Return the page in Markdown."""
    return _HEAD + "".join("".join(_file(name)) for name in FILES)


def _file(name: str) -> Iterator[str]:
    text = (FOLDER / name).read_text(encoding="utf-8")
    words = re.match(r"((?://.*\n)+)", text)
    yield f"\n## {name}\n\n{_comment(words[0].splitlines()) if words else ''}\n"
    comment: list[str] = []
    kinds: list[str] = []  # of the blocks that are open
    for line in (line.strip() for line in text.splitlines()[len(words[0].splitlines()) if words else 0 :]):
        code, _, after = line.partition("//")
        code = code.strip()
        if line.startswith("//"):
            comment.append(line)
            continue
        said = _comment([*comment, after])
        if opened := _OPENS.match(code):
            kinds.append(opened[1])
            yield f"\n### {opened[2]}\n\n{opened[1]}{': ' if said else ''}{said}\n"
            yield from _head(opened[1])
            if code.endswith("}"):
                kinds.pop()
        elif code.startswith("oneof"):
            kinds.append("oneof")
        elif code == "}":
            kinds.pop()
        elif call := _CALL.match(code):
            yield f"| `{call[1]}` | `{call[2]}` | `{call[3]}` | {said} |\n"
        elif kinds and kinds[-1] == "enum" and (value := _VALUE.match(code)):
            yield f"| `{value[1]}` | {value[2]} | {said} |\n"
        elif field := _FIELD.match(code):
            one = "one of several. " if kinds[-1] == "oneof" else ""
            yield f"| `{field[2]}` | {field[3]} | `{field[1]}` | {one}{said} |\n"
        elif kinds and code and not code.startswith(("reserved", "option")):
            raise ValueError(f"{name}: cannot be read for the reference: {line}")
        comment = []


def _head(kind: str) -> Iterator[str]:
    columns = {
        "service": ("call", "request", "response", "meaning"),
        "message": ("field", "number", "type", "meaning"),
        "enum": ("value", "number", "meaning"),
    }[kind]
    yield f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}\n"


def _comment(lines: list[str]) -> str:
    words = " ".join(line.strip().lstrip("/").strip() for line in lines).strip()
    return words.replace("|", "\\|").replace("<", "&lt;").replace("[", "\\[")
