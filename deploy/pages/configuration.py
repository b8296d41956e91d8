"""The page of the configuration's keys, from the models that read them."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, BeforeValidator

from engine.config import Milliseconds
from streaming.config import Config

_HEAD = """<!-- written by: python -m deploy.pages -->

# The configuration, key by key

What `leeway.yaml` may say: `leeway init` writes it with comments, `leeway check` checks it, and
`leeway schema config` prints a JSON Schema for editors. A variable such as `LEEWAY_SERVING__PORT=8181` overrides
`serving.port`. A *duration* is a number with a unit: `500ms`, `30s`, `10m`, `36h`, `7d`, `2w`.
"""
_DURATION = next(each for each in get_args(Milliseconds) if isinstance(each, BeforeValidator))
_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1))


def page() -> str:
    """Return the page in Markdown."""
    schema = Config.model_json_schema()
    models = {model.__name__: model for model in _models(Config)}
    parts = [_HEAD, *_section("The file", schema, Config)]
    for name, described in schema["$defs"].items():
        parts += _section(name, described, models[name])
    return "\n".join(parts)


def _models(found: Any, seen: set[type[BaseModel]] | None = None) -> Iterator[type[BaseModel]]:
    """Yield every model that an annotation names, at any depth, once."""
    seen = set() if seen is None else seen
    if isinstance(found, type) and issubclass(found, BaseModel):
        if found in seen:
            return
        seen.add(found)
        yield found
        for field in found.model_fields.values():
            yield from _models(field.annotation, seen)
    for below in get_args(found):
        yield from _models(below, seen)


def _section(name: str, described: Mapping[str, Any], model: type[BaseModel]) -> list[str]:
    words = inspect.cleandoc(described.get("description", "")).split("\n\nParameters\n")[0].split("\n\nAttributes\n")[0]
    lines = [f"## {name}", "", words, "", "| key | type | default | meaning |", "|---|---|---|---|"]
    for key, said in described.get("properties", {}).items():
        field = model.model_fields[key]
        duration = _is_duration(field.annotation) or _DURATION in field.metadata
        kind = "duration" if duration else _type(said)
        if duration and any(option.get("type") == "null" for option in said.get("anyOf", ())):
            kind = "duration, or null"
        if key in described.get("required", ()):
            default = "must be given"
        elif "default" not in said or (isinstance(said["default"], dict) and said["default"]):
            default = "see its keys"
        else:
            default = f"`{_default(said['default'], duration)}`"
        lines.append(f"| `{key}` | {_cell(kind)} | {_cell(default)} | {_cell(said.get('description', ''))} |")
    return [*lines, ""]


def _is_duration(annotation: Any) -> bool:
    if get_origin(annotation) is Annotated and _DURATION in annotation.__metadata__:
        return True
    return any(_is_duration(below) for below in get_args(annotation))


def _type(said: Mapping[str, Any]) -> str:
    if "$ref" in said:
        name = said["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "const" in said:
        return f"`{said['const']}`"
    if "enum" in said:
        return ", ".join(f"`{each}`" for each in said["enum"])
    for options in ("anyOf", "oneOf"):
        if options in said:
            return ", or ".join(_type(option) for option in said[options])
    kind = said.get("type", "any")
    if kind == "array":
        below = said.get("items") or (said.get("prefixItems") or [{}])[0]
        return f"list of {_type(below)}"
    if kind == "object":
        below = said.get("additionalProperties")
        return f"by name: {_type(below)}" if isinstance(below, dict) else "mapping"
    return str({"integer": "whole number", "string": "text", "boolean": "true or false"}.get(kind, kind)) + _bounds(
        said
    )


def _bounds(said: Mapping[str, Any]) -> str:
    words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    found = [f"{word} {said[key]:g}" for key, word in words.items() if key in said and abs(said[key]) < 1e30]
    return f" ({', '.join(found)})" if found else ""


def _default(value: Any, duration: bool) -> str:
    if duration and isinstance(value, int) and value:
        unit, size = next((unit, size) for unit, size in _UNITS if value % size == 0)
        return f"{value // size}{unit}"
    return json.dumps(value, ensure_ascii=False)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
