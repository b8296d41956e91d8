"""What the audit says, with a pip-audit of the test's own in place of the real one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: What is asked first is beyond doubt; then the pinned ones.
ASKED_FIRST = "import sys\nfirst = 'doubtless' in ' '.join(sys.argv)\n"
CLEAN = '{"dependencies": [{"name": "numpy", "version": "2.0", "vulns": []}, {"name": "x", "skip_reason": "y"}]}'
FOUND = '{"dependencies": [{"name": "p", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2"]}]}]}'


def run(directory: Path, program: str, *options: str) -> tuple[int, str]:
    (directory / "pip_audit.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "-m", "tests.dependency_audit", *options],
        cwd=ROOT, env={"PYTHONPATH": f"{directory}:{ROOT}"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert not done.stderr
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("program", "options", "status", "words"),
    [
        (
            f"{ASKED_FIRST}print('''{FOUND}''' if first else '''{CLEAN}''')",
            (),
            0,
            "no vulnerability is known of what constraints.txt pins",
        ),
        (f"print('''{FOUND}'''); raise SystemExit(1)", (), 1, "p 1: PYSEC-1; mended in 2"),
        (f"print('''{CLEAN}''')", (), 0, "NOT AUDITED: the index .* knows no vulnerability of urllib3==1.26.4"),
        ("raise SystemExit('connection refused')", (), 0, "NOT AUDITED: .*connection refused"),
        ("raise SystemExit('connection refused')", ("--strict",), 2, "NOT AUDITED"),
        ("import time; time.sleep(60)", ("--patience", "0.5"), 0, "NOT AUDITED: .*no answer within 0.5 s"),
    ],
)
def test_it_tells_known_none_known_and_not_asked_apart(
    tmp_path: Path, program: str, options: tuple[str, ...], status: int, words: str
) -> None:
    ended, said = run(tmp_path, program, *options)
    assert ended == status
    assert re.search(words, said)
