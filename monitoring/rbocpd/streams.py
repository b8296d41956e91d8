"""The state of streams, saved and restored bit for bit."""

from __future__ import annotations

import numpy as np

from engine.errors import SnapshotError
from monitoring.budget import Budget
from monitoring.rbocpd import kernel, layout
from monitoring.rbocpd.scan import Scan, Streams
from monitoring.state import decode, encode
from monitoring.weights import AnyWeight


def save_streams(kind: str, scan: Scan, state: Streams) -> bytes:
    """Return configuration and state; of the forecasters only those that are held.

    What follows from these, and when it must be looked at again, is computed anew: that changes no alarm.
    """
    held = _held(scan, state)
    fields = {**scan.fields(), "streams": len(state.head), "rows": state.rows.shape[1]}
    columns = {f"rows_{o}": state.rows[held][:, o] for o in range(scan.categories)}
    head = {f"head_{i}": np.ascontiguousarray(state.head[:, i]) for i in _saved_columns(scan)}
    return encode(kind, fields, {**head, **columns})


def load_streams(
    kind: str, data: bytes, weight: AnyWeight | Budget | None = None, max_candidates: int | None = None
) -> tuple[Scan, Streams]:
    """Return what ``save_streams`` wrote, with another weight or bound if one is given."""
    fields, arrays = decode(kind, data)
    try:
        scan = Scan.restored(fields)
        state = scan.empty(fields["streams"])
        state.rows = np.zeros((fields["streams"], fields["rows"], scan.categories), np.int64)
        state.before = np.full(state.rows.shape[:2], np.nan)
        state.due = np.zeros(state.rows.shape[:2], np.int64)
        state.lengths = np.zeros(state.rows.shape[:2], np.int64)
        for column in _saved_columns(scan):
            state.head[:, column] = arrays[f"head_{column}"]
        held = _held(scan, state)
        state.rows[held] = np.stack([arrays[f"rows_{o}"] for o in range(scan.categories)], axis=1)
        state.lengths[held] = state.rows[held].sum(axis=1)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise SnapshotError(f"the saved {kind} is incomplete ({error}); discard it and let it start anew") from error
    # Another weight brings its own predictor, as in a detector that begins with it.
    predictor = scan.predictor if weight is None or weight == scan.weight else None
    wanted = Scan.of(
        scan.weight if weight is None else weight,
        scan.categories,
        predictor,
        scan.candidates,
        scan.max_candidates if max_candidates is None else max_candidates,
        scan.per_octave,
        scan.reseed,
        scan.stride,
    )
    return wanted, state if wanted.chain == scan.chain else _refitted(scan, wanted, state)


def _refitted(scan: Scan, wanted: Scan, state: Streams) -> Streams:
    """Return hulls in chains of another length, without the most crowded starts where there are too many."""
    fitted = wanted.empty(len(state.head))
    fitted.head = state.head
    for stream, head in enumerate(state.head):
        run = int(head[layout.SEEN] - head[layout.START])
        for side in range(2):
            column = layout.FIRST + side
            first = side * scan.chain
            for length in range(head[column], wanted.chain, -1):
                kernel.drop_crowded(state.held(stream), first, length, run)
                head[column] = length - 1
            kept = head[column]
            place = slice(side * wanted.chain, side * wanted.chain + kept)
            fitted.rows[stream, place] = state.rows[stream, first : first + kept]
            fitted.lengths[stream, place] = state.lengths[stream, first : first + kept]
    return fitted


def _held(scan: Scan, state: Streams) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """Which rows are in use."""
    place = np.arange(state.rows.shape[1])
    first, second = state.head[:, layout.FIRST, None], state.head[:, layout.SECOND, None]
    return (place < first) | ((place >= scan.chain) & (place < scan.chain + second))


def _saved_columns(scan: Scan) -> list[int]:
    """Columns of the head, without how long the test need not be looked at."""
    return [column for column in range(layout.COUNTS + scan.categories) if column != layout.LEFT]
