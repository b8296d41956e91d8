"""What is released: wheel and source distribution, complete, and running where no checkout is."""

from __future__ import annotations

import ast
import json
import re
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from engine import __version__
from tests.deploy.conftest import ROOT, quietly

FLOORS = ("engine", "monitoring", "training", "streaming")


def project() -> dict[str, object]:
    found: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


def plain(requirement: str) -> str:
    """Return the name of a requirement as registries compare names."""
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match is not None, requirement
    return re.sub(r"[-_.]+", "-", match[0]).lower()


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
    return found


def test_whatever_the_product_imports_is_declared() -> None:
    extras = project()["optional-dependencies"]
    declared = {plain(r) for r in project()["dependencies"]}  # type: ignore[attr-defined]
    # Looked for before it is imported, with a message that names the extra; and `make proto`, which is for developers.
    declared |= {plain(r) for name in ("librdkafka", "drift-peers", "dev") for r in extras[name]}  # type: ignore[index]
    owners = packages_distributions()
    missing: dict[str, str] = {}
    for path in (path for floor in FLOORS for path in (ROOT / floor).rglob("*.py")):
        for module in imports(path):
            top = module.partition(".")[0]
            if top in FLOORS or top in sys.stdlib_module_names or top == "google":  # two packages share `google`
                continue
            if not {plain(owner) for owner in owners.get(top, [])} & declared:
                missing[top] = str(path.relative_to(ROOT))
    assert missing == {}


def test_every_dependency_has_a_version_in_the_lock_that_its_bounds_allow() -> None:
    from packaging.requirements import Requirement

    lock = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    pinned = {plain(name): version for name, version in lock.items()}
    for text in project()["dependencies"]:  # type: ignore[attr-defined]
        requirement = Requirement(text)
        assert plain(requirement.name) in pinned, f"{text} is not in constraints.txt; run: make lock"
        assert requirement.specifier.contains(pinned[plain(requirement.name)]), text
        assert any(clause.operator == ">=" for clause in requirement.specifier), f"{text} has no lower bound"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_wheel_has_every_file_of_the_product_and_nothing_else(distributions: list[Path]) -> None:
    wheel = next(path for path in distributions if path.suffix == ".whl")
    assert wheel.name == f"leeway-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    inside = {
        str(path.relative_to(ROOT))
        for floor in FLOORS
        for path in (ROOT / floor).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".orig"
    }
    assert names == inside
    assert {f"{floor}/py.typed" for floor in FLOORS} <= names
    assert {"streaming/starter.yaml", "monitoring/null_quantiles.json"} <= names
    assert any(name.endswith("records.proto") for name in names)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_source_distribution_can_be_tested_and_deployed_from(distributions: list[Path]) -> None:
    source = next(path for path in distributions if path.suffix == ".gz")
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"LICENSE", "CHANGELOG.md", "Makefile", "constraints.txt", "deploy/Dockerfile", "deploy/compose.yaml"}
    assert wanted <= names
    assert {"tests/conftest.py", "tests/deploy/test_release.py", "docs/operating.md"} <= names
    assert not [name for name in names if "__pycache__" in name]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_registry_would_take_them(release_tools: Path, distributions: list[Path], tmp_path: Path) -> None:
    checked = quietly([release_tools / "twine", "check", "--strict", *distributions], tmp_path)
    assert checked.returncode == 0, checked.stdout
    assert checked.stdout.count("PASSED") == 2


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_it_runs_where_no_checkout_is(outside: Path, tmp_path: Path) -> None:
    shown = quietly([outside / "leeway", "--version"], tmp_path)
    assert shown.stdout == f"leeway, version {__version__}\n", shown.stderr
    place = quietly([outside / "python", "-c", "import streaming; print(streaming.__file__)"], tmp_path)
    assert place.stdout.startswith(str(outside.parent)), place.stdout + place.stderr
    for command in ("init", "check"):
        done = quietly([outside / "leeway", command], tmp_path)
        assert done.returncode == 0, done.stderr
    # The whole loop, as short as it goes: its books must close, whatever it has learned in so short a time.
    shortest = ["--before", "2000", "--after", "2000", "--rate", "500", "--json", "figures.json"]
    done = quietly([outside / "leeway", "demo", *shortest], tmp_path, seconds=600.0)
    assert "Traceback" not in done.stderr, done.stderr[-3_000:]
    figures = json.loads((tmp_path / "figures.json").read_text())
    books = ("decisions = feedback + pending", "acknowledged decisions missing", "replay mismatches")
    assert {goal["name"]: goal["holds"] for goal in figures["goals"] if goal["name"] in books} == dict.fromkeys(
        books, True
    )
    assert figures["decisions"] >= 4_000
    assert (tmp_path / "leeway-demo" / "report.html").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_bill_of_materials_names_what_is_installed(release_tools: Path, outside: Path, tmp_path: Path) -> None:
    command: list[str | Path] = [release_tools / "cyclonedx-py", "environment", outside / "python"]
    options: list[str | Path] = [
        "--pyproject",
        ROOT / "pyproject.toml",
        "--output-file",
        "leeway.cdx.json",
        "--validate",
    ]
    made = quietly([*command, *options], tmp_path)
    assert made.returncode == 0, made.stderr[-2_000:]
    bill = json.loads((tmp_path / "leeway.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "leeway"
    listed = {plain(component["name"]) for component in bill["components"]}
    assert {plain(requirement) for requirement in project()["dependencies"]} <= listed  # type: ignore[attr-defined]
