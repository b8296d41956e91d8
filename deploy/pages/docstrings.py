"""What our docstrings have and Markdown has not: literal blocks after ``::``, and doctests outside of Examples."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_DOCTEST = re.compile(r"(?:^>>> .*\n(?:.+\n?)*)", re.MULTILINE)


class Docstrings(Extension):
    """Reads them as they are meant."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Rewrite the docstring of one class or function."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    r"""Return a docstring whose literal blocks and doctests are Markdown.

    >>> as_markdown("The rule::\n\n    p = 1\n\n>>> 1 + 1\n2\n")
    'The rule:\n\n    p = 1\n\n```pycon\n>>> 1 + 1\n2\n```\n'
    """
    text = re.sub(r"::$", ":", text, flags=re.MULTILINE)
    if re.search(r"^Examples\n-+$", text, re.MULTILINE):
        return text  # that section is known to be one
    return _DOCTEST.sub(lambda found: f"```pycon\n{found[0].rstrip()}\n```\n", text)
