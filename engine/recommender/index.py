"""The items with the greatest inner products: all of them looked at, or a graph walked (HNSW).

Malkov and Yashunin, *Efficient and robust approximate nearest neighbor search using Hierarchical Navigable Small World
graphs*, IEEE TPAMI 2020; as implemented in Faiss.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine.compiled import compiled
from engine.config import IndexConfig

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]


class Index(Protocol):
    """Finds the rows of a matrix that have the greatest inner products with a vector."""

    def search(self, query: Float32, count: int) -> Int64:
        """Return ``count`` row numbers, best first, of equal products the lower one; fewer if no more are found."""


class ExactIndex:
    """Every inner product is computed.

    Parameters
    ----------
    keys : ndarray of float32, shape (n, d)

    Examples
    --------
    >>> keys = np.array([[1.0, 0.0], [0.0, 1.0], [0.8, 0.8]], np.float32)
    >>> ExactIndex(keys).search(np.array([1.0, 0.5], np.float32), 2).tolist()
    [2, 0]
    """

    def __init__(self, keys: Float32) -> None:
        self._keys = np.require(keys, np.float32, ["C", "A", "W"])

    def search(self, query: Float32, count: int) -> Int64:
        """Return the best rows."""
        products = inner_products(self._keys, np.require(query, np.float32, ["C", "A", "W"]))
        if count < len(products):
            found = np.argpartition(products, len(products) - count)[len(products) - count :]
        else:
            found = np.arange(len(products))
        order: Int64 = found[np.lexsort((found, -products[found]))].astype(np.int64)
        return order


@compiled("float32[::1](float32[:, ::1], float32[::1])", nogil=True, fastmath=True)
def inner_products(keys: Float32, query: Float32) -> Float32:
    """Return the inner product of each row: what NumPy's ``@`` does, several times faster on a tall matrix."""
    products = np.empty(len(keys), np.float32)
    for row in range(len(keys)):
        total = np.float32(0.0)
        for column in range(keys.shape[1]):
            total += keys[row, column] * query[column]
        products[row] = total
    return products


class HNSWIndex:
    """A graph of near neighbours, walked towards greater products; some of the best may be missed.

    Parameters
    ----------
    graph : ndarray of uint8
        What ``build`` has made.
    ef_search
        How many candidates a walk keeps; more find more.
    """

    def __init__(self, graph: NDArray[np.uint8], ef_search: int) -> None:
        import faiss

        self._index = faiss.deserialize_index(graph)
        self._ef_search = ef_search

    @staticmethod
    def build(keys: Float32, config: IndexConfig) -> NDArray[np.uint8]:
        """Return the graph over the rows of a matrix, shape (n, d); the same rows give the same graph."""
        import faiss

        index = faiss.IndexHNSWFlat(keys.shape[1] + 1, config.links, faiss.METRIC_L2)
        index.hnsw.efConstruction = config.ef_construction
        # Threads add rows in any order; with one, a graph can be made again.
        threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1)
        try:
            # A graph needs a distance, which an inner product is none of: on keys of one length, made so by one more
            # number, the greatest product is the least distance (Bachrach et al., RecSys 2014).
            squares = np.einsum("nd,nd->n", keys, keys, dtype=np.float64)
            lift = np.sqrt(np.maximum(squares.max() - squares, 0.0)).astype(np.float32)
            index.add(np.ascontiguousarray(np.concatenate([keys, lift[:, None]], axis=1)))
        finally:
            faiss.omp_set_num_threads(threads)
        graph: NDArray[np.uint8] = faiss.serialize_index(index)
        return graph

    def search(self, query: Float32, count: int) -> Int64:
        """Return the best rows that the walk finds."""
        import faiss

        parameters = faiss.SearchParametersHNSW(efSearch=max(self._ef_search, count))  # type: ignore[attr-defined]
        lifted = np.append(query, np.float32(0.0))[None, :]
        distances, found = self._index.search(lifted, count, params=parameters)
        rows = found[0][found[0] >= 0]
        order: Int64 = rows[np.lexsort((rows, distances[0][: len(rows)]))].astype(np.int64)
        return order


def wants_graph(config: IndexConfig, items: int) -> bool:
    """Say whether a catalogue of so many items is searched by a graph."""
    return config.kind == "hnsw" or (config.kind == "auto" and items > config.exact_up_to)
