"""Writes the pages: ``python -m deploy.pages``."""

from __future__ import annotations

from deploy.pages import FOLDER, pages

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
