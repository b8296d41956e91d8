"""The fenced blocks of README.md and docs/."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^( *)```(\S*)[ \t]*\n(.*?)^\1```[ \t]*$", re.MULTILINE | re.DOTALL)
#: What a person may be expected to type or copy.
LIVE = ("sh", "bash", "console", "python", "yaml")


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    page: str
    language: str
    text: str

    @property
    def key(self) -> tuple[str, str]:
        """How the reviewed list names it: page and first line."""
        return self.page, self.text.lstrip("\n").partition("\n")[0].strip()

    def commands(self) -> list[str]:
        """Return the lines of a shell block with continued lines joined, without comments."""
        joined = re.sub(r"\\\n\s*", " ", self.text)
        lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in joined.splitlines())
        return [line for line in lines if line]


@cache
def blocks() -> tuple[Block, ...]:
    """Return every fenced block, in the order of the pages."""
    return tuple(_blocks())


def _blocks() -> Iterator[Block]:
    pages = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
    for path in (*pages, *sorted((ROOT / "docs").rglob("*.md"))):
        text = path.read_text(encoding="utf-8")
        for indent, language, inside in _FENCE.findall(text):
            body = re.sub(rf"^{indent}", "", inside, flags=re.MULTILINE)
            yield Block(path.relative_to(ROOT).as_posix(), language, body)


def live(*languages: str) -> list[Block]:
    """Return the blocks of some languages; of all that a person may type, without."""
    return [block for block in blocks() if block.language in (languages or LIVE)]
