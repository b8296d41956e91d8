"""Vowpal Wabbit reads a file of ours, and prints what it made of it as JSON; run in an environment of its own."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import vowpalwabbit  # type: ignore[import-not-found, unused-ignore]


def main(kind: str, path: Path) -> None:
    options = "--cb_explore_adf --quiet --strict_parse" + (" --dsjson" if kind == "dsjson" else "")
    workspace = vowpalwabbit.Workspace(options)
    text = path.read_text()
    examples = text.splitlines() if kind == "dsjson" else text.rstrip("\n").split("\n\n")
    found = []
    for example in examples:
        parsed = workspace.parse(example if kind == "dsjson" else example.split("\n"))
        events = []
        for one in parsed:
            label = one.get_label(vowpalwabbit.CBLabel)
            events.append(
                {
                    "costs": [[cost.cost, cost.probability] for cost in label.costs],
                    "features": one.get_feature_number(),
                    "tag": one.get_tag(),
                }
            )
        workspace.learn(parsed)
        workspace.finish_example(parsed)
        found.append(events)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
