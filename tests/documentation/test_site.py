"""The site builds without a warning, is complete, and needs no network; what is written from the code is not stale."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from deploy.pages import FOLDER, messages, pages
from deploy.pages.docstrings import as_markdown

ROOT = Path(__file__).parents[2]
#: What a browser fetches by itself when it shows a page.
FETCHED = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src", "video": "src"}
_LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)")


def build(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", config, "--site-dir", site]
    return subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=250, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built strictly: a page outside of the navigation, or a link or anchor that leads nowhere, ends it."""
    directory = tmp_path_factory.mktemp("site")
    done = build(ROOT / "mkdocs.yml", directory)
    assert done.returncode == 0, done.stderr[-4_000:]
    return directory


class Loads(HTMLParser):
    """Collects what a page fetches from other hosts."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        address = dict(attrs).get(FETCHED.get(tag, ""), "") or ""
        if re.match(r"(https?:)?//", address):
            self.found.append(f"{tag} {address}")


def loads(text: str) -> list[str]:
    parser = Loads()
    parser.feed(text)
    return parser.found


def test_every_page_is_there_and_none_loads_from_another_host(site: Path) -> None:
    built = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    written = {
        path.relative_to(ROOT / "docs").with_suffix(".html").as_posix() for path in (ROOT / "docs").rglob("*.md")
    }
    assert written <= set(built)
    assert {"changelog.html", "contributing.html", "security-policy.html"} <= set(built)
    assert {page: found for page in built if (found := loads((site / page).read_text(encoding="utf-8")))} == {}
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert re.findall(r"(?:url\(|@import )[\"']?(?:https?:)?//[^\"')]+", styles) == []


def test_a_load_from_another_host_would_be_found() -> None:
    assert loads('<a href="https://x.org">x</a><link rel="stylesheet" href="//fonts.x.org/f.css">') == [
        "link //fonts.x.org/f.css"
    ]


def test_what_docstrings_say_is_on_the_site(site: Path) -> None:
    policies = (site / "reference" / "policies.html").read_text(encoding="utf-8")
    assert "inverse of its gap to the best score" in policies
    assert "::</p>" not in policies
    client = (site / "reference" / "client.html").read_text(encoding="utf-8")
    assert all(f">{name}<" in re.sub(r"\s+", "", client) for name in ("LeewayClient", "AsyncClient", "Fallback"))


def test_what_leads_nowhere_is_refused(tmp_path: Path) -> None:
    """With the settings of the site, and without its theme, which takes most of the time."""
    whole = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    kept = {key: whole[key] for key in ("site_name", "strict", "validation")}
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "index.md").write_text("# Here\n\n[x](peers.md#nowhere)\n[y](lost.md)\n")
    (docs / "peers.md").write_text("# Peers\n")
    (docs / "extra.md").write_text("# Outside of the navigation\n")
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump({**kept, "nav": ["index.md", "peers.md"]}))
    done = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    said = " ".join(done.stderr.split())
    assert done.returncode != 0
    for words in ("does not contain an anchor '#nowhere'", "contains a link 'lost.md'", "extra.md"):
        assert words in said


def test_the_reference_is_that_of_now() -> None:
    written = pages()
    assert {path.name for path in FOLDER.iterdir()} == set(written)
    stale = [name for name, text in written.items() if (FOLDER / name).read_text(encoding="utf-8") != text]
    assert stale == [], "run: python -m deploy.pages"


def test_every_message_call_and_value_is_in_the_reference() -> None:
    text = messages.page()
    for name in messages.FILES:
        code = re.sub(r"//.*", "", (messages.FOLDER / name).read_text(encoding="utf-8"))
        named = re.findall(r"(?:message|enum|service) (\w+) \{|rpc (\w+)\(|(\w+) = -?\d+(?: \[.*\])?;", code)
        for kind, call, field in named:
            assert (f"### {kind}\n" in text) if kind else (f"| `{call or field}` |" in text), kind or call or field


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"])
def test_links_at_the_root_hold(name: str) -> None:
    targets = [found[0] for found in _LINK.findall((ROOT / name).read_text(encoding="utf-8"))]
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_a_doctest_outside_of_examples_is_code() -> None:
    assert as_markdown("Rule::\n\n    p\n\n>>> 1\n1\n").endswith("```pycon\n>>> 1\n1\n```\n")
    kept = "Words.\n\nExamples\n--------\n>>> 1\n1\n"
    assert as_markdown(kept) == kept
