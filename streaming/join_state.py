"""The state of a joiner: its entries and books, and what of them has to be written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from engine.records import JoinAccounting, JoinHead
from streaming.book import Book
from streaming.changelog import HEAD_KEY, Blocks, block_of, damaged, decode
from streaming.entry import Entry
from streaming.pending import Pending


class JoinState:
    """What the joiner of one partition knows, but for its clocks, and what of it the changelog does not have yet.

    Parameters
    ----------
    pending
        Where the entries are kept.
    partition
        Number of the partition.

    Attributes
    ----------
    books : dict of Book
        By decision point.
    changed : bool
        Whether there is something to write.
    done : (int, bytes)
        What was due before this time, or at this time with an id before this one, is done with.
    """

    def __init__(self, pending: Pending, partition: int) -> None:
        self.pending = pending
        self.books: dict[str, Book] = {}
        self.changed = False
        self.done = (-(2**63), b"")
        self._partition = partition
        self._blocks = Blocks()
        self._unwritten: list[bytes] = []  # entries that are in no block
        self._released: list[int] = []  # blocks, once for each entry that they do not hold any more

    @property
    def stored_bytes(self) -> int:
        """Bytes of the blocks in the changelog, what does not hold any more included."""
        return self._blocks.stored_bytes

    def accounting(self, watermark_ms: int) -> dict[str, JoinAccounting]:
        """Return the book of each decision point; any thread may ask."""
        return {point: book.record(watermark_ms) for point, book in self.books.copy().items()}

    def add(self, key: bytes, entry: Entry, instead_of: Entry | None = None) -> None:
        """Add a new entry, perhaps in the place of another one."""
        self.changed = True
        self._unwritten.append(key)
        self.pending.add(key, entry)
        if instead_of is not None and instead_of.block:
            self._released.append(instead_of.block)

    def touch(self, key: bytes, entry: Entry) -> None:
        """Note that an entry was changed, and has to be written."""
        self.changed = True
        if entry.block:
            self._released.append(entry.block)
            entry.block = 0
            self._unwritten.append(key)

    def forget(self, key: bytes, entry: Entry) -> None:
        """Remove an entry."""
        self.changed = True
        self.pending.remove(key)
        if entry.block:
            self._released.append(entry.block)

    def changes(self, decided_ms: int, reported_ms: int) -> Iterator[tuple[bytes, bytes | None]]:
        """Return what has to be written, the head last; with both clocks of event time."""
        watermark_ms = min(decided_ms, reported_ms)
        self._blocks.release(self._released)
        self._released.clear()
        if blocks := self._blocks.sparse():
            for key, entry in self.pending.take_blocks(blocks):
                self.touch(key, entry)
            self._blocks.release(self._released)
            self._released.clear()
        # What is not closed, because too much was due at once, is not before this.
        self.done = self.pending.first(watermark_ms) or (watermark_ms + 1, b"")
        hot = self.pending.hot
        unwritten = {key: held for key in self._unwritten if (held := hot.get(key)) is not None}
        yield from self._blocks.write(unwritten, watermark_ms)
        head = JoinHead(
            decisions_ms=decided_ms,
            outcomes_ms=reported_ms,
            done_ms=self.done[0],
            done_id=self.done[1],
            next_block=self._blocks.next,
            books=self.accounting(watermark_ms),
        )
        yield HEAD_KEY, head.SerializeToString()
        self._unwritten.clear()
        self.changed = False
        self.pending.evict()

    def restore(
        self,
        head: JoinHead,
        changes: Iterable[tuple[bytes, bytes | None]],
        names: Mapping[str, str],
        revise: Callable[[bytes, Entry], None],
    ) -> None:
        """Take back what was written.

        Parameters
        ----------
        head
            The last one in the changelog.
        changes
            Keys and values of the changelog, all of those that are left and ours, in their order.
        names
            One object for each name of a decision point.
        revise
            Is handed each entry that is not done with, and its id.
        """
        self.done = (head.done_ms, head.done_id)
        self._blocks.next = head.next_block
        self.books = {point: Book(record) for point, record in head.books.items()}
        known = dict(names)
        stored: dict[int, tuple[int, int]] = {}
        for key, value in changes:
            number = block_of(key)
            if number is None:
                continue
            if value is None:
                stored.pop(number, None)
                continue
            count, items = decode(number, value, self.done, self._partition)
            stored[number] = len(value), count
            for decision_id, entry in items:
                entry.point = known.setdefault(entry.point, entry.point)
                if entry.point and entry.point not in self.books:
                    raise damaged(f"block {number} has decisions of {entry.point!r}, and the head no book of it")
                revise(decision_id, entry)
            self.pending.load(items)
        holding = self.pending.loaded()
        if astray := holding.keys() - stored.keys():
            raise damaged(f"blocks {sorted(astray)[:5]} are not in the log")
        for number, (size, count) in stored.items():
            self._blocks.add(number, size, count, holding.get(number, 0))
