"""Catalogues of recommenders: from a table that a person gives to the file that policies are made with."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from engine.atomic_file import write_atomically
from engine.config import (
    ITEM_ID,
    CategoryField,
    HistoryField,
    NumberField,
    Recommender,
    RecommenderField,
    VectorField,
)
from engine.errors import LeewayError, SnapshotError
from engine.recommender.catalogue import Catalogue
from engine.stored_archive import stored

#: Endings of the tables that are read.
FORMATS = (".parquet", ".csv", ".jsonl")
_BETWEEN = "|"  # entries of a list in a cell of CSV


def catalogue_path(directory: Path, name: str) -> Path:
    """Return where the catalogue of a recommender lies."""
    return directory / f"{name}.npz"


def save_catalogue(path: Path, catalogue: Catalogue) -> None:
    """Write a catalogue, whole or not at all; raises ``SnapshotError`` when the disk refuses."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **catalogue.to_arrays())
    try:
        write_atomically(path, buffer.getvalue())
    except OSError as error:
        raise SnapshotError(f"{path}: cannot be written ({error.strerror}); make room or mend the directory") from error


def read_catalogue(path: Path, recommender: Recommender) -> Catalogue | None:
    """Return the catalogue in a file; ``None`` where there is none.

    Raises ``SnapshotError`` if it is damaged, or was loaded for other fields than are configured now.
    """
    try:
        with path.open("rb") as file, np.load(stored(file), allow_pickle=False) as archive:
            return Catalogue.from_arrays(recommender.item, {key: archive[key] for key in archive.files})
    except FileNotFoundError:
        return None
    except Exception as error:
        # Damaged bytes make the readers of zip, arrays and JSON raise almost anything.
        raise SnapshotError(
            f"{path}: no catalogue of these item fields ({type(error).__name__}: {error}); load it again with: "
            "leeway catalogue load"
        ) from error


def read_table(path: Path, recommender: Recommender) -> Catalogue:
    """Read a catalogue from a Parquet, CSV or JSON lines file.

    One row an item; the column ``item_id`` names it, and a column for each item field holds its value. A field without
    a column is missing for all. In CSV, entries of histories and vectors stand in one cell, with ``|`` between them.

    Raises
    ------
    LeewayError
        The file cannot be read; the message names the column, the row, and what would be right.
    """
    # Arrow takes long to import, and the other commands do without it.
    import pyarrow as pa

    if path.suffix not in FORMATS:
        raise LeewayError(f"{path}: ends in {path.suffix or 'nothing'}; give a table as {', '.join(FORMATS)}")
    try:
        table = _read(path)
        names = table.schema.names
        read = {name: table[name].to_pylist() for name in names if name == ITEM_ID or name in recommender.item}
    except FileNotFoundError:
        raise LeewayError(f"{path}: no such file") from None
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise LeewayError(f"{path}: cannot be read as {path.suffix[1:]} ({error})") from error
    if ITEM_ID not in names:
        raise LeewayError(
            f"{path}: has no column {ITEM_ID}, which names the items; its columns are: {', '.join(names)}"
        )
    unknown = [name for name in names if name != ITEM_ID and name not in recommender.item]
    if unknown and recommender.unknown_features == "reject":
        raise LeewayError(
            f"{path}: column {unknown[0]!r} is no item field (known: {', '.join(recommender.item)}); declare it, "
            "drop it, or set unknown_features: ignore"
        )
    ids = ["" if cell is None else str(cell) for cell in read[ITEM_ID]]
    columns: dict[str, Any] = {}
    for name, field in recommender.item.items():
        if name == ITEM_ID:
            columns[name] = ids
            continue
        cells = read.get(name, [None] * len(ids))
        columns[name] = _column(f"{path}: column {name}", field, cells)
    try:
        return Catalogue(recommender.item, tuple(ids), columns)
    except ValueError as error:
        raise LeewayError(f"{path}: {error}") from None


def _read(path: Path) -> Any:
    # Arrow takes long to import, and the other commands do without it.
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.json
    import pyarrow.parquet

    if path.suffix == ".parquet":
        return pa.parquet.read_table(path)
    if path.suffix == ".jsonl":
        return pa.json.read_json(path)
    # As they stand: a number of an item's id must not lose its zeros.
    with path.open() as file:
        header = file.readline().rstrip("\r\n").split(",")
    types = {name.strip('"'): pa.string() for name in header}
    return pa.csv.read_csv(
        path, convert_options=pa.csv.ConvertOptions(column_types=types, strings_can_be_null=True, null_values=[""])
    )


def _column(where: str, field: RecommenderField, cells: list[Any]) -> Any:
    match field:
        case NumberField():
            numbers = np.full(len(cells), np.nan)
            for row, cell in enumerate(cells):
                if cell is not None:
                    numbers[row] = _number(f"{where}, row {row + 1}", cell)
            return numbers
        case CategoryField():
            return [None if cell is None or cell == "" else str(cell) for cell in cells]
        case HistoryField():
            return [tuple(map(str, _entries(f"{where}, row {row + 1}", cell))) for row, cell in enumerate(cells)]
        case VectorField():
            matrix = np.zeros((len(cells), field.size), np.float32)
            for row, cell in enumerate(cells):
                entries = _entries(f"{where}, row {row + 1}", cell)
                if entries and len(entries) != field.size:
                    raise LeewayError(f"{where}, row {row + 1}: has {len(entries)} numbers, not {field.size}")
                for place, entry in enumerate(entries):
                    matrix[row, place] = _number(f"{where}, row {row + 1}", entry)
            return matrix


def _number(where: str, cell: Any) -> float:
    try:
        number = float(cell)
    except (TypeError, ValueError):
        raise LeewayError(f"{where}: {cell!r} is no number") from None
    if not np.isfinite(number):
        raise LeewayError(f"{where}: {cell!r} is not finite; leave it empty where it is not known")
    return number


def _entries(where: str, cell: Any) -> list[Any]:
    if cell is None or cell == "":
        return []
    if isinstance(cell, str):
        return cell.split(_BETWEEN)
    if not isinstance(cell, list):
        raise LeewayError(f"{where}: {cell!r} is no list")
    return cell
