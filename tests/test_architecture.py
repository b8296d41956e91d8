"""The house has four floors and imports go down only."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GENERATED = ROOT / "engine" / "api" / "leeway"

#: What each floor may import of ours, as names of modules; what is below a name is allowed with it.
ALLOWED = {
    "engine": ("engine",),
    "monitoring": ("monitoring", "engine.records", "engine.errors"),
    "training": ("training", "monitoring", "engine"),
    "streaming": ("streaming", "training", "monitoring", "engine"),
}
LONGEST = 450


def modules(floor: str) -> list[Path]:
    """Return the files of a floor that people write."""
    return [path for path in sorted((ROOT / floor).rglob("*.py")) if GENERATED not in path.parents]


PRODUCT = [path for floor in ALLOWED for path in modules(floor)]


def imported(tree: ast.AST, package: str) -> Iterator[str]:
    """Yield everything that is imported anywhere in a file, by its full name: ``engine.errors.LogError``.

    ``package`` is that of the file, for relative imports.
    """
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                parents = package.split(".")
                base = parents[: len(parents) - level + 1] if level else []
                source = ".".join([*base, *([module] if module else [])])
                yield from (f"{source}.{alias.name}" for alias in names)
            case ast.Call(func=ast.Name(id="__import__") | ast.Attribute(attr="import_module"), args=[first, *_]):
                yield str(first.value) if isinstance(first, ast.Constant) else "a computed name"


def forbidden(source: str, floor: str, package: str) -> list[str]:
    """Return the imports of ours that a file of a floor must not have."""
    found = []
    for name in imported(ast.parse(source), package):
        top = name.split(".")[0]
        ours = top in (*ALLOWED, "tests", "benchmarks") or name == "a computed name"
        allowed = any(name == low or name.startswith(f"{low}.") for low in ALLOWED[floor])
        if ours and not allowed:
            found.append(name)
    return found


def test_every_floor_is_there() -> None:
    assert all(len(modules(floor)) > 3 for floor in ALLOWED)


@pytest.mark.parametrize("floor", ALLOWED)
def test_imports_go_down_only(floor: str) -> None:
    wrong = {
        str(path.relative_to(ROOT)): names
        for path in modules(floor)
        if (names := forbidden(path.read_text(), floor, ".".join(path.relative_to(ROOT).parts[:-1])))
    }
    assert wrong == {}


@pytest.mark.parametrize(
    ("floor", "source", "expected"),
    [
        ("engine", "import streaming.log", ["streaming.log"]),
        ("engine", "def f():\n    from training import gate", ["training.gate"]),
        ("engine", "from .errors import LogError\nfrom . import records\nimport numpy", []),
        ("engine", "from ..training import gate", ["training.gate"]),
        ("engine", "import importlib\nimportlib.import_module('monitoring.rbocpd')", ["monitoring.rbocpd"]),
        ("engine", "import importlib\nimportlib.import_module(name)", ["a computed name"]),
        ("engine", "from tests.engine.samples import POINT", ["tests.engine.samples.POINT"]),
        ("monitoring", "from engine.records import Alarm\nfrom engine import errors", []),
        ("monitoring", "from engine.policy import Policy", ["engine.policy.Policy"]),
        ("monitoring", "from engine import store", ["engine.store"]),
        ("monitoring", "from engine.records_of_others import x", ["engine.records_of_others.x"]),
        ("training", "import streaming", ["streaming"]),
        ("training", "from monitoring.config import MonitorsConfig\nfrom engine.store import PolicyStore", []),
        ("streaming", "from engine.store import PolicyStore\nfrom training import fit", []),
    ],
)
def test_a_wrong_import_would_be_found(floor: str, source: str, expected: list[str]) -> None:
    assert forbidden(source, floor, floor) == expected


def test_no_module_is_too_long() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in PRODUCT}
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


def test_no_file_is_a_drawer_for_everything() -> None:
    drawers = {"util", "utils", "helper", "helpers", "common", "misc"}
    assert [path for path in PRODUCT if drawers & {path.stem.strip("_"), path.parent.name}] == []


#: Directories of machines and people; a path of the product itself is relative, or comes from the configuration.
MACHINE_PATH = re.compile(r"(?<![\w.$}/-])/(?:home|root|Users|work|tmp|mnt|scratch)/\w")


def shipped() -> list[Path]:
    """Return every text that belongs to the product: code, defaults, pages, documents."""
    suffixes = {".py", ".proto", ".yaml", ".yml", ".html", ".sh", ".json", ".md", ".toml"}
    places = [*ALLOWED, "benchmarks", "docs"]  # containers below deploy/ have paths of their own
    inside = [path for place in places for path in (ROOT / place).rglob("*") if path.suffix in suffixes]
    return [*inside, *(path for path in ROOT.glob("*") if path.suffix in suffixes or path.name == "Makefile")]


def test_the_product_knows_no_path_of_a_machine() -> None:
    wrong = {}
    for path in shipped():
        text = path.read_text(errors="replace")
        if "../" + "shared" in text or MACHINE_PATH.search(text):
            wrong[str(path.relative_to(ROOT))] = MACHINE_PATH.findall(text)
    assert wrong == {}


def test_a_path_of_a_machine_would_be_found() -> None:
    for line in ("open('/home/me/data.npz')", "dir: /tmp/leeway", "(/root/x)"):
        assert MACHINE_PATH.search(line), line
    for line in ("/work/{id}", "https://example.org/home/page", "$HOME/tmp/x", "a/tmp/b", "/var/lib/leeway"):
        assert not MACHINE_PATH.search(line), line


def test_the_command_line_answers_without_what_takes_long_to_import() -> None:
    slow = ("engine.policy", "lightgbm", "matplotlib", "mlflow", "numba", "pandas", "pyarrow", "scipy", "sklearn")
    program = (
        "import sys\n"
        "from streaming.cli import main\n"
        "main(['--help'], standalone_mode=False)\n"
        f"print('imported:', [name for name in {slow} if name in sys.modules])\n"
    )
    child = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert child.stdout.splitlines()[-1] == "imported: []"


def test_inner_loops_are_compiled_in_one_way() -> None:
    """Where a cache cannot be written ``njit(cache=True)`` raises, and the module could not be imported."""
    own = {ROOT / "engine" / "compiled.py", ROOT / "monitoring" / "compiled.py"}
    others = [path for path in PRODUCT if path not in own and re.search(r"\bn?jit\b", path.read_text())]
    assert others == []
