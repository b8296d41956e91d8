"""Known vulnerabilities among the pinned dependencies: ``python -m tests.dependency_audit``.

Runs pip-audit over ``constraints.txt`` without installing anything. Exit status: 0 none known, or it could not be asked
(offline, no pip-audit, an index without such data), which is said; 1 some are known; with ``--strict`` 2 where it could
not be asked.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

#: Has CVE-2021-33503.
DOUBTLESS = "urllib3==1.26.4"
PINNED = Path(__file__).parents[1] / "constraints.txt"


def audit(requirements: Path, patience_s: float) -> list[str] | str:
    """Return one line for each known vulnerability, or why it is not known whether there are any.

    A mirror of the package index may know of none at all: it is first asked for one that is beyond doubt.
    """
    if find_spec("pip_audit") is None:
        return "pip-audit is not installed; install it with: pip install pip-audit"
    with tempfile.TemporaryDirectory() as directory:
        doubtless = Path(directory) / "doubtless.txt"
        doubtless.write_text(DOUBTLESS)
        trial = _ask(doubtless, patience_s)
    if not isinstance(trial, str) and not trial:
        return f"the index that pip-audit asks knows no vulnerability of {DOUBTLESS}, which has some; ask another one"
    return trial if isinstance(trial, str) else _ask(requirements, patience_s)


def _ask(requirements: Path, patience_s: float) -> list[str] | str:
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(requirements), "--no-deps", "--disable-pip"]
    try:
        done = subprocess.run(
            [*command, "--format", "json", "--progress-spinner", "off"],
            capture_output=True, text=True, check=False, timeout=patience_s,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"pip-audit had no answer within {patience_s:g} s"
    try:
        report = json.loads(done.stdout)
    except json.JSONDecodeError:  # it answers in JSON whenever it could ask, whatever it found
        last = done.stderr.strip().splitlines()[-1:] or ["nothing was said"]
        return f"pip-audit could not ask (status {done.returncode}): {last[0]}"
    return known(report)


def known(report: dict[str, list[dict[str, object]]]) -> list[str]:
    """Return one line for each vulnerability in pip-audit's report."""
    found = []
    for package in report["dependencies"]:
        vulnerabilities = package.get("vulns", [])
        assert isinstance(vulnerabilities, list)
        for one in vulnerabilities:
            mended = ", ".join(one["fix_versions"]) or "no version yet"
            found.append(f"{package['name']} {package['version']}: {one['id']}; mended in {mended}")
    return found


def main() -> int:
    """Audit and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requirement", type=Path, default=PINNED, help="pinned requirements")
    parser.add_argument("--patience", type=float, default=300.0, help="seconds to wait")
    parser.add_argument("--strict", action="store_true", help="fail where it could not be asked")
    options = parser.parse_args()
    found = audit(options.requirement, options.patience)
    if isinstance(found, str):
        print(f"NOT AUDITED: {found}")
        return 2 if options.strict else 0
    print("\n".join(found) or f"no vulnerability is known of what {options.requirement.name} pins")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
