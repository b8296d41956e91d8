"""What releases and manifests are checked with, each in an environment of its own that is made once for all tests."""

from __future__ import annotations

import json
import shutil
import subprocess
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
#: Published schemas that no package of Python has.
NODE_PACKAGES = ("dclint@3.1.0", "@kubernetes-models/prometheus-operator@6.0.0")


def installed(command: list[str | Path], what: str) -> None:
    """Run an installation, or skip the test with the reason why there is none."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False
        )
    except FileNotFoundError as error:
        pytest.skip(f"{what} cannot be installed here: {error}")
    if done.returncode:
        pytest.skip(f"{what} cannot be installed here: {done.stderr.strip()[-500:]}")


@pytest.fixture(scope="session")
def release_tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment with deploy/release-tools.txt."""
    folder = tmp_path_factory.mktemp("release-tools")
    venv.create(folder, with_pip=True)
    requirements = ROOT / "deploy" / "release-tools.txt"
    pip: list[str | Path] = [
        folder / "bin" / "python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]
    installed([*pip, "--requirement", requirements], "deploy/release-tools.txt")
    return folder / "bin"


@pytest.fixture(scope="session")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the packages lie that have schemas of compose and of the Prometheus operator."""
    folder = tmp_path_factory.mktemp("schemas")
    npm: list[str | Path] = [
        "npm",
        "install",
        "--prefix",
        folder,
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--silent",
    ]
    installed([*npm, *NODE_PACKAGES], " and ".join(NODE_PACKAGES))
    return folder / "node_modules"


@pytest.fixture(scope="session")
def compose_schema(node_modules: Path) -> Mapping[str, Any]:
    """The JSON schema of the compose specification."""
    found: dict[str, Any] = json.loads((node_modules / "dclint" / "schemas" / "compose.schema.json").read_text())
    return found


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, in which may be built."""
    copy = tmp_path_factory.mktemp("sources") / "leeway"
    left_out = (".*", "__pycache__", "*.egg-info", "build", "dist", "leeway-*", "results")
    shutil.copytree(ROOT, copy, symlinks=True, ignore=shutil.ignore_patterns(*left_out))
    return copy


@pytest.fixture(scope="session")
def distributions(release_tools: Path, sources: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The source distribution, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    built = subprocess.run(
        [release_tools / "python", "-m", "build", "--outdir", folder, sources],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout[-2_000:] + built.stderr[-2_000:]
    return sorted(folder.iterdir(), key=lambda path: path.suffix)


@pytest.fixture(scope="session")
def outside(distributions: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment that was empty before the wheel was installed, and knows nothing of the checkout."""
    folder = tmp_path_factory.mktemp("outside")
    venv.create(folder, with_pip=True)
    wheel = next(path for path in distributions if path.suffix == ".whl")
    pip: list[str | Path] = [
        folder / "bin" / "python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]
    installed([*pip, "--constraint", ROOT / "constraints.txt", wheel], f"{wheel.name} with its dependencies")
    return folder / "bin"


def quietly(command: list[str | Path], directory: Path, seconds: float = 300.0) -> subprocess.CompletedProcess[str]:
    """Run a program that nothing of the checkout can reach."""
    own = str(Path(command[0]).parent)
    return subprocess.run(
        command,
        cwd=directory,
        env={"PATH": f"{own}:/usr/bin:/bin", "HOME": str(directory), "LANG": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
