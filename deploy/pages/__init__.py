"""The reference of the documentation, written from the code; ``python -m deploy.pages`` writes it anew.

What the site reads from docstrings (``mkdocs build``) is written as a list of names, so that an algorithm in its
family's table is in the reference too.
"""

from __future__ import annotations

from pathlib import Path

from deploy.pages import api, command_line, configuration, messages, papers

FOLDER = Path(__file__).parents[2] / "docs" / "reference"


def pages() -> dict[str, str]:
    """Return the text of each generated page by its name in ``docs/reference``."""
    return {
        **api.pages(),
        "cli.md": command_line.page(),
        "configuration.md": configuration.page(),
        "messages.md": messages.page(),
        "papers.md": papers.page(),
    }
