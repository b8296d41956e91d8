"""The manifest: the one file that says which files the archive consists of, and how far the log was archived.

It is replaced as a whole, so that rows and offsets are committed together. A file that it does not list is no
part of the archive, whatever the directory holds. Its name begins with an underscore because tools that read a
directory of Parquet files pass over such names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from engine.atomic_file import write_atomically
from engine.errors import LogError

FORMAT = 1
_NAME = "_manifest.json"
_REMEDY = "restore it from a copy, or move the archive away: it is built again from the feedback that the log keeps"


@dataclass(frozen=True, slots=True)
class Part:
    """One Parquet file.

    Parameters
    ----------
    path
        Relative to the archive.
    decision_point, date
        Of all its rows; the date is that of the decision times, UTC.
    rows, min_time_ms, max_time_ms
        How many rows, and the range of their decision times.
    bytes, sha256
        Size and digest of the file.
    columns
        Digest of its schema: parts that agree in it can be merged.
    """

    path: str
    decision_point: str
    date: str
    rows: int
    min_time_ms: int
    max_time_ms: int
    bytes: int
    sha256: str
    columns: str


class PartMissingError(LogError):
    """A file is not there: damage, or, to a reader, a sign that it was merged since the manifest was read."""

    def __init__(self, path: Path, part: Part) -> None:
        super().__init__(f"{path}: is listed in the manifest, but missing; {_REMEDY}")
        self.part = part


@dataclass(frozen=True, slots=True)
class Manifest:
    """State of the archive after a commit.

    Parameters
    ----------
    sequence
        Number of the next part; no name is given twice.
    offsets
        For each partition of the feedback topic the next offset to be archived.
    parts
        The files.
    """

    sequence: int = 0
    offsets: Mapping[int, int] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()


def read_manifest(directory: Path) -> Manifest | None:
    """Return the last committed manifest, ``None`` before the first; raises ``LogError`` if it is damaged."""
    path = directory / _NAME
    try:
        content = json.loads(path.read_bytes())
        if content["format"] != FORMAT:
            raise LogError(f"{path}: format {content['format']} is not {FORMAT}; read it with the Leeway that wrote it")
        return Manifest(
            sequence=content["sequence"],
            offsets={int(partition): offset for partition, offset in content["offsets"].items()},
            parts=tuple(Part(**part) for part in content["parts"]),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise LogError(f"{path}: not a manifest of the archive ({type(error).__name__}: {error}); {_REMEDY}") from error


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Commit; raises ``OSError``."""
    content = {
        "format": FORMAT,
        "sequence": manifest.sequence,
        "offsets": {str(partition): offset for partition, offset in sorted(manifest.offsets.items())},
        "parts": [asdict(part) for part in manifest.parts],
    }
    write_atomically(directory / _NAME, json.dumps(content, separators=(",", ":")).encode())


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Say of a file that cannot be read which one it is; raises ``LogError``."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise LogError(f"{path}: cannot be read ({error}); {_REMEDY}") from error


def batches_of(
    directory: Path,
    part: Part,
    *,
    verify: bool,
    columns: Collection[str] | None = None,
    size: int = 65_536,
    group: int | None = None,
    texts: Collection[str] = (),
) -> Iterator[Any]:
    """Yield the rows of a file as ``pyarrow.RecordBatch``.

    Parameters
    ----------
    directory, part, verify
        As of :func:`open_part`.
    columns
        Those to be read, of which the file may lack some; ``None``: all.
    size
        Most rows at once.
    group
        One row group alone, which this thread reads by itself; ``None``: all of them, with Arrow's threads.
    texts
        As of :func:`open_part`.

    Raises
    ------
    PartMissingError
        It is not there.
    LogError
        It is damaged.
    """
    file = open_part(directory, part, verify=verify, texts=texts)
    path = directory / part.path
    with reading(path):
        here = None if columns is None else [name for name in file.schema_arrow.names if name in columns]
        batches = file.iter_batches(
            size, columns=here, row_groups=None if group is None else [group], use_threads=group is None
        )
    while True:
        with reading(path):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def open_part(directory: Path, part: Part, *, verify: bool, texts: Collection[str] = ()) -> Any:
    """Open a file of the archive as a ``pyarrow.parquet.ParquetFile``.

    Parameters
    ----------
    directory
        The archive.
    part
        The file.
    verify
        Read it whole and compare its digest first; without, a look at one column costs little.
    texts
        Columns, as Parquet writes their paths, to be read as dictionaries: their texts repeat.

    Raises
    ------
    PartMissingError
        It is not there.
    LogError
        Its bytes are not those that were written.
    """
    path = directory / part.path
    try:
        if verify:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != part.sha256:
                raise LogError(f"{path}: was changed or damaged since it was archived; {_REMEDY}")
        return pq.ParquetFile(path, read_dictionary=list(texts))
    except FileNotFoundError:
        raise PartMissingError(path, part) from None
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise LogError(f"{path}: cannot be read ({error}); {_REMEDY}") from error
