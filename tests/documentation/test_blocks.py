"""Every block of commands, Python and YAML in README.md and docs/ is run, or said to run elsewhere, or says why not."""

from __future__ import annotations

import ast
import re
import shlex
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from streaming.cli import main
from streaming.config import DecisionPointConfig, load_config
from tests.documentation.blocks import ROOT, Block, blocks, live
from tests.documentation.reviewed import ELSEWHERE, NOT_RUN, OTHER_YAML, PYTHON, SERVED
from tests.training.world import World

TUTORIAL = "docs/tutorial.md"
FLOORS = ("engine", "monitoring", "training", "streaming")
SHELL = ("sh", "bash", "console")


def named(block: Block) -> int:
    """Return how many lists a block stands in."""
    lists: tuple[Mapping[tuple[str, str], object], ...] = (SERVED, ELSEWHERE, NOT_RUN)
    found = sum(block.key in each for each in lists)
    return found + (block.page == TUTORIAL) + (block.language == "python" and block.page in PYTHON and not found)


def test_every_block_is_run_or_says_why_not() -> None:
    assert [block.key for block in live(*SHELL, "python") if named(block) != 1] == []


def test_a_name_in_the_lists_is_of_one_block_alone() -> None:
    """A second block of a page that begins like a reviewed one would pass for it."""
    keys = [block.key for block in live() if block.page != TUTORIAL and block.page not in PYTHON]
    assert [key for key, count in Counter(keys).items() if count > 1] == []


def test_the_lists_name_no_block_that_is_gone() -> None:
    there = {block.key for block in live()}
    assert [key for each in (SERVED, ELSEWHERE, NOT_RUN, OTHER_YAML) for key in each if key not in there] == []
    assert {block.page for block in live("python")} >= PYTHON
    tests = {*ELSEWHERE.values(), *OTHER_YAML.values(), "tests/documentation/test_tutorial.py"}
    assert [test for test in tests if not (ROOT / test).exists()] == []


def test_a_test_that_is_named_uses_what_the_block_uses() -> None:
    """It reads the page itself, or has the block's commands of ``leeway`` or names of ours in it."""
    missing = {}
    for block in live(*SHELL, "python"):
        place = ROOT / ELSEWHERE.get(block.key, "README.md")
        tests = "".join(path.read_text() for path in ([place] if place.is_file() else sorted(place.rglob("*.py"))))
        if block.key in ELSEWHERE and block.page.rpartition("/")[2] not in tests:
            missing[block.key] = [name for name in _used(block) if not re.search(rf"\b{name}\b", tests)]
    assert {key: names for key, names in missing.items() if names} == {}


def _used(block: Block) -> list[str]:
    if block.language == "python":
        imports = [node for node in ast.walk(ast.parse(block.text)) if isinstance(node, ast.ImportFrom)]
        ours = [node for node in imports if (node.module or "").partition(".")[0] in FLOORS]
        return [alias.name for node in ours for alias in node.names]
    found = [re.search(r"(?:^|/| )leeway (\w[\w-]*)", line) for line in block.commands()]
    return [each[1] for each in found if each]


def test_a_block_of_commands_says_that_it_is_one() -> None:
    """Else it would be taken for output, and nothing would look at it."""
    words = (
        r"\s*(\$ )?(leeway|make|python3?|docker|kubectl|pytest|mlflow|curl|pip|mvn|\.venv\S*|export|LEEWAY_\w+=\S+) "
    )
    assert [block.key for block in blocks() if not block.language and re.match(words, block.text)] == []


@pytest.mark.parametrize("page", sorted(PYTHON))
def test_the_programs_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = GIVEN.get(page, dict)()
    for block in live("python"):
        if block.page == page and block.key not in NOT_RUN:
            exec(compile(block.text.replace("10, 100, 1000)", "10)"), page, "exec"), names)


def _streams() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "stream": rng.integers(0, 2, 200),
        "stream_numbers": rng.integers(0, 1_000, 500),
        "symbols": rng.integers(0, 10, 500),
    }


def _bandit_feedback() -> dict[str, Any]:
    from training.formats import to_bandit_feedback

    feedbacks = World(0).stream(None, 20)
    return {"bandit_feedback": to_bandit_feedback(feedbacks)}


#: What the reader has already where a page's programs begin.
GIVEN = {"docs/drift.md": _streams, "docs/interop.md": _bandit_feedback}


