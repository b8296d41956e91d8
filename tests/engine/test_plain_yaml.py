from __future__ import annotations

import pytest
import yaml

from engine.plain_yaml import MOST_DEPTH, MOST_VALUES, read_yaml


def test_content_and_tree_are_those_of_the_text() -> None:
    content, tree = read_yaml("a: &x {b: [1, two]}\nc: *x\n")
    assert content == {"a": {"b": [1, "two"]}, "c": {"b": [1, "two"]}}
    assert isinstance(tree, yaml.MappingNode)
    assert read_yaml("") == (None, None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: &x [*x]", "contains itself"),
        ("[" * (MOST_DEPTH + 2) + "]" * (MOST_DEPTH + 2), "lies deeper than"),
        ("[" * 5_000, "too deep"),
        (
            "\n".join([f"a0: &a0 {list(range(10))}", *(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 10}]" for n in range(1, 9))]),
            str(MOST_VALUES),
        ),
        ("a: 2026-99-99", "no|not what it looks like"),
        ("a: " + "9" * 5_000, "not what it looks like"),
        ("a: !!int ''", "not what it looks like"),
    ],
)
def test_what_is_endless_or_no_value_is_refused(text: str, words: str) -> None:
    with pytest.raises(yaml.YAMLError, match=words):
        read_yaml(text)
