"""Pages of what Python code calls: names for mkdocstrings, which reads the docstrings when the site is built."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import engine.client
from engine.exploration import EXPLORATIONS
from engine.oracles import LEARNERS, ORACLES
from monitoring.detectors import DETECTORS
from training.evaluation import ESTIMATORS, SLATE_ESTIMATORS

_HEAD = "<!-- written by: python -m deploy.pages -->\n"


def pages() -> dict[str, str]:
    """Return the text of each page by its name."""
    client = [getattr(engine.client, name) for name in engine.client.__all__]
    return {
        "client.md": _page(
            "The client, by name",
            "What `engine.client` has; [the guide](../client.md) says how it is used.",
            {"": [each for each in client if hasattr(each, "__qualname__")]},
        ),
        "policies.md": _page(
            "Explorations and oracles, by name",
            "The two parts of a policy, each under its `kind` in `leeway.yaml`. Which to take: "
            "[explorations](../exploration.md), [oracles](../oracles.md).",
            {"Explorations": EXPLORATIONS, "Oracles": ORACLES, "Learners of oracles": LEARNERS},
        ),
        "monitors.md": _page(
            "Detectors, by name", "What watches one stream; [the guide](../drift.md) compares them.", {"": DETECTORS}
        ),
        "estimators.md": _page(
            "Estimators, by name",
            "Off-policy estimates; [the guide](../evaluation.md) says when to believe which.",
            {
                "Of single actions": {name: type(each) for name, each in ESTIMATORS.items()},
                "Of lists": {name: type(each) for name, each in SLATE_ESTIMATORS.items()},
            },
        ),
    }


def _page(title: str, words: str, families: Mapping[str, Mapping[str, object] | Iterable[object]]) -> str:
    parts = [_HEAD, f"# {title}\n", f"{words}\n"]
    for family, members in families.items():
        level = 2
        if family:
            parts.append(f"## {family}\n")
            level = 3
        named = members.items() if isinstance(members, Mapping) else ((_name(each), each) for each in members)
        for name, member in sorted(named):
            where = f"{member.__module__}.{_name(member)}"
            parts.append(f'::: {where}\n    options:\n      heading: "{name}"\n      heading_level: {level}\n')
    return "\n".join(parts)


def _name(member: object) -> str:
    return str(getattr(member, "__qualname__"))  # noqa: B009 - of functions and classes alike