def placed(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return a whole configuration with a part of it where it belongs."""
    base: dict[str, Any] = {
        "context": {"basket_value": {"type": "number"}, "country": {"type": "text"}},
        "reward": {"window": "10m"},
    }
    whole: dict[str, Any] = {"version": 1}
    if "decision_points" in said:
        points = {name: {**base, **point} for name, point in said["decision_points"].items()}
        return {**whole, **said, "decision_points": points}
    if said.keys() <= {"log", "serving", "metrics", "registry"}:
        return {**whole, **said, "decision_points": {"offers": base}}
    point = said if said.keys() <= set(DecisionPointConfig.model_fields) else {"policy": said}
    return {**whole, "decision_points": {"offers": {**base, **point}}}


@pytest.mark.parametrize("block", live("yaml"), ids=lambda block: f"{block.page}-{block.key[1][:30]}")
def test_the_configurations_are_good(block: Block, tmp_path: Path) -> None:
    said = yaml.safe_load(block.text)
    if block.key in OTHER_YAML:
        assert isinstance(said, dict)
        return
    path = tmp_path / "leeway.yaml"
    path.write_text(yaml.safe_dump(placed(said)))
    load_config(path, {"LEEWAY_LOG__SECURITY__PASSWORD": "secret"} if "security" in said.get("log", ()) else {})


def test_a_wrong_configuration_would_be_found(tmp_path: Path) -> None:
    path = tmp_path / "leeway.yaml"
    path.write_text(yaml.safe_dump(placed({"exploration": {"kind": "squarecb", "gama": 3}})))
    with pytest.raises(Exception, match="gama"):
        load_config(path, {})


def wrong(command: str) -> str | None:
    """Return what is wrong with a command of ours: an option, file, module or target that is not there."""
    words = [word for word in shlex.split(command) if not re.match(r"[A-Z_]+=", word)]
    words = words[: next((place for place, word in enumerate(words) if word in (">", "|", "&&", ";")), None)]
    program = words[0].rpartition("/")[2] if words else ""
    if program == "leeway":
        return _refused(words[1:])
    if program == "make":
        targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        return f"no target {words[1]}" if words[1] not in targets else None
    if program in ("python", "python3") and words[1] == "-m" and words[2].partition(".")[0] in ("benchmarks", "deploy"):
        place = ROOT / words[2].replace(".", "/")
        return None if place.is_dir() or place.with_suffix(".py").exists() else f"no module {words[2]}"
    files = [word for word in words if re.match(r"(deploy|tests|docs|benchmarks)/", word)]
    return next((f"no file {file}" for file in files if not (ROOT / file).exists()), None)


def _refused(words: list[str]) -> str | None:
    command: click.Command = main
    context: click.Context | None = None
    try:
        while isinstance(command, click.Group):
            name = words.pop(0) if words else ""
            if context is None and name.startswith("-"):
                return None
            found = command.get_command(click.Context(command), name)
            if found is None:
                return f"no command {name}"
            command = found
        with tempfile.TemporaryDirectory():
            parser = command.make_parser(click.Context(command, info_name=command.name))
            known = {option for param in command.params if isinstance(param, click.Option) for option in param.opts}
            unknown = [word for word in words if word.startswith("--") and word.partition("=")[0] not in known]
            if unknown:
                return f"no option {unknown[0]}"
            parser.parse_args([word for word in words if not word.startswith("$")])
    except click.UsageError as error:
        return error.format_message()
    return None


def test_no_command_has_an_option_or_a_file_that_is_no_more() -> None:
    found = {(block.key, line): reason for block in live(*SHELL) for line in _simple(block) if (reason := wrong(line))}
    assert found == {}


def _simple(block: Block) -> list[str]:
    """Return the commands of a block that can be read word by word; heredocs and quotes over lines cannot."""
    lines = []
    for line in block.commands():
        try:
            shlex.split(line)
        except ValueError:
            continue
        lines.append(line)
    return lines


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("leeway retrian", "no command retrian"),
        ("leeway retrain --sinse-ms 1", "no option --sinse-ms"),
        ("make everything", "no target everything"),
        ("pytest tests/gone.py", "no file tests/gone.py"),
        ("python -m benchmarks.gone", "no module benchmarks.gone"),
        ("leeway retrain --since-ms 1 > x", None),
    ],
)
def test_a_wrong_command_would_be_found(command: str, reason: str | None) -> None:
    assert wrong(command) == reason


def test_a_catalogue_is_loaded_by_the_example_of_its_page(tmp_path: Path) -> None:
    config = tmp_path / "leeway.yaml"
    config.write_text((ROOT / "docs" / "recommender.example.yaml").read_text())
    items = tmp_path / "items.csv"
    items.write_text("item_id,brand,price\n" + "".join(f"i{n},b{n % 3},{n}.5\n" for n in range(20)))
    done = CliRunner().invoke(main, ["catalogue", "load", str(items), "--config", str(config)])
    assert done.exit_code == 0, done.output
    assert "20" in done.output
