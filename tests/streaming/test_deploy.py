"""What schedulers are given to run exists, with its options, and they know its exit statuses."""

from __future__ import annotations

import configparser
import shlex
from pathlib import Path

import click
import pytest
import yaml

from streaming.cli import main
from training.job import ExitCode

DEPLOY = Path(__file__).parents[2] / "deploy"
#: What a scheduler need not do anything about.
CONTENT = {int(code) for code in (ExitCode.NOT_ENOUGH_DATA, ExitCode.REFUSED, ExitCode.LOCKED, ExitCode.HELD)}


def cronjob() -> dict[str, object]:
    found: dict[str, object] = yaml.safe_load((DEPLOY / "kubernetes" / "base" / "retrain-cronjob.yaml").read_text())
    return found


def container() -> dict[str, list[str]]:
    found: dict[str, list[str]] = cronjob()["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]  # type: ignore[index]
    return found


def service() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # systemd heeds the case
    parser.read(DEPLOY / "systemd" / "leeway-retrain@.service")
    return parser["Service"]


@pytest.mark.parametrize("line", [container()["args"][0].splitlines()[0], service()["ExecStart"]])
def test_the_command_is_one(line: str) -> None:
    program, command, *arguments = shlex.split(line)
    assert program == "leeway"
    found = main.commands[command]
    # Parsed as click would, up to what needs a configuration.
    context = click.Context(found)
    found.parse_args(context, arguments)
    assert context.params["point"] in ("offers", "%i")
    assert context.params["reason"] == "schedule"


def test_only_what_is_worth_another_try_is_tried_again() -> None:
    assert set(map(int, service()["SuccessExitStatus"].split())) == CONTENT
    assert service()["RestartPreventExitStatus"] == str(int(ExitCode.USAGE))
    script = container()["args"][0]
    assert f"case $status in {'|'.join(str(code) for code in sorted(CONTENT))}) exit 0" in script
    spec = cronjob()["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"  # type: ignore[index]
    rules = spec["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]  # type: ignore[index]
    assert rules[0]["onExitCodes"]["values"] == [int(ExitCode.USAGE)]
