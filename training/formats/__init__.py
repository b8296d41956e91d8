"""Logs made elsewhere, and logs for elsewhere. Formats, one a file; a new one is a file and a line in ``READERS``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from engine.records import Feedback
from training.formats.base import LineError, Read, Reader, Unusable, unpacked
from training.formats.cb_adf import read_cb_adf, write_cb_adf
from training.formats.csv_table import read_csv_table
from training.formats.dsjson import read_dsjson, write_dsjson
from training.formats.infer import as_yaml, infer
from training.formats.open_bandit import (
    from_bandit_feedback,
    read_open_bandit,
    to_bandit_feedback,
    write_open_bandit,
)

__all__ = [
    "READERS",
    "WRITERS",
    "LineError",
    "Read",
    "Reader",
    "Unusable",
    "as_yaml",
    "from_bandit_feedback",
    "infer",
    "read_cb_adf",
    "read_csv_table",
    "read_dsjson",
    "read_open_bandit",
    "to_bandit_feedback",
    "unpacked",
    "write_cb_adf",
    "write_dsjson",
    "write_open_bandit",
]

#: By the name on the command line.
READERS: dict[str, Reader] = {"dsjson": read_dsjson, "vw": read_cb_adf, "obd": read_open_bandit, "csv": read_csv_table}

#: From feedback with named features to the lines of a file, without their ends.
WRITERS: dict[str, Callable[[Iterable[Feedback]], Iterator[str]]] = {
    "dsjson": write_dsjson,
    "vw": write_cb_adf,
    "obd": write_open_bandit,
}
