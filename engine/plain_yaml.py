"""YAML that people write: what is short in the file must not be endless in memory."""

from __future__ import annotations

from typing import Any

import yaml

#: How deep mappings and lists may lie in each other, and how many values a file may have, its aliases written out.
MOST_DEPTH, MOST_VALUES = 64, 100_000


def read_yaml(text: str) -> tuple[Any, yaml.Node | None]:
    """Return the content of a text, and its tree, which knows the lines; ``None``: there is nothing in it.

    Raises ``yaml.YAMLError``, also for what PyYAML's readers make other errors of.

    >>> read_yaml("a: &x [1, 2]\\nb: *x")[0]
    {'a': [1, 2], 'b': [1, 2]}
    >>> read_yaml("a: &x {b: *x}")
    Traceback (most recent call last):
    yaml.error.YAMLError: line 1: contains itself
    """
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        if tree is not None:
            _count(tree, 0, set())
        return yaml.safe_load(text), tree
    except RecursionError:
        raise yaml.YAMLError("mappings or lists lie too deep in each other") from None
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        # Of a number, a date or a tag that is none.
        raise yaml.YAMLError(f"a value is not what it looks like ({error})") from error


def _count(node: yaml.Node, before: int, around: set[int]) -> int:
    """Return how many values there are up to the end of a node, aliases written out."""
    line = node.start_mark.line + 1
    if id(node) in around:
        raise yaml.YAMLError(f"line {line}: contains itself")
    if len(around) > MOST_DEPTH:
        raise yaml.YAMLError(f"line {line}: lies deeper than {MOST_DEPTH} mappings and lists")
    count = before + 1
    if count > MOST_VALUES:
        raise yaml.YAMLError(f"line {line}: there are more than {MOST_VALUES} values, those behind aliases among them")
    if isinstance(node, (yaml.MappingNode, yaml.SequenceNode)):
        inner = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        around.add(id(node))
        for part in inner:
            count = _count(part, count, around)
        around.discard(id(node))
    return count
