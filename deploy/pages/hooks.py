"""What MkDocs is told beside ``mkdocs.yml``: pages that lie at the root, and links to files that are no pages."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
#: Where pages of the root stand on the site.
AT_ROOT = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "SECURITY.md": "security-policy.md"}
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the root."""
    for name, page in AT_ROOT.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Make links into the repository links of the site; one to a file that has no page here stays its text."""
    name = page.file.src_uri
    of_root = name in AT_ROOT.values()

    def link(found: re.Match[str]) -> str:
        words, target, anchor = found[1], found[2], found[3] or ""
        place = posixpath.normpath(
            posixpath.join("" if of_root else "docs", "" if of_root else posixpath.dirname(name), target)
        )
        if not (ROOT / place).exists():
            raise PluginError(f"{name}: links to {target}, which is not there")
        there = AT_ROOT.get(place) or (place.removeprefix("docs/") if place.startswith("docs/") else None)
        if there is None or (ROOT / place).is_dir():
            return words
        return f"[{words}]({posixpath.relpath(there, posixpath.dirname(name) or '.')}{anchor})"

    return _LINK.sub(link, markdown)
