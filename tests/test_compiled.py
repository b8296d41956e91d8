"""Compiled loops where nothing can be kept on disk, as in a read-only container without a home."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = {
    "engine": '@compiled("float64(float64)")',
    "monitoring": "@compiled",
}
PROGRAM = """
import resource, sys
if sys.argv[2] == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
loop = __import__(sys.argv[1] + ".loop").loop
print(loop.double(21.0))
"""


def run(floor: str, home: Path, disk: str, cache: Path | None) -> str:
    """Compile a loop by a floor's own means in a package whose directory takes no cache."""
    package = home / floor
    package.mkdir(parents=True)
    package.joinpath("__init__.py").touch()
    shutil.copy(ROOT / floor / "compiled.py", package)
    package.joinpath("loop.py").write_text(
        f"from {floor}.compiled import compiled\n\n\n{FLOORS[floor]}\ndef double(x):\n    return 2.0 * x\n"
    )
    package.joinpath("__pycache__").touch()  # a file: nobody, root neither, can write into it
    nowhere = str(home / floor / "__init__.py" / "none")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")},
        **({} if cache is None else {"NUMBA_CACHE_DIR": str(cache)}),
        "HOME": nowhere,
        "XDG_CACHE_HOME": nowhere,
        "PYTHONPATH": str(home),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    child = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, floor, disk],
        env=environment, cwd=home, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr
    return child.stdout.strip()


@pytest.mark.parametrize("floor", FLOORS)
def test_without_a_place_for_the_cache_it_is_compiled_in_each_process(floor: str, tmp_path: Path) -> None:
    assert run(floor, tmp_path, "as it is", None) == "42.0"
    assert not list(tmp_path.rglob("*.nb?"))


@pytest.mark.parametrize("floor", FLOORS)
def test_the_cache_goes_where_the_environment_says(floor: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert run(floor, tmp_path / "home", "as it is", cache) == "42.0"
    assert {path.suffix for path in cache.rglob("*.nb?")} == {".nbi", ".nbc"}


def test_a_disk_that_is_full_takes_no_cache_and_hinders_nobody(tmp_path: Path) -> None:
    assert run("engine", tmp_path / "home", "full", tmp_path / "cache") == "42.0"
