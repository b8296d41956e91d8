"""The page of all papers that the code names, from the docstrings of the modules."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FLOORS = ("engine", "monitoring", "training", "streaming")
_HEAD = """<!-- written by: python -m deploy.pages -->

# Papers, by module

Each algorithm is one file, and its docstring names its paper; this list is read from them. What is done otherwise than
in the paper is said there too, and for the larger things in [Papers, and what is done differently](../papers.md).
"""
_TITLE = re.compile(r"""\*[A-Z][^*]{9,}\*|"[A-Z][^"]{9,}"|arXiv|\w+ and \w+, """)
_YEAR = re.compile(r"\b(?:19|20)\d\d\b")


def page() -> str:
    """Return the page in Markdown."""
    return _HEAD + "".join(_floor(name) for name in FLOORS)


def _floor(name: str) -> str:
    found = list(_cited(ROOT / name))
    rows = "".join(f"| `{module}` | {what} | {papers} |\n" for module, what, papers in found)
    return f"\n## {name}\n\n| module | what | paper |\n|---|---|---|\n{rows}" if found else ""


def _cited(folder: Path) -> Iterator[tuple[str, str, str]]:
    for path in sorted(folder.rglob("*.py")):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        first, *others = text.split("\n\n")
        papers = [part for part in (*others, first) if _TITLE.search(part) and _YEAR.search(part)]
        if papers:
            module = str(path.relative_to(ROOT)).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            yield module, _cell("" if first in papers else first), _cell(" ".join(papers))


def _cell(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|").replace("\n", " ")
