"""The entries of the join by decision id and in the order in which they are due: in memory, and beyond that on disk."""

from __future__ import annotations

import heapq
from bisect import insort
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from streaming.cold import NEVER, ColdTable
from streaming.entry import Entry, Item

#: Entries that are due within 2**_SLOT milliseconds are put in order when their time comes near, not before.
_SLOT = 8
#: How many entries are brought back from disk at a time when they are due.
_CHUNK = 1_000


class Pending:
    """Entries by decision id, and in the order of due time and id.

    The most recent ones are in memory. What exceeds ``max_hot`` is moved to disk by :meth:`evict`, and comes back when
    it is looked up or due. Putting entries in order costs little for each: those due within a quarter of a second are
    kept in a list, and sorted when the first of them is due.

    Parameters
    ----------
    max_hot
        How many entries stay in memory; ``None``: all.
    swap
        Makes the table on disk, when the first entry has to go there; needed with ``max_hot``.
    """

    def __init__(self, max_hot: int | None = None, swap: Callable[[], ColdTable] | None = None) -> None:
        #: Entries in memory by id; to be read only.
        self.hot: dict[bytes, Entry] = {}
        #: May be changed; the next eviction goes by it.
        self.max_hot = max_hot
        self._swap = swap
        self._cold: ColdTable | None = None
        #: Whether any entry may be on disk: what is not in memory has to be asked for by :meth:`get`.
        self.swaps = False
        self._absent: set[bytes] = set()  # looked up on disk and not found there since the last eviction
        self._front: list[tuple[int, bytes]] = []  # what is due up to the end of the front slot, in order
        self._at = 0  # what stands before is done with
        self._front_slot = -(2**63)
        self._slots: dict[int, list[bytes]] = {}
        self._order: list[int] = []  # heap of the slots
        #: Nothing is due before this time.
        self.earliest_ms = NEVER[0]

    def __len__(self) -> int:
        return len(self.hot) + self.swapped

    @property
    def swapped(self) -> int:
        """How many entries are on disk."""
        return 0 if self._cold is None else len(self._cold)

    def get(self, key: bytes) -> Entry | None:
        """Return the entry of an id."""
        entry = self.hot.get(key)
        if entry is None and self.swapped and key not in self._absent:
            self.expect([key])
            entry = self.hot.get(key)
        return entry

    def expect(self, keys: Iterable[bytes]) -> None:
        """Bring back what is on disk of these ids, in one go: they will be looked up until the next eviction."""
        if self._cold is not None:
            wanted = [key for key in dict.fromkeys(keys) if key not in self.hot and key not in self._absent]
            self._warm(self._cold.take(wanted))
            self._absent.update(wanted)

    def add(self, key: bytes, entry: Entry) -> None:
        """Add an entry, or take its new due time; an older one of this id is replaced."""
        self.hot[key] = entry
        due_ms = entry.due_ms
        if due_ms < self.earliest_ms:
            self.earliest_ms = due_ms
        slot = due_ms >> _SLOT
        if slot <= self._front_slot:
            insort(self._front, (due_ms, key), self._at)
        elif (keys := self._slots.get(slot)) is not None:
            keys.append(key)
        else:
            self._slots[slot] = [key]
            heapq.heappush(self._order, slot)

    def remove(self, key: bytes) -> None:
        """Forget an entry, which is in memory."""
        del self.hot[key]

    def due(self, until_ms: int) -> Iterator[Item]:
        """Yield the entries that are due up to a time, in the order of due time and id.

        Before the next one is asked for, an entry must have been removed, or added again with another due time; others
        may be added too. Stop where it is enough.
        """
        hot = self.hot
        while (place := self.first(until_ms)) is not None:
            cold_place = NEVER if self._cold is None else self._cold.next
            while place < cold_place and place[0] <= until_ms:
                self._at += 1
                entry = hot.get(place[1])
                # Of an id that has moved to another time, or to disk, the old place is left behind.
                if entry is not None and entry.due_ms == place[0]:
                    yield place[1], entry
                if self._at >= len(self._front):
                    break
                place = self._front[self._at]

    def first(self, until_ms: int) -> tuple[int, bytes] | None:
        """Return due time and id of the entry that is due first, if that is by then; it is in memory afterwards."""
        while True:
            front = self._front
            while self._at < len(front) and not self._holds(front[self._at]):
                self._at += 1
            place = front[self._at] if self._at < len(front) else None
            if place is None and self._order and self._order[0] << _SLOT <= until_ms:
                self._open()
                continue
            if place is None:
                place = (self._order[0] << _SLOT, b"") if self._order else NEVER
            if self._cold is not None and self._cold.next[0] <= until_ms and self._cold.next <= place:
                self._warm(self._cold.take_due(until_ms, _CHUNK))
                continue
            self.earliest_ms = place[0] if self._cold is None else min(place[0], self._cold.next[0])
            return place if place[0] <= until_ms else None

    def evict(self) -> None:
        """Move the oldest entries to disk, if there are too many in memory."""
        self._absent.clear()
        if self._swap is None or self.max_hot is None or len(self.hot) <= self.max_hot:
            return
        if self._cold is None:
            self._cold = self._swap()
            self.swaps = True
        # Somewhat more than need be, so that it is not done for a few entries each time.
        excess = len(self.hot) - (self.max_hot - self.max_hot // 8)
        items = list(islice(self.hot.items(), excess))
        self._cold.put(items)
        for key, _ in items:
            del self.hot[key]
        self._tidy({entry.due_ms >> _SLOT for _, entry in items})

    def take_blocks(self, blocks: set[int]) -> list[Item]:
        """Return all entries that are in some blocks of the changelog; they are in memory afterwards."""
        if self.swapped:
            assert self._cold is not None
            self._warm(self._cold.take_blocks(blocks))
        return [item for item in self.hot.items() if item[1].block in blocks]

    def load(self, items: Iterable[Item]) -> None:
        """Take entries as they stand in the changelog, of which the last of an id holds; :meth:`loaded` ends it."""
        self.hot.update(items)
        if self._swap is not None and self.max_hot is not None and len(self.hot) > self.max_hot:
            if self._cold is None:
                self._cold = self._swap()
                self.swaps = True
            self._cold.put(self.hot.items())
            self.hot.clear()

    def loaded(self) -> dict[int, int]:
        """Put what was loaded in order; return how many entries there are of each block of the changelog."""
        counts: dict[int, int] = {}
        if self._cold is not None:
            self._cold.discard(self.hot)
            counts = self._cold.blocks()
        for key, entry in self.hot.items():
            counts[entry.block] = counts.get(entry.block, 0) + 1
            self.add(key, entry)
        if self._cold is not None:
            self.earliest_ms = min(self.earliest_ms, self._cold.next[0])
        return counts

    def close(self) -> None:
        """Give the space on disk back."""
        if self._cold is not None:
            self._cold.close()
            self._cold = None

    def _warm(self, items: Iterable[Item]) -> None:
        for key, entry in items:
            self.add(key, entry)

    def _holds(self, place: tuple[int, bytes]) -> bool:
        entry = self.hot.get(place[1])
        return entry is not None and entry.due_ms == place[0]

    def _open(self) -> None:
        """Make the next slot the front."""
        slot = self._front_slot = heapq.heappop(self._order)
        keys, hot = self._slots.pop(slot), self.hot
        places = [(entry.due_ms, key) for key in keys if (entry := hot.get(key)) is not None]
        self._front = sorted([place for place in places if place[0] >> _SLOT == slot])
        self._at = 0

    def _tidy(self, slots: set[int]) -> None:
        """Forget the places of entries that were moved to disk."""
        if any(slot <= self._front_slot for slot in slots):
            self._front = [place for place in self._front[self._at :] if place[1] in self.hot]
            self._at = 0
        for slot in slots & self._slots.keys():
            self._slots[slot] = [key for key in self._slots[slot] if key in self.hot]
