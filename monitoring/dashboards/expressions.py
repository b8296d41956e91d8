"""The expressions of the files in ``deploy/``, as Prometheus itself understands them: without Grafana's variables."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

_SET = re.compile(r"\s(?:and|or|unless)\s")
_COMPARED = re.compile(r"\s(?:==|!=|<=|>=|<|>)\s(?:bool\s)?")


@dataclass(frozen=True, slots=True)
class Source:
    """An expression and where it stands, such as ``leeway-drift / Reward``."""

    place: str
    expr: str


def interpolated(expr: str, interval: str, values: Mapping[str, str] | None = None) -> str:
    """Return an expression with Grafana's variables filled in.

    Parameters
    ----------
    expr
        As it stands in a panel.
    interval
        In place of ``$__rate_interval``, such as ``15s``.
    values
        Of other variables; those that are not given match everything.

    Examples
    --------
    >>> interpolated('rate(a{job=~"$job"}[$__rate_interval])', "15s")
    'rate(a{job=~".*"}[15s])'
    """
    known = values or {}
    filled = expr.replace("$__rate_interval", interval)
    return re.sub(r"\$(\w+)", lambda found: known.get(found[1], ".*"), filled)


def panels(board: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the panels of a dashboard in Grafana's JSON, without the headings of its rows."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def of_dashboard(path: Path) -> Iterator[Source]:
    """Yield the expressions of the panels and annotations of a file."""
    board = json.loads(path.read_text(encoding="utf-8"))
    for panel in panels(board):
        for target in panel["targets"]:
            yield Source(f"{board['uid']} / {panel['title']}", target["expr"])
    for annotation in board["annotations"]["list"]:
        yield Source(f"{board['uid']} / annotation {annotation['name']}", annotation["expr"])


def of_rules(path: Path) -> Iterator[Source]:
    """Yield the expressions of the rules of a file."""
    for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]:
        for rule in group["rules"]:
            yield Source(rule.get("alert") or rule["record"], rule["expr"])


def operands(expr: str) -> list[str]:
    """Return what an expression compares: a comparison that does not hold has no result, each of these has one.

    Only what is outside of brackets is taken apart; numbers are left out. What compares nothing is one operand.

    >>> operands("rate(a[5m]) > 0 and time() - b > 2 * 3600")
    ['rate(a[5m])', 'time() - b']
    >>> operands("count(a) or vector(0)")
    ['count(a) or vector(0)']
    """
    if len(_outside(_COMPARED, expr)) == 1:
        return [expr]
    parts = [side for part in _outside(_SET, expr) for side in _outside(_COMPARED, part)]
    return [part for part in map(str.strip, parts) if not re.fullmatch(r"[\d.\s*/+-]+", part)]


def _outside(separator: re.Pattern[str], expr: str) -> list[str]:
    """Split an expression at a separator that is in no bracket."""
    parts, start, depth = [], 0, 0
    place = 0
    while place < len(expr):
        depth += (expr[place] in "([{") - (expr[place] in ")]}")
        found = separator.match(expr, place) if depth == 0 else None
        if found is None:
            place += 1
        else:
            parts.append(expr[start:place])
            start = place = found.end()
    return [*parts, expr[start:]]
